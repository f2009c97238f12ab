"""Mesh queries that need a spatial search, by exchangeable backends: warp, or pytorch3d.

A backend's package is imported on first use.
"""

from collections.abc import Callable
from importlib import import_module
from threading import Lock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.mesh_types import ClosestPoint, MeshBackend, Raster, RayHit
from facerecon_torch.geometry.normals import vertex_normals

__all__ = ["ClosestPoint", "MeshBackend", "Raster", "RayHit", "get_backend", "use_backend", "visible_vertices"]


def _warp() -> MeshBackend:
    backend: MeshBackend = import_module("facerecon_torch.geometry.warp_backend").WarpBackend()
    return backend


def _pytorch3d() -> MeshBackend:
    try:
        backend: MeshBackend = import_module("facerecon_torch.geometry.pytorch3d_backend").Pytorch3dBackend()
    except ImportError as error:
        raise ValueError(f"mesh backend pytorch3d needs the package pytorch3d: {error}; use warp") from error
    return backend


_factories: dict[str, Callable[[], MeshBackend]] = {"warp": _warp, "pytorch3d": _pytorch3d}
_made: dict[str, MeshBackend] = {}
_chosen = ["warp"]
_lock = Lock()


def use_backend(name: str) -> MeshBackend:
    """Make a backend the default of this process, and return it.

    Args:
        name: `warp` or `pytorch3d`.

    Raises:
        ValueError: an unknown name, or a backend whose package is missing.

    Example:
        >>> use_backend("warp")
    """
    backend = get_backend(name)
    _chosen[:] = [name]
    return backend


def get_backend(name: str | None = None) -> MeshBackend:
    """The backend of a name, made on first use.

    Args:
        name: `warp` or `pytorch3d`; None: that of `use_backend`, else warp.

    Returns:
        The one backend of that name in this process.

    Raises:
        ValueError: an unknown name, or a backend whose package is missing.

    Example:
        >>> raster = get_backend().rasterise(points_image, triangles, height, width)
    """
    if name is None:
        name = _chosen[0]
    if name not in _factories:
        raise ValueError(f"mesh backend must be one of {sorted(_factories)}; got {name!r}")
    with _lock:  # starting a backend twice at once is not safe
        if name not in _made:
            _made[name] = _factories[name]()
        return _made[name]


def visible_vertices(
    points_view: Float[Tensor, "*b V 3"],
    triangles: Int[Tensor, "T 3"],
    *,
    clearance: float = 0.1,
    facing: float = 0.0,
) -> Bool[Tensor, "*b V"]:
    """Whether each vertex faces the viewer and has nothing in front of it.

    A ray runs parallel to +z from `clearance` in front of the vertex, so that its own triangles do not count; surfaces
    nearer than `clearance` therefore hide nothing.

    Args:
        points_view: vertices in mm in the viewer's axes (`projection.rotate_to_view`).
        triangles: corners.
        clearance: in mm.
        facing: least z of the unit normal of a vertex that faces the viewer.

    Returns:
        True for visible vertices.

    Example:
        >>> seen = visible_vertices(rotate_to_view(vertices, camera), triangles)
    """
    towards = torch.zeros_like(points_view)
    towards[..., 2] = 1
    hit = get_backend().first_hit(points_view + clearance * towards, towards, points_view, triangles)
    return (vertex_normals(points_view, triangles)[..., 2] > facing) & (hit.triangle < 0)
