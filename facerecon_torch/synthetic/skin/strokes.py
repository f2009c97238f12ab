"""Anti-aliased lines and filled outlines on a texture, drawn by Pillow at twice the resolution, and blur."""

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

__all__ = ["blur", "fill", "polyline", "strokes"]

_FINER = 2


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
