"""Triangles -> pixels in plain torch: benchmarks render faces where warp is not installed, too."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["rasterise"]

_LEVELS = 2**31 - 1  # of depth
_INDICES = 2**32


def rasterise(
    points: Float[Tensor, "n v 3"], triangles: Int[Tensor, "t 3"], size: int
) -> tuple[Int[Tensor, "n size size"], Float[Tensor, "n size size 3"]]:
    """The nearest triangle of each pixel (-1: none) and its barycentric weights; x, y in px, larger z is nearer."""
    drawn = [_draw(one, triangles, size) for one in points.double()]
    return torch.stack([triangle for triangle, _ in drawn]), torch.stack([weights for _, weights in drawn])


def _draw(
    points: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], size: int
) -> tuple[Int[Tensor, "size size"], Float[Tensor, "size size 3"]]:
    """A z-buffer of whole numbers, depth level first and triangle second: the order of drawing does not matter."""
    corners = points[triangles]
    low = corners[..., :2].amin(1).ceil().clamp(0, size).long()
    sides = (corners[..., :2].amax(1).floor().clamp(-1, size - 1).long() - low + 1).clamp_min(0)
    counts = sides.prod(1)
    triangle = torch.repeat_interleave(counts)  # of every pixel of every bounding box
    place = torch.arange(len(triangle), device=points.device) - (counts.cumsum(0) - counts)[triangle]
    width = sides[triangle, 0]
    x, y = low[triangle, 0] + place % width, low[triangle, 1] + place // width
    weights = _weights(corners, triangle, x, y)
    inside = (weights >= 0).all(-1).nonzero()[:, 0]  # a triangle without area has weights of NaN
    triangle, pixel, weights = triangle[inside], (y * size + x)[inside], weights[inside]
    depth = (points[:, 2] - points[:, 2].amin()) / (points[:, 2].amax() - points[:, 2].amin()).clamp_min(1e-9)
    level = ((weights * depth[triangles][triangle]).sum(-1) * _LEVELS).long().clamp(0, _LEVELS)
    buffer = torch.full((size * size,), -1, dtype=torch.int64, device=points.device)
    buffer.scatter_reduce_(0, pixel, level * _INDICES + (_INDICES - 1 - triangle), "amax")
    nearest = torch.where(buffer >= 0, _INDICES - 1 - buffer % _INDICES, -1)
    seen = (nearest >= 0).nonzero()[:, 0]
    barycentric = points.new_zeros(size * size, 3)
    barycentric[seen] = _weights(corners, nearest[seen], seen % size, seen // size)
    return nearest.reshape(size, size), barycentric.reshape(size, size, 3)


def _weights(
    corners: Float[Tensor, "t 3 3"], triangle: Int[Tensor, "m"], x: Int[Tensor, "m"], y: Int[Tensor, "m"]
) -> Float[Tensor, "m 3"]:
    """Barycentric weights of pixels in their triangles."""
    (ax, ay), (bx, by), (cx, cy) = (corners[:, k, :2].unbind(1) for k in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    slopes = torch.stack([by - cy, cx - bx, cy - ay, ax - cx], 1) / area[:, None]
    px, py = x - cx[triangle], y - cy[triangle]
    first, second = ((slopes[triangle, k] * px + slopes[triangle, k + 1] * py) for k in (0, 2))
    return torch.stack([first, second, 1 - first - second], 1)
