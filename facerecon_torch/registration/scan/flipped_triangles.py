"""Triangles that a deformation has flipped, and how their vertices are moved back."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.normals import triangle_normals

__all__ = ["flipped_triangles", "moved_as_one", "vertices_of"]


def flipped_triangles(
    deformed: Float[Tensor, "*b V 3"], original: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]
) -> Bool[Tensor, "*b T"]:
    """Whether each triangle's normal points away from its normal in the original mesh; both meshes in one frame.

    A triangle without area in either mesh has no normal and is not flipped.
    """
    return (triangle_normals(deformed, triangles) * triangle_normals(original, triangles)).sum(-1) < 0


def vertices_of(
    marked: Bool[Tensor, "*b T"], triangles: Int[Tensor, "T 3"], n_vertices: int, *, rings: int
) -> Bool[Tensor, "*b V"]:
    """Whether each vertex is a corner of a marked triangle or at most `rings` edges away from one."""
    for ring in range(rings + 1):
        touched = torch.zeros(*marked.shape[:-1], n_vertices, dtype=torch.int32, device=marked.device)
        for corner in range(3):
            touched.index_add_(-1, triangles[:, corner], marked.to(torch.int32))
        if ring < rings:
            marked = (touched > 0)[..., triangles].any(-1)
    return touched > 0


def moved_as_one(
    shift: Float[Tensor, "*b V 3"], marked: Bool[Tensor, "*b T"], triangles: Int[Tensor, "T 3"]
) -> Float[Tensor, "*b V 3"]:
    """Displacements in which the corners of each marked triangle take their mean, so that it keeps its normal. A corner
    of several marked triangles takes the mean of their means."""
    means = shift[..., triangles, :].mean(-2) * marked[..., None]
    total, count = torch.zeros_like(shift), torch.zeros_like(shift[..., :1])
    for corner in range(3):
        total.index_add_(-2, triangles[:, corner], means)
        count.index_add_(-2, triangles[:, corner], marked[..., None].to(shift.dtype))
    return torch.where(count > 0, total / count.clamp_min(1), shift)
