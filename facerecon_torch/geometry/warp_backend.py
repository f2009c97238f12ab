"""Mesh operations through NVIDIA Warp, on CPU and CUDA.

Importing this module imports warp; `mesh_queries.get_backend` imports it on first use. Kernels are compiled once per
machine (seconds) and kept in WARP_CACHE_PATH, else in the folder `warp` of the package's cache ($FACERECON_CACHE).
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.files import cache_folder, require_writable
from facerecon_torch.geometry.laplacian import Laplacian, cotangent_laplacian
from facerecon_torch.geometry.mesh_types import (
    ClosestPoint,
    Raster,
    RayHit,
    describe_closest,
    finer_rows,
    require_indices,
)

__all__ = ["WarpBackend", "start_warp"]

_log = logging.getLogger(__name__)


def start_warp(cache: Path | None = None) -> None:
    """Initialise warp without its banner.

    Args:
        cache: folder of compiled kernels; only the first call of a process can choose it.

    Raises:
        FolderError: the package's cache folder is used and cannot be written.

    Example:
        >>> start_warp(Path("/tmp/kernels"))
    """
    chosen_elsewhere = wp.config.kernel_cache_dir is not None or "WARP_CACHE_PATH" in os.environ
    if cache is None and not chosen_elsewhere:
        cache = cache_folder() / "warp"
        require_writable(cache)
    if cache is not None:
        wp.config.kernel_cache_dir = str(cache)
    if hasattr(wp.config, "log_level"):
        wp.config.log_level = wp.LOG_WARNING
    else:  # releases before log levels
        setattr(wp.config, "quiet", True)  # noqa: B010
    with contextlib.nullcontext() if torch.cuda.is_available() else _hidden_stderr():
        wp.init()  # type: ignore[no-untyped-call]
    _log.debug("warp %s keeps its kernels in %s", wp.config.version, wp.config.kernel_cache_dir)


@contextlib.contextmanager
def _hidden_stderr() -> Iterator[None]:
    """A context without stderr: warp's library writes a line about a missing driver that no setting turns off."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr has nothing to hide
        yield
        return
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class WarpBackend:
    """`mesh_types.MeshBackend` on warp kernels. Searches run in float32 about each mesh's centre; the weights,
    points and distances of that triangle are then computed in the input's dtype."""

    def __init__(self) -> None:
        start_warp()
        from facerecon_torch.geometry import warp_kernels  # needs the settings above

        self._kernels = warp_kernels

    def rasterise(
        self, points_image: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"], height: int, width: int
    ) -> Raster:
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1; got {height} and {width}")
        require_indices(triangles, points_image)
        batch, device, dtype = points_image.shape[:-2], points_image.device, points_image.dtype
        points = (
            points_image.detach()
            .double()
            .reshape(points_image.shape[:-2].numel(), *points_image.shape[-2:])
            .contiguous()
        )
        size = (len(points), height, width)
        buffer = torch.full(size, -1, dtype=torch.int64, device=device)
        fill = torch.empty if buffer.numel() and len(triangles) else torch.zeros
        weights, depth = (fill(shape, dtype=dtype, device=device) for shape in ((*size, 3), size))
        if fill is torch.empty:
            self._draw(points, triangles, buffer, weights, depth)
        shape = (*batch, height, width)
        return Raster(buffer.reshape(shape), weights.reshape(*shape, 3), depth.reshape(shape))

    def _draw(self, points: Tensor, triangles: Tensor, buffer: Tensor, weights: Tensor, depth: Tensor) -> None:
        """Z-buffer into `buffer`, then triangle indices into it, and `weights` and `depth` of every pixel."""
        device, (_, height, width) = buffer.device, buffer.shape
        single = weights.dtype == torch.float32
        resolve = self._kernels.resolve_pixels_single if single else self._kernels.resolve_pixels_double
        with _stream(device):
            corners, faces = _array(points, wp.vec3d), _array(triangles.int().contiguous(), wp.vec3i)
            levels, entries = _array(_depth_levels(points), wp.vec2d), _array(buffer, wp.int64)
            drawing = [corners, faces, levels, height, width, entries]
            _launch(self._kernels.draw_triangles, (len(points), len(triangles)), drawing, device)
            outputs = [
                _array(weights, wp.vec3f if single else wp.vec3d),
                _array(depth, wp.float32 if single else wp.float64),
            ]
            _launch(resolve, tuple(buffer.shape), [corners, faces, entries, *outputs], device)

    def shade(
        self,
        points_image: Float[Tensor, "V 3"],
        triangles: Int[Tensor, "T 3"],
        shades: Float[Tensor, "V"],
        size: tuple[int, int],
        *,
        finer: int,
    ) -> Float[Tensor, "2 height width"]:
        require_indices(triangles, points_image)
        device, (height, width) = points_image.device, size
        points = finer_rows(points_image.detach().double(), finer).contiguous()
        buffer = torch.full((height * finer * width,), -1, dtype=torch.int64, device=device)
        layers = torch.zeros(2, height, width, device=device, dtype=torch.float32)
        if buffer.numel() and len(triangles):
            with _stream(device):
                entries, values = _array(buffer, wp.int64), _array(shades.detach().float().contiguous(), wp.float32)
                corners, faces = _array(points, wp.vec3d), _array(triangles.int().contiguous(), wp.vec3i)
                levels = _array(_depth_levels(points[None]), wp.vec2d)
                drawing = [corners, faces, values, levels, height * finer, width, finer, entries]
                _launch(self._kernels.draw_shades, (len(triangles),), drawing, device)
                outputs = [entries, width, finer, _array(layers, wp.float32)]
                _launch(self._kernels.average_shades, (height, width), outputs, device)
        return layers

    def closest_point(
        self,
        points: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> ClosestPoint:
        require_indices(triangles, vertices)
        centre = _centre(vertices)
        queries = _single(points - centre)
        triangle = torch.full(queries.shape[:2], -1, dtype=torch.int32, device=points.device)
        if triangle.numel() and len(triangles):
            with _stream(points.device), _meshes(vertices - centre, triangles) as ids:
                inputs = [ids, _array(queries, wp.vec3f), _array(triangle, wp.int32)]
                _launch(self._kernels.find_closest, tuple(triangle.shape), inputs, points.device)
        return describe_closest(points, vertices, triangles, triangle.long().reshape(points.shape[:-1]))

    def first_hit(
        self,
        origins: Float[Tensor, "*b n 3"],
        directions: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> RayHit:
        require_indices(triangles, vertices)
        centre = _centre(vertices)
        starts, along = _single(origins - centre), _single(directions)
        distance = torch.full(starts.shape[:2], torch.inf, dtype=torch.float32, device=origins.device)
        triangle = torch.full(starts.shape[:2], -1, dtype=torch.int32, device=origins.device)
        if triangle.numel() and len(triangles):
            with _stream(origins.device), _meshes(vertices - centre, triangles) as ids:
                rays = [_array(starts, wp.vec3f), _array(along, wp.vec3f)]
                outputs = [_array(distance, wp.float32), _array(triangle, wp.int32)]
                _launch(self._kernels.find_hits, tuple(triangle.shape), [ids, *rays, *outputs], origins.device)
        shape = origins.shape[:-1]
        return RayHit(distance.to(origins.dtype).reshape(shape), triangle.long().reshape(shape))

    def laplacian(self, vertices: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"]) -> Laplacian:
        require_indices(triangles, vertices)
        return cotangent_laplacian(vertices, triangles)  # torch's own sums: no search is needed


def _depth_levels(points: Tensor) -> Tensor:
    """Per image the smallest finite depth and 1 / range, for the integer levels of the z-buffer."""
    depth = points[..., 2]
    finite = depth.isfinite()
    low = torch.where(finite, depth, torch.inf).amin(-1)
    extent = torch.where(finite, depth, -torch.inf).amax(-1) - low
    inverse = torch.where(extent > 0, 1 / torch.where(extent > 0, extent, 1.0), 0.0)
    return torch.stack([low, inverse], -1).contiguous()


def _centre(vertices: Tensor) -> Tensor:
    return vertices.detach().mean(-2, keepdim=True)


def _single(points: Tensor) -> Tensor:
    return points.detach().float().reshape(points.shape[:-2].numel(), *points.shape[-2:]).contiguous()


@contextlib.contextmanager
def _meshes(vertices: Tensor, triangles: Tensor) -> Iterator[Any]:
    """The identifiers of one search tree per mesh of the batch; warp builds each tree in a call of its own."""
    flat = _single(vertices)
    faces = _array(triangles.int().contiguous().reshape(-1), wp.int32)
    meshes = [wp.Mesh(points=_array(v, wp.vec3f), indices=faces) for v in flat]
    ids = torch.tensor([mesh.id for mesh in meshes], dtype=torch.int64).to(flat.device)
    yield _array(ids, wp.uint64)
    if flat.is_cuda:  # the trees must outlive the kernel that reads them
        torch.cuda.current_stream(flat.device).synchronize()


def _array(tensor: Tensor, dtype: Any) -> Any:
    return wp.from_torch(tensor, dtype=dtype, requires_grad=False)


def _launch(kernel: Any, size: tuple[int, ...], inputs: list[Any], device: torch.device) -> None:
    wp.launch(kernel, dim=size, inputs=inputs, device=wp.device_from_torch(device))


def _stream(device: torch.device) -> Any:
    """The context in which warp queues its kernels behind torch's, on the same stream."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    stream = wp.stream_from_torch(torch.cuda.current_stream(device))  # type: ignore[no-untyped-call]
    return wp.ScopedStream(stream)
