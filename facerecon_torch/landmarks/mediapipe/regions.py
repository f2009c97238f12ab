"""Regions of pictures as square inputs of networks: cutting them, maps to their px, and the way back."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from facerecon_torch.images.read import Pixels, in_unit_range

__all__ = [
    "Window",
    "chunks",
    "cut_faces",
    "face_regions",
    "face_windows",
    "letterbox",
    "region_scale",
    "tiles",
    "to_image",
    "whole",
]

Window = tuple[int, int, int, int]
"""Left, top, right + 1 and bottom + 1 in px."""
_TILES = 3  # along a side
_MARGIN = 1.5  # side of a face's region over the longer side of its box
_FINER = 1.25  # px of the shrunk picture per px of the region that is turned out of it
_RIGHT_EYE, _LEFT_EYE = 0, 1  # of the six points, of the person


def whole(height: int, width: int) -> list[Window]:
    """The whole picture."""
    return [(0, 0, width, height)]


def tiles(height: int, width: int) -> list[Window]:
    """Tiles of half the longer side, which overlap by half: nine of a square picture."""
    side = math.ceil(max(height, width) / 2)

    def spans(extent: int) -> list[tuple[int, int]]:
        if extent <= side:
            return [(0, extent)]
        starts = [round((extent - side) * k / (_TILES - 1)) for k in range(_TILES)]
        return [(start, start + side) for start in starts]

    return [(left, top, right, bottom) for top, bottom in spans(height) for left, right in spans(width)]


def face_windows(boxes: Float[Tensor, "n 4"], sizes: Sequence[Sequence[int]], ratio: float) -> list[Window]:
    """The parts of pictures of (height, width) px under squares of `ratio` times the longer side of boxes (x0, y0, x1,
    y1), at least one px."""
    first, last = boxes[:, :2].double().cpu(), boxes[:, 2:].double().cpu()
    middles, reaches = ((first + last) / 2).tolist(), (ratio / 2 * (last - first).amax(-1)).tolist()
    return [
        _window(middle, reach, height, width)
        for middle, reach, (height, width) in zip(middles, reaches, sizes, strict=True)
    ]


def letterbox(
    images: Sequence[Tensor], windows: Sequence[Window], size: int, device: torch.device
) -> tuple[Float[Tensor, "n 3 side side"], Float[Tensor, "n 2 3"]]:
    """The windows in squares of `size` px, black beside the shorter side, in [0, 1], and the maps from image px to
    px of the squares.

    Args:
        images: one for each window, bytes or floats in [0, 1].
        windows: parts of the images.
        size: side of the squares.
        device: of the answer.
    """
    inputs = torch.zeros(len(images), 3, size, size, device=device)
    maps = torch.zeros(len(images), 2, 3, dtype=torch.float64)
    for k, (image, (left, top, right, bottom)) in enumerate(zip(images, windows, strict=True)):
        scale = size / max(right - left, bottom - top)
        columns, rows = (max(1, round(side * scale)) for side in (right - left, bottom - top))
        x, y = (size - columns) // 2, (size - rows) // 2
        inputs[k, :, y : y + rows, x : x + columns] = _resized(
            image[:, top:bottom, left:right].to(device), rows, columns
        )
        for axis, (ratio, start, offset) in enumerate(
            ((columns / (right - left), left, x), (rows / (bottom - top), top, y))
        ):
            maps[k, axis, axis] = ratio
            maps[k, axis, 2] = ratio * (0.5 - start) - 0.5 + offset
    return inputs, maps.to(device)


def _resized(picture: Pixels, rows: int, columns: int) -> Float[Tensor, "3 rows columns"]:
    """The picture resampled, bilinear and antialiased, in [0, 1]. On a CPU bytes stay bytes, several times as fast."""
    source = picture if picture.device.type == "cpu" and picture.dtype == torch.uint8 else in_unit_range(picture)
    if source.shape[-2:] != (rows, columns):
        source = functional.interpolate(source[None], (rows, columns), mode="bilinear", antialias=True)[0]
    return in_unit_range(source).clamp(0, 1)


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


def cut_faces(images: Sequence[Tensor], to_region: Float[Tensor, "n 2 3"], size: int) -> Float[Tensor, "n 3 side side"]:
    """The regions in [0, 1] on the device of the maps; beyond an image its border goes on.

    The window under the circle around a region is cut, shrunk once to little more than the region's density, and
    turned.

    Args:
        images: one for each region, bytes or floats in [0, 1].
        to_region: maps from image px to region px.
        size: side of the regions.
    """
    host = to_region.to("cpu", torch.float64)
    scales, inverse = region_scale(host).tolist(), torch.linalg.inv(host[:, :, :2])
    middle = (inverse @ ((size - 1) / 2 - host[:, :, 2:]))[..., 0]
    regions = to_region.new_empty(len(images), 3, size, size, dtype=torch.float32)
    for k, (image, scale) in enumerate(zip(images, scales)):
        reach = size / scale / math.sqrt(2) + 2 + 2 / scale
        left, top, right, bottom = _window(middle[k].tolist(), reach, image.shape[-2], image.shape[-1])
        extent = torch.tensor([right - left, bottom - top], dtype=torch.float64)
        columns, rows = (max(1, math.ceil(side * min(1.0, _FINER * scale))) for side in extent.tolist())
        part = _resized(image[:, top:bottom, left:right].to(to_region.device), rows, columns)
        # From [-1, 1] over the region to [-1, 1] over the window.
        linear = inverse[k] * size / extent[:, None]
        shift = 2 * (middle[k] - torch.tensor([left, top]) + 0.5) / extent - 1
        turn = torch.cat([linear, shift[:, None]], 1).to(part)
        grid = functional.affine_grid(turn[None], [1, 3, size, size], align_corners=False)
        regions[k] = functional.grid_sample(
            part[None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )[0]
    return regions


def _window(middle: Sequence[float], reach: float, height: int, width: int) -> Window:
    """The part of the image within `reach` px of a point in x and in y, at least one px."""
    low, high = [], []
    for centre, extent in zip(middle, (width, height)):
        first = min(max(math.floor(centre - reach), 0), extent - 1)
        low.append(first)
        high.append(min(max(math.ceil(centre + reach), first + 1), extent))
    return low[0], low[1], high[0], high[1]


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
