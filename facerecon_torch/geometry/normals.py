"""Unit normals of triangles and vertices; outward where triangles run counter-clockwise seen from outside."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["triangle_normals", "vertex_normals"]


def _crosses(vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]) -> Float[Tensor, "*b T 3"]:
    corners = vertices[..., triangles, :]
    first = corners[..., 0, :]
    crosses: Tensor = torch.linalg.cross(corners[..., 1, :] - first, corners[..., 2, :] - first)
    return crosses


def _unit(vectors: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Zero vectors stay zero and pass a zero gradient."""
    squared = vectors.square().sum(-1, keepdim=True)
    empty = squared <= torch.finfo(vectors.dtype).tiny
    return torch.where(empty, 0.0, vectors / torch.where(empty, torch.ones_like(squared), squared).sqrt())


def triangle_normals(vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]) -> Float[Tensor, "*b T 3"]:
    """The unit normal of every triangle; zero for a triangle without area."""
    return _unit(_crosses(vertices, triangles))


def vertex_normals(vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]) -> Float[Tensor, "*b V 3"]:
    """The unit normal of every vertex: the area-weighted mean normal of its triangles; zero for a vertex without
    triangles."""
    crosses = _crosses(vertices, triangles)
    sums = torch.zeros_like(vertices)
    for corner in range(3):
        sums = sums.index_add(-2, triangles[:, corner], crosses)
    return _unit(sums)
