"""Anti-aliased resampling of pictures onto crop grids, as weighted sums of picture rows, then of columns.

A crop row is a weighted mean of a few picture rows, and likewise for columns: sums of bags of rows (`embedding_bag`),
of which the second are taken from the transposed result of the first. The weights are Keys' cubic kernel (a = -1/2), as
wide as a crop pixel where the picture is finer than the crop and as a picture pixel where it is coarser.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from facerecon_torch.images.read import in_unit_range

__all__ = ["OUTSIDE", "resample"]

OUTSIDE = ("edge", "zeros")

_GAP = 2  # picture px per crop px that averaging of whole blocks leaves to the cubic kernel
_FLOATS = 2**22  # px that are floats at a time
_WIDEST = 64.0  # blocks per crop px; a wider kernel costs memory and shows nothing


class _Window(NamedTuple):
    """The part of the pictures that the crops touch, the side of the blocks averaged first, and the half
    width of the widest kernel in blocks."""

    top: int
    bottom: int
    left: int
    right: int
    block: int
    reach: int


def resample(
    images: Float[Tensor, "b c height width"] | UInt8[Tensor, "b c height width"],
    to_crop: Float[Tensor, "b 2 3"],
    host: Float[Tensor, "b 2 3"],
    *,
    size: int,
    outside: str,
    rotated: bool,
) -> Float[Tensor, "b c crop crop"]:
    """Crops of `size` px in the images' dtype, clipped to [0, 1]; float32 for bytes, of which only those in the window
    become numbers.

    `to_crop` maps picture px to crop px; `host` is the same on the CPU in float64 and only decides which
    part of the pictures is read. Without `rotated` the maps are pure scalings and shifts. Pictures much
    finer than the crop are averaged over whole blocks first, which leaves at least a factor of two to the
    kernel.
    """
    window = _window(host, (images.shape[-2], images.shape[-1]), size, rotated)
    part = _averaged(images[..., window.top : window.bottom, window.left : window.right], window.block)
    local = _in_window(to_crop.double(), window)
    if rotated:
        return _turned(part, local, size, window.reach, outside).clamp_(0, 1)
    return _separable(part, _upright(local, size), _density(local), window.reach, outside).clamp_(0, 1)


def _averaged(part: Tensor, block: int) -> Float[Tensor, "b c height width"]:
    """The means of whole blocks as floats, made in strips, so that few pixels are floats at a time."""
    rows = max(1, _FLOATS // (part.shape[-1] * block)) * block
    # One layout in memory, whatever the pictures came in: products may round differently for another.
    if block == 1:
        return in_unit_range(part).contiguous()
    strips = (in_unit_range(strip).contiguous() for strip in torch.split(part, rows, dim=-2))
    return torch.cat([functional.avg_pool2d(strip, block, ceil_mode=True) for strip in strips], dim=-2)


def _upright(to_crop: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b 2 crop"]:
    """Where the crop's columns (x) and rows (y) lie, in picture px."""
    places = torch.arange(size, dtype=torch.float64, device=to_crop.device)
    return (places - to_crop[:, :, 2:]) / _density(to_crop)[:, None, None]


def _separable(
    part: Float[Tensor, "b c height width"],
    places: Float[Tensor, "b 2 n"],
    density: Float[Tensor, "b"],
    reach: int,
    outside: str,
) -> Float[Tensor, "b c n n"]:
    """The picture at columns and rows at `places` (x, y)."""
    rows = _mixed_rows(part, places[:, 1], density, reach, outside)
    return _mixed_rows(rows.mT, places[:, 0], density, reach, outside).mT.contiguous()


def _mixed_rows(
    part: Float[Tensor, "b c height width"],
    places: Float[Tensor, "b n"],
    density: Float[Tensor, "b"],
    reach: int,
    outside: str,
) -> Float[Tensor, "b c n width"]:
    """Weighted sums of the rows around each place."""
    (b, c, height, width), n = part.shape, places.shape[-1]
    taps, weights = _weights(places, density, height, reach, outside)
    first = height * torch.arange(b * c, device=part.device).reshape(b, c, 1, 1)  # row of each plane
    weights = weights.to(part.dtype)[:, None].expand(b, c, -1, -1)
    rows = functional.embedding_bag(
        (first + taps[:, None]).flatten(0, 2),
        part.reshape(b * c * height, width),
        mode="sum",
        per_sample_weights=weights.flatten(0, 2),
    )
    return rows.reshape(b, c, n, width)


