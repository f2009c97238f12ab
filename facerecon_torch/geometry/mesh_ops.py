"""The mesh operations that need a spatial search, behind one interface with exchangeable backends.

All meshes of a batch share their triangles. No operation changes its input; answers live on the input's
device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.geometry.laplacian import Laplacian

__all__ = ["ClosestPoint", "MeshBackend", "Raster", "RayHit", "get_backend", "register_backend", "use_backend"]


@dataclass(frozen=True)
class Raster:
    """Nearest triangle behind every pixel centre: `triangle` is -1 and the rest 0 where there is none.

    `depth` is in the unit of the z that was rasterised; the corner weights in `barycentric` sum to 1.
    """

    triangle: Int[Tensor, "*b height width"]
    barycentric: Float[Tensor, "*b height width 3"]
    depth: Float[Tensor, "*b height width"]


@dataclass(frozen=True)
class ClosestPoint:
    """Point of the mesh nearest to each query point. Without any, `triangle` is -1 and `distance`
    infinite."""

    point: Float[Tensor, "*b n 3"]
    distance: Float[Tensor, "*b n"]
    triangle: Int[Tensor, "*b n"]
    barycentric: Float[Tensor, "*b n 3"]


@dataclass(frozen=True)
class RayHit:
    """First triangle that each ray meets, from either side. Without any, -1 and an infinite distance."""

    distance: Float[Tensor, "*b n"]
    triangle: Int[Tensor, "*b n"]


@runtime_checkable
class MeshBackend(Protocol):
    """What a backend has to answer. Vertex indices outside the mesh raise ValueError."""

    def rasterise(
        self, points_image: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"], height: int, width: int
    ) -> Raster:
        """Z-buffer of triangles given as (x px, y px, depth towards the viewer), both sides drawn.

        A pixel is covered where its centre lies in the triangle or on its edge; of equal depths the lower
        triangle index wins. Triangles without area or with a non-finite corner are left out. Not
        differentiable.
        """
        ...

    def closest_point(
        self,
        points: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> ClosestPoint:
        """Nearest surface point, in the unit of the vertices; differentiable given the triangle it lies
        on."""
        ...

    def first_hit(
        self,
        origins: Float[Tensor, "*b n 3"],
        directions: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> RayHit:
        """Distance along unit directions to the first triangle, in the unit of the vertices. Not
        differentiable."""
        ...

    def laplacian(self, vertices: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"]) -> Laplacian:
        """The cotangent Laplacian of one mesh, with areas in the squared unit of the vertices (see
        `laplacian.cotangent_laplacian`)."""
        ...


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


def register_backend(name: str, factory: Callable[[], MeshBackend]) -> None:
    """Make a backend selectable by name; `factory` runs on its first use."""
    _factories[name] = factory
    _made.pop(name, None)


def use_backend(name: str) -> MeshBackend:
    """Make the backend of that name the one that this process takes where none is named, and return it."""
    backend = get_backend(name)
    _chosen[:] = [name]
    return backend


def get_backend(name: str | None = None) -> MeshBackend:
    """The backend of that name, made on first use; None: the one chosen by `use_backend`, else warp.

    Raises ValueError for a name nobody registered, and for a backend whose package is missing.
    """
    if name is None:
        name = _chosen[0]
    if name not in _factories:
        raise ValueError(f"mesh backend must be one of {sorted(_factories)}; got {name!r}")
    with _lock:  # starting a backend twice at once is not safe
        if name not in _made:
            _made[name] = _factories[name]()
        return _made[name]
