"""The skin texture during painting: its map on the head, its layers, and curves, lines, outlines and blur on it.

The map is cylindrical. Reference frame: the neutral mean head in the model frame (mm). The axis is vertical, at
z = `axis_depth`; the front of a head is unrolled with little distortion: u = radius * azimuth (mm, to image right),
v = y. Lines and outlines are drawn by Pillow at twice the resolution.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

__all__ = ["Atlas", "Canvas", "blur", "closed_curve", "fill", "open_curve", "polyline", "strokes"]

_STRIP = 12.0  # mm, height of the lowest strip, which is repeated below the texture
_FINER = 2


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Texture map of the front of the reference head; rows run from the top (`v_high`) down."""

    axis_depth: float = -60.0  # mm, z of the axis
    radius: float = 75.0  # mm per radian of azimuth
    u_half: float = 130.0  # mm each side of the middle
    v_low: float = -100.0  # mm
    v_high: float = 100.0  # mm
    px_per_mm: float = 2.5

    @property
    def height(self) -> int:
        """Rows of the texture."""
        return round((self.v_high - self.v_low) * self.px_per_mm)

    @property
    def width(self) -> int:
        """Columns of the texture."""
        return round(2 * self.u_half * self.px_per_mm)

    def unroll(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        """(u, v) in mm of points of the reference head."""
        azimuth = torch.atan2(points[:, 0], points[:, 2] - self.axis_depth)
        return torch.stack([azimuth * self.radius, points[:, 1]], dim=1)

    def to_pixels(self, unrolled: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """(column, row) of the texture, the first pixel's centre being (0, 0)."""
        columns = (unrolled[:, 0] + self.u_half) * self.px_per_mm - 0.5
        return torch.stack([columns, (self.v_high - unrolled[:, 1]) * self.px_per_mm - 0.5], dim=1)

    def grid(self) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]]:
        """u and v in mm of every texture pixel."""
        columns = (torch.arange(self.width) + 0.5) / self.px_per_mm - self.u_half
        rows = self.v_high - (torch.arange(self.height) + 0.5) / self.px_per_mm
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        return u, v

    def sample(
        self, layers: Float[Tensor, "layers height width"], unrolled: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n layers"]:
        """The bilinear values of every layer.

        Outside, the texture is mirrored; below, its lowest strip is repeated back and forth, so that the neck is skin.
        """
        under = (self.v_low - unrolled[:, 1]).clamp_min(0) % (2 * _STRIP)
        v = torch.maximum(unrolled[:, 1], self.v_low + _STRIP - (under - _STRIP).abs())
        x = unrolled[:, 0] / self.u_half
        y = 1 - 2 * (v - self.v_low) / (self.v_high - self.v_low)
        where = torch.stack([x, y], dim=1)[None, None]
        return grid_sample(layers[None], where, padding_mode="reflection", align_corners=False)[0, :, 0].mT


@dataclass
class Canvas:
    """Texture during painting: colour (linear RGB), relief (height in mm) and gloss."""

    atlas: Atlas
    marks: Float[Tensor, "68 2"]  # unrolled iBUG points, mm
    u: Float[Tensor, "height width"]
    v: Float[Tensor, "height width"]
    colour: Float[Tensor, "3 height width"]
    relief: Float[Tensor, "height width"]
    gloss: Float[Tensor, "height width"]

    def tint(self, strength: Tensor, factor: tuple[float, float, float]) -> None:
        """Multiply the colour by `factor` where `strength` is 1."""
        self.colour = self.colour * (1 + strength * (torch.tensor(factor)[:, None, None] - 1))

    def cover(self, strength: Tensor, colour: tuple[float, float, float]) -> None:
        """Paint `colour` over the skin with opacity `strength`."""
        strength = strength.clamp(0, 1)
        self.colour = self.colour * (1 - strength) + strength * torch.tensor(colour)[:, None, None]

    def spot(self, centre: Tensor, width: float, height: float) -> Tensor:
        """A Gaussian bump of the given half-axes in mm."""
        across, down = (self.u[0] - centre[0]) / width, (self.v[:, 0] - centre[1]) / height
        return torch.exp(-(down**2))[:, None] * torch.exp(-(across**2))

    def pixels(self, points: Tensor) -> Tensor:
        """Texture pixels of unrolled points (mm)."""
        return self.atlas.to_pixels(points)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the texture."""
        return self.atlas.height, self.atlas.width


def closed_curve(points: Tensor, steps: int = 6) -> Tensor:
    """A Catmull-Rom curve through a ring of points."""
    before, after, beyond = points.roll(1, 0), points.roll(-1, 0), points.roll(-2, 0)
    t = (torch.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[:, None] for p in (before, points, after, beyond))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2)


def open_curve(points: Tensor) -> Tensor:
    """A Catmull-Rom curve through points, with end tangents along the chords."""
    padded = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    ring = closed_curve(padded)
    return ring[6 : 6 * len(points) + 1]


class _Crop:
    """The part of a texture around some points, for drawing at a finer resolution."""

    def __init__(self, shape: tuple[int, int], points: Float[Tensor, "n 2"], margin: float) -> None:
        self.shape = shape
        low = (points.amin(0) - margin - 1).floor().long().tolist()
        high = (points.amax(0) + margin + 2).ceil().long().tolist()
        self.left, self.top = (max(0, min(v, side - 1)) for v, side in zip(low, (shape[1], shape[0])))
        self.right = max(self.left + 1, min(high[0], shape[1]))
        self.bottom = max(self.top + 1, min(high[1], shape[0]))
        size = ((self.right - self.left) * _FINER, (self.bottom - self.top) * _FINER)
        self.image = Image.new("L", size)
        self.draw = ImageDraw.Draw(self.image)

    def corners(self, points: Float[Tensor, "n 2"]) -> list[tuple[float, float]]:
        moved = points - torch.tensor([self.left, self.top])
        return [(x, y) for x, y in ((moved + 0.5) * _FINER - 0.5).tolist()]

    def mask(self) -> Float[Tensor, "height width"]:
        raw = torch.frombuffer(bytearray(self.image.tobytes()), dtype=torch.uint8)
        fine = raw.reshape(1, 1, self.image.height, self.image.width).float() / 255
        mask = torch.zeros(self.shape)
        mask[self.top : self.bottom, self.left : self.right] = avg_pool2d(fine, _FINER)[0, 0]
        return mask


def fill(shape: tuple[int, int], outline: Float[Tensor, "n 2"]) -> Float[Tensor, "height width"]:
    """The coverage in [0, 1] of a closed outline in px (column, row)."""
    crop = _Crop(shape, outline, 0.0)
    crop.draw.polygon(crop.corners(outline), fill=255)
    return crop.mask()


def polyline(shape: tuple[int, int], lines: list[Tensor], *, width: float) -> Float[Tensor, "height width"]:
    """The coverage of lines `width` px wide, with round joints."""
    crop = _Crop(shape, torch.cat(lines), width)
    for line in lines:
        crop.draw.line(crop.corners(line), fill=255, width=max(1, round(width * _FINER)), joint="curve")
    return crop.mask()


def strokes(shape: tuple[int, int], hairs: Float[Tensor, "hairs points 2"]) -> Float[Tensor, "height width"]:
    """The coverage of single hairs, half a pixel wide."""
    crop = _Crop(shape, hairs.reshape(-1, 2), 1.0)
    for hair in hairs:
        crop.draw.line(crop.corners(hair), fill=255, width=1)
    return crop.mask()


def blur(image: Float[Tensor, "*c height width"], deviation: float) -> Float[Tensor, "*c height width"]:
    """The image under a Gaussian blur of `deviation` px; the border is repeated."""
    if deviation <= 0.05:
        return image
    reach = max(1, round(3 * deviation))
    rows = _used(image.flatten(0, -2), reach, image.shape[-2])
    columns = _used(image.mT.flatten(0, -2), reach, image.shape[-1])
    at = torch.arange(-reach, reach + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = kernel / kernel.sum()
    part = image[..., rows, columns]
    layers = pad(part.reshape(1, -1, *part.shape[-2:]), (reach, reach, reach, reach), mode="replicate")[0]
    done = torch.zeros_like(image)
    done[..., rows, columns] = _slide(_slide(layers, kernel, -1), kernel, -2).reshape(part.shape)
    return done


def _slide(layers: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """The correlation along one axis, as a sum of shifted copies: faster than a convolution of one channel on a CPU."""
    length = layers.shape[axis] - len(kernel) + 1
    total = layers.narrow(axis, 0, length) * kernel[0]
    for shift, weight in enumerate(kernel.tolist()[1:], start=1):
        total.add_(layers.narrow(axis, shift, length), alpha=weight)
    return total


def _used(lines: Tensor, reach: int, length: int) -> slice:
    """The rows with nonzero values, widened by `reach`."""
    busy = lines.ne(0).any(-1).reshape(-1, length).any(0).nonzero()
    if not len(busy):
        return slice(0, 1)
    return slice(max(0, int(busy[0]) - reach), min(length, int(busy[-1]) + reach + 1))
