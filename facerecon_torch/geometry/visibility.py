"""Which vertices of a mesh the viewer sees."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import MeshBackend, get_backend
from facerecon_torch.geometry.normals import vertex_normals

__all__ = ["visible_vertices"]


def visible_vertices(
    points_view: Float[Tensor, "*b V 3"],
    triangles: Int[Tensor, "T 3"],
    *,
    backend: MeshBackend | None = None,
    clearance: float = 0.1,
    facing: float = 0.0,
) -> Bool[Tensor, "*b V"]:
    """Whether each vertex faces the viewer and has nothing in front of it.

    A ray runs parallel to +z from `clearance` in front of the vertex, so that its own triangles do not count; surfaces
    nearer than `clearance` therefore hide nothing.

    Args:
        points_view: vertices in mm in the viewer's axes (`projection.rotate_to_view`).
        triangles: corners.
        backend: of the rays; None: that of `get_backend`.
        clearance: in mm.
        facing: least z of the unit normal of a vertex that faces the viewer.

    Returns:
        True for visible vertices.

    Example:
        >>> seen = visible_vertices(rotate_to_view(vertices, camera), triangles)
    """
    backend = get_backend() if backend is None else backend
    towards = torch.zeros_like(points_view)
    towards[..., 2] = 1
    hit = backend.first_hit(points_view + clearance * towards, towards, points_view, triangles)
    return (vertex_normals(points_view, triangles)[..., 2] > facing) & (hit.triangle < 0)
