"""What every mesh backend does alike: checks of indices, and the exact answer once the triangle is known."""

import torch
from torch import Tensor

from facerecon_torch.geometry.mesh_ops import ClosestPoint
from facerecon_torch.geometry.triangle_point import nearest_in_triangle

__all__ = ["describe_closest", "require_indices", "triangle_corners"]


def require_indices(triangles: Tensor, vertices: Tensor) -> None:
    """Raise ValueError for an index outside the mesh: a kernel would read outside its memory. Waits for the device."""
    if not len(triangles):
        return
    low, high = (int(v) for v in triangles.aminmax())
    if low < 0 or high >= vertices.shape[-2]:
        raise ValueError(f"triangles must index vertices 0..{vertices.shape[-2] - 1}; got {low}..{high}")


def triangle_corners(vertices: Tensor, triangles: Tensor, triangle: Tensor) -> Tensor:
    """Corners [*b, n, 3, 3] of the triangles numbered `triangle` [*b, n] of meshes with `vertices` [*b, V, 3]."""
    rows = triangles.long()[triangle]
    flat = rows.reshape(*rows.shape[:-2], -1)[..., None].expand(*rows.shape[:-2], rows.shape[-2] * 3, 3)
    return vertices.gather(-2, flat).reshape(*rows.shape, 3)


def describe_closest(points: Tensor, vertices: Tensor, triangles: Tensor, triangle: Tensor) -> ClosestPoint:
    """The nearest point of triangle `triangle` [*b, n] (-1: none) to each of `points` [*b, n, 3], in their dtype and
    differentiable."""
    hit = triangle >= 0
    if not len(triangles):
        nothing = torch.zeros_like(points)
        return ClosestPoint(nothing, torch.full_like(points[..., 0], torch.inf), triangle, nothing)
    corners = triangle_corners(vertices, triangles, triangle.clamp_min(0))
    weights = torch.where(hit[..., None], nearest_in_triangle(points, corners), 0.0)
    nearest = (weights[..., None, :] @ corners).squeeze(-2)
    distance = torch.where(hit, torch.linalg.vector_norm(nearest - points, dim=-1), torch.inf)
    return ClosestPoint(nearest, distance, triangle, weights)
