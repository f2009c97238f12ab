"""Which vertices of a mesh the viewer sees."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.mesh_ops import MeshBackend, get_backend
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
    """Vertices that face the viewer and have nothing in front of them.

    `points_view` in mm in the viewer's axes (`projection.rotate_to_view`). A vertex faces the viewer where
    the z of its unit normal exceeds `facing`; from `clearance` mm in front of it, so that its own triangles
    do not count, a ray runs parallel to +z. Surfaces nearer than `clearance` therefore hide nothing.
    """
    backend = get_backend() if backend is None else backend
    towards = torch.zeros_like(points_view)
    towards[..., 2] = 1
    hit = backend.first_hit(points_view + clearance * towards, towards, points_view, triangles)
    return (vertex_normals(points_view, triangles)[..., 2] > facing) & (hit.triangle < 0)
