"""Unit normals of triangles and vertices; outward where triangles run counter-clockwise seen from outside."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["corner_crosses", "normals_of_crosses", "triangle_normals", "vertex_normals"]


def corner_crosses(vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]) -> Float[Tensor, "*b T 3"]:
    """The normal of every triangle, with twice its area as length."""
    corners = vertices[..., triangles, :]
    first = corners[..., 0, :]
    crosses: Tensor = torch.linalg.cross(corners[..., 1, :] - first, corners[..., 2, :] - first)
    return crosses


def _unit(vectors: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """The vectors scaled to length 1; zero vectors stay zero and have a zero gradient."""
    squared = vectors.square().sum(-1, keepdim=True)
    empty = squared <= torch.finfo(vectors.dtype).tiny
    return torch.where(empty, 0.0, vectors / torch.where(empty, torch.ones_like(squared), squared).sqrt())


def triangle_normals(vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]) -> Float[Tensor, "*b T 3"]:
    """The unit normal of every triangle; zero for a triangle without area."""
    return _unit(corner_crosses(vertices, triangles))


def vertex_normals(vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]) -> Float[Tensor, "*b V 3"]:
    """The unit normal of every vertex: the area-weighted mean normal of its triangles; zero for a vertex without
    triangles."""
    return normals_of_crosses(vertices, triangles, corner_crosses(vertices, triangles))


def normals_of_crosses(
    vertices: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"], crosses: Float[Tensor, "*b T 3"]
) -> Float[Tensor, "*b V 3"]:
    """`vertex_normals` where the `corner_crosses` are known."""
    sums = torch.zeros_like(vertices)
    for corner in range(3):
        sums = sums.index_add(-2, triangles[:, corner], crosses)
    return _unit(sums)
