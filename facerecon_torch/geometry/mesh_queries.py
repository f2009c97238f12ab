"""Mesh queries that need a spatial search, by exchangeable backends: warp, or pytorch3d.

A backend's package is imported on first use.
"""

from collections.abc import Callable
from importlib import import_module
from threading import Lock

from facerecon_torch.geometry.mesh_types import ClosestPoint, MeshBackend, Raster, RayHit

__all__ = ["ClosestPoint", "MeshBackend", "Raster", "RayHit", "get_backend", "use_backend"]


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
