"""Square regions of pictures as inputs of networks: maps to their px, cutting, and the way back."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.images.resample import resample

__all__ = ["chunks", "cut_regions", "face_regions", "letterbox_maps", "region_scale", "tile_maps", "to_image"]

_TILES = 3  # along a side
_MARGIN = 1.5  # side of a face's region over the longer side of its box
_RIGHT_EYE, _LEFT_EYE = 0, 1  # of the six points, of the person


def letterbox_maps(height: int, width: int, size: int) -> Float[Tensor, "1 2 3"]:
    """The map from image px to the px of a square of `size` px that the whole image just fits into."""
    return _square_maps(torch.tensor([[(width - 1) / 2, (height - 1) / 2]]), max(height, width), size)


def tile_maps(height: int, width: int, size: int) -> Float[Tensor, "tiles 2 3"]:
    """The maps from image px to the px of squares of `size` px for tiles of half the longer side, which overlap by
    half: nine of a square image."""
    side = max(height, width) / 2
    centres = [
        torch.linspace(side / 2, extent - side / 2, _TILES) - 0.5 if extent > side else torch.tensor([(extent - 1) / 2])
        for extent in (width, height)
    ]
    return _square_maps(torch.cartesian_prod(*centres), side, size)


def _square_maps(centres: Float[Tensor, "n 2"], side: float, size: int) -> Float[Tensor, "n 2 3"]:
    """The maps to squares of `size` px of the squares with the given side around the centres (x, y)."""
    scale = size / side
    shift = (size - 1) / 2 - scale * centres.double()
    return torch.cat([(scale * torch.eye(2, dtype=torch.float64)).expand(len(centres), 2, 2), shift[..., None]], -1)


def face_regions(
    boxes: Float[Tensor, "n 4"], points: Float[Tensor, "n 6 2"] | None, size: int
) -> Float[Tensor, "n 2 3"]:
    """The maps from image px to the px of squares of `size` px around faces, with the eyes level.

    Args:
        boxes: (x0, y0, x1, y1) in image px.
        points: eyes first, in image px; None: the faces are upright.
        size: side of the squares.
    """
    low, high = boxes[:, :2].double(), boxes[:, 2:].double()
    scale = size / (_MARGIN * (high - low).amax(-1))
    angle = torch.zeros_like(scale)
    if points is not None:
        x, y = (points[:, _LEFT_EYE] - points[:, _RIGHT_EYE]).double().unbind(-1)
        angle = torch.atan2(y, x)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    shift = (size - 1) / 2 - (linear @ ((low + high) / 2)[..., None])
    return torch.cat([linear, shift], dim=-1)


def cut_regions(
    images: Sequence[Tensor], to_region: Float[Tensor, "n 2 3"], size: int, *, rotated: bool, outside: str
) -> Float[Tensor, "n 3 side side"]:
    """The regions in [0, 1] on the device of the maps, each image read once.

    Args:
        images: one for each region, bytes or floats in [0, 1].
        to_region: maps from image px to region px.
        size: side of the regions.
        rotated: whether maps rotate.
        outside: `edge` or `zeros`, as in `images.resample`.
    """
    host = to_region.to("cpu", torch.float64)
    regions = to_region.new_empty(len(images), 3, size, size, dtype=torch.float32)
    for rows in _together(images, alone=rotated):
        pictures = torch.stack([images[k].to(to_region.device) for k in rows])
        regions[rows] = resample(
            pictures, to_region[rows], host[rows], size=size, outside=outside, rotated=rotated, fine=False
        )
    return regions


def _together(images: Sequence[Tensor], *, alone: bool) -> list[list[int]]:
    """The rows of pictures of one size and dtype, whose regions are cut as one. Turned regions are cut `alone`: they
    lie anywhere, and together all would read the whole picture."""
    groups: dict[object, list[int]] = {}
    for k, image in enumerate(images):
        groups.setdefault(k if alone else (image.shape, image.dtype), []).append(k)
    return list(groups.values())


def to_image(points: Float[Tensor, "n m 2"], to_region: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n m 2"]:
    """Points in region px, moved to image px."""
    linear, shift = to_region[:, :, :2], to_region[:, :, 2:]
    moved: Tensor = torch.linalg.solve_ex(linear, points.to(to_region.dtype).mT - shift)[0]
    return moved.mT


def region_scale(to_region: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n"]:
    """Region px per image px."""
    return torch.hypot(to_region[:, 0, 0], to_region[:, 0, 1])


def chunks(count: int, device: torch.device) -> list[slice]:
    """The rows 0 .. count - 1 in groups of about equal length, as many together as pay on the device."""
    groups = math.ceil(count / (256 if device.type == "cuda" else 8))
    return [slice(count * k // groups, count * (k + 1) // groups) for k in range(groups)]
