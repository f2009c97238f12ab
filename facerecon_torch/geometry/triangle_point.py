"""The point of one triangle nearest to a point."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["nearest_in_triangle"]


def nearest_in_triangle(points: Float[Tensor, "*b n 3"], corners: Float[Tensor, "*b n 3 3"]) -> Float[Tensor, "*b n 3"]:
    """The barycentric weights of the point of triangle i nearest to point i; differentiable almost everywhere.

    The candidates are the foot of the perpendicular, where it falls inside, and the nearest point of each edge. In a
    triangle without area the edges alone count.
    """
    a, b, c = corners.unbind(-2)
    inside, weights = _foot(points, a, b, c)
    best = torch.where(inside[..., None], weights, 0.0)
    nearest = torch.where(inside, -1.0, torch.inf).to(points.dtype)  # a foot inside beats every edge
    for first, second, third in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        share = _along(points, corners[..., first, :], corners[..., second, :])
        edge = torch.stack([1 - share, share, torch.zeros_like(share)], -1)
        order = torch.tensor([(first, second, third).index(k) for k in range(3)], device=points.device)
        edge = edge[..., order]
        squared = ((edge[..., None, :] @ corners).squeeze(-2) - points).square().sum(-1)
        closer = squared < nearest
        best = torch.where(closer[..., None], edge, best)
        nearest = torch.where(closer, squared, nearest)
    return best


def _along(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    edge = end - start
    length = edge.square().sum(-1)
    share = ((points - start) * edge).sum(-1) / torch.where(length > 0, length, 1.0)
    return share.clamp(0, 1)


def _foot(points: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the perpendicular foot in the triangle's plane, and whether it lies inside."""
    ab, ac, ap = b - a, c - a, points - a
    normal = torch.linalg.cross(ab, ac)
    area = normal.square().sum(-1)
    safe = torch.where(area > 0, area, 1.0)
    second = (torch.linalg.cross(ap, ac) * normal).sum(-1) / safe
    third = (torch.linalg.cross(ab, ap) * normal).sum(-1) / safe
    first = 1 - second - third
    inside = (area > 0) & (first >= 0) & (second >= 0) & (third >= 0)
    return inside, torch.stack([first, second, third], -1)