def _window(host: Float[Tensor, "b 2 3"], extent: tuple[int, int], size: int, rotated: bool) -> _Window:
    spacing = 1 / _density(host)  # picture px per crop px
    block = max(1, min(int(float(spacing.min()) / _GAP), *extent))
    kernel = (spacing / block).clamp(1, _WIDEST)
    # A turned crop lies inside the square around its own circle.
    half = (size * math.sqrt(2) + 4 if rotated else size) / 2
    middle = _middle(host, size)
    margin = (half * spacing + block * (2 * kernel + 2))[:, None]
    low, high = (middle - margin).amin(dim=0), (middle + margin).amax(dim=0)
    left, right = _range(float(low[0]), float(high[0]), extent[1], block)
    top, bottom = _range(float(low[1]), float(high[1]), extent[0], block)
    return _Window(top, bottom, left, right, block, math.ceil(2 * float(kernel.max())))


def _range(low: float, high: float, extent: int, block: int) -> tuple[int, int]:
    """First and last + 1 picture px, inside the picture; the first one starts a block of the whole
    picture."""
    first = int(min(max(low, 0), extent - 1)) // block * block
    return first, int(min(max(high + 1, first + 1), extent))


def _density(to_crop: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b"]:
    """Crop px per picture px."""
    linear = to_crop[:, :, :2]
    return (linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]).sqrt()


def _middle(to_crop: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b 2"]:
    """Where the crop's middle lies in the picture."""
    middle: Tensor = torch.linalg.solve_ex(to_crop[:, :, :2], (size - 1) / 2 - to_crop[:, :, 2:])[0]
    return middle[..., 0]


def _in_window(to_crop: Float[Tensor, "b 2 3"], window: _Window) -> Float[Tensor, "b 2 3"]:
    """The map from blocks of the window, block (0, 0) having its centre at (0, 0)."""
    inner = (window.block - 1) / 2
    origin = torch.cat([to_crop.new_full((1, 1), first + inner) for first in (window.left, window.top)])
    linear = to_crop[:, :, :2]
    return torch.cat([linear * window.block, to_crop[:, :, 2:] + linear @ origin], dim=-1)


def _weights(
    places: Float[Tensor, "b n"], density: Float[Tensor, "b"], extent: int, reach: int, outside: str
) -> tuple[Int[Tensor, "b n taps"], Float[Tensor, "b n taps"]]:
    """The px of a picture of `extent` px around each place, and their weights.

    Weight beyond the picture goes to its border px (`edge`) or is dropped (`zeros`)."""
    taps = places.detach().floor()[..., None] + torch.arange(1 - reach, reach + 1, device=places.device)
    kernel = (1 / density).clamp(1, _WIDEST)[:, None, None]
    weights = _cubic((taps - places[..., None]) / kernel)
    weights = weights / weights.sum(-1, keepdim=True)
    if outside == "zeros":
        weights = torch.where((taps >= 0) & (taps < extent), weights, 0.0)
    return taps.clamp(0, extent - 1).long(), weights


def _cubic(x: Float[Tensor, "*b n t"]) -> Float[Tensor, "*b n t"]:
    """Keys' cubic convolution kernel with a = -1/2; zero from 2 on."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def _turned(
    part: Float[Tensor, "b c height width"],
    to_crop: Float[Tensor, "b 2 3"],
    size: int,
    reach: int,
    outside: str,
) -> Float[Tensor, "b c crop crop"]:
    """A turned crop: band-limited to the crop's density but sampled twice as densely, upright, then turned,
    so that the second interpolation costs next to nothing."""
    density = _density(to_crop)
    side = math.ceil(2 * size * math.sqrt(2)) + 8
    upright = _separable(part, _around(to_crop, size, side), density, reach, outside)
    line = torch.arange(size, dtype=torch.float64, device=part.device) - (size - 1) / 2
    crop = torch.stack([line.expand(size, size), line[:, None].expand(size, size)], dim=-1)
    turn = density[:, None, None] * torch.linalg.inv_ex(to_crop[:, :, :2])[0]
    grid = (crop @ turn[:, None].mT * (4 / (side - 1))).to(part.dtype)
    return functional.grid_sample(upright, grid, mode="bicubic", padding_mode="border", align_corners=True)


def _around(to_crop: Float[Tensor, "b 2 3"], size: int, side: int) -> Float[Tensor, "b 2 side"]:
    """`side` places along either axis around the crop's middle, half a crop px apart."""
    steps = (torch.arange(side, dtype=torch.float64, device=to_crop.device) - (side - 1) / 2) / 2
    return _middle(to_crop, size)[..., None] + steps / _density(to_crop)[:, None, None]
