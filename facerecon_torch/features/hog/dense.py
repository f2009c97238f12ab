"""HOG from maps: orientation and cell histograms once per crop, then a gather for every landmark.

The maps hold raw cell histograms at nodes `stride` px apart. A descriptor interpolates them bilinearly at its cell
centres and normalises afterwards, so that one map serves every stage of a cascade. Stride 1 is the descriptor of
`patch_hog(halo=True)` at integer positions. Between them, stride 1 moves the cells continuously over the crop's own
pixels, while a patch is resampled first.

Kernels make the maps: a reference in plain torch, and faster ones for the same numbers. `auto` is the default. On CUDA
it takes the Triton kernel for float32 crops that need no gradient, elsewhere the eager one. On a CPU `compiled` makes a
map in 0.6 of the eager time, which saves a millisecond or two, but compiling takes 6 to 25 s once per process: only
thousands of crops earn that back, so it has to be asked for.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog.gradients import (
    as_channels,
    differences,
    dominant_gradient,
    kornia_gradients,
    needs_slope,
    repeat_border,
)
from facerecon_torch.features.hog.histograms import (
    first_node,
    normalise,
    numbers_per_pixel,
    orientation_votes,
    pool_dense,
    split_by_bytes,
    votes_by_cell,
)
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import TensorRecord

__all__ = ["KERNELS", "HogMaps", "gather_hog", "hog_maps", "use_kernel"]

KERNELS = ("auto", "eager", "compiled", "triton")

_CellVotes = tuple[Int[Tensor, "b h w"], list[Float[Tensor, "votes b h w"]]]

_chosen = ["auto"]
_log = logging.getLogger(__name__)


def use_kernel(name: str) -> None:
    """Choose the kernel of this process's dense maps; where it does not apply, maps are made eagerly.

    Crops that need a gradient are always differentiated through kornia's gradients.

    Args:
        name: `eager`, the reference; `compiled`, torch.compile of the work per pixel (if compiling fails, the log says
            so once and maps are made eagerly); `triton`, for float32 crops on CUDA; or `auto`, `triton` where it
            applies.

    Raises:
        ValueError: another name, or `triton` where that package is missing.

    Example:
        >>> use_kernel("compiled")
    """
    if name not in KERNELS:
        raise ValueError(f"kernel of dense maps must be one of {', '.join(KERNELS)}; got {name!r}")
    if name == "triton" and not _has_triton():
        raise ValueError("kernel triton needs the package triton; use auto, eager or compiled")
    _chosen[:] = [name]


def _make_maps(
    crops: Float[Tensor, "b c h w"], spec: HogSpec, dtype: torch.dtype
) -> Float[Tensor, "b rows columns bins"]:
    """Maps of one group of crops by the chosen kernel. Raises ValueError unless crops have 1 or 3 channels."""
    if needs_slope(crops):
        channels = as_channels(crops, spec.colour)
        return pool_dense(*_votes(*kornia_gradients(channels), spec), spec).to(dtype)
    recorded = torch.compiler.is_compiling()  # a graph that is being recorded (torch.export) cannot hold a kernel
    if not recorded and _chosen[0] in ("auto", "triton") and crops.is_cuda and crops.dtype == torch.float32:
        triton_maps = _triton_maps()
        if triton_maps is not None:
            return triton_maps(crops, spec, dtype)
    fused = _compiled_votes if not recorded and _chosen[0] == "compiled" else _fused_votes
    return pool_dense(*fused(repeat_border(as_channels(crops, spec.colour)), spec), spec).to(dtype)


def _votes(across: Float[Tensor, "b c h w"], down: Float[Tensor, "b c h w"], spec: HogSpec) -> _CellVotes:
    return votes_by_cell(*orientation_votes(*dominant_gradient(across, down), spec), spec)


def _fused_votes(wide: Float[Tensor, "b c high wide"], spec: HogSpec) -> _CellVotes:
    """The work per pixel: from images with a repeated border to votes for the small cells around each pixel."""
    return _votes(*differences(wide), spec)


def _compiled_votes(wide: Float[Tensor, "b c high wide"], spec: HogSpec) -> _CellVotes:
    try:
        return _compiled(spec)(wide)
    except Exception as error:  # a compiler may be missing or fail in many ways; bad input fails eagerly as well
        votes = _fused_votes(wide, spec)
        _log.warning("dense maps are made without torch.compile, which failed: %s", str(error).partition("\n")[0])
        _chosen[:] = ["eager"]
        return votes


@functools.lru_cache
def _compiled(spec: HogSpec) -> Callable[[Tensor], _CellVotes]:
    compiled: Callable[[Tensor], _CellVotes] = torch.compile(functools.partial(_fused_votes, spec=spec))
    return compiled


@functools.lru_cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.lru_cache
def _triton_maps() -> Callable[[Tensor, HogSpec, torch.dtype], Tensor] | None:
    """The Triton kernel, loaded on first use; None where triton is not installed."""
    if not _has_triton():
        return None
    kernel: Callable[[Tensor, HogSpec, torch.dtype], Tensor] = importlib.import_module(
        "facerecon_torch.features.hog.triton_maps"
    ).triton_maps
    return kernel


@dataclass(frozen=True)
class HogMaps(TensorRecord):
    """Cell histograms of a batch of crops: node (i, j) is the cell centred at x, y = first_node + stride (j, i) px.

    The outermost nodes are zero: a landmark beyond them has an all-zero descriptor.

    Example:
        >>> maps = hog_maps(torch.rand(8, 3, 320, 320), HogSpec())
        >>> maps[:2].to(torch.float16).histograms.shape
        torch.Size([2, 90, 90, 18])
    """

    histograms: Float[Tensor, "*b rows columns bins"]
    spec: HogSpec


@in_own_precision
def hog_maps(crops: Float[Tensor, "*b c h w"], spec: HogSpec, *, dtype: torch.dtype | None = None) -> HogMaps:
    """Maps of crops. Differentiable with respect to the crops.

    Pixels outside a crop cast no votes; gradients at its border repeat the border. Memory beyond the answer is bounded:
    crops are taken in groups whose votes stay in a CPU's cache, or in 1 GiB on a GPU. `use_kernel` chooses the kernel.

    Args:
        crops: images in [0, 1] with 1 or 3 channels.
        spec: geometry and variant.
        dtype: of the histograms (None: that of the crops). float16 halves them and changes a descriptor by about 1e-4.

    Returns:
        One map per crop.

    Raises:
        ValueError: unless crops have 1 or 3 channels.

    Example:
        >>> maps = hog_maps(torch.rand(2, 3, 320, 320), HogSpec(), dtype=torch.float16)
    """
    flat = crops.reshape(-1, *crops.shape[-3:])
    if not torch.compiler.is_compiling() and not len(flat):
        empty = hog_maps(flat.new_zeros(1, *flat.shape[1:]), spec, dtype=dtype).histograms[0]
        return HogMaps(empty.expand(*crops.shape[:-3], *empty.shape), spec)
    bytes_per_crop = numbers_per_pixel(spec) * flat.shape[-2:].numel() * flat.element_size()
    parts = [_make_maps(part, spec, dtype or crops.dtype) for part in split_by_bytes(flat, bytes_per_crop)]
    maps = parts[0] if len(parts) == 1 else torch.cat(parts)
    return HogMaps(maps.reshape(*crops.shape[:-3], *maps.shape[1:]), spec)


@in_own_precision
def gather_hog(maps: HogMaps, points: Float[Tensor, "*b n 2"], spec: HogSpec) -> Float[Tensor, "*b n length"]:
    """Descriptors around points, interpolated from maps.

    Differentiable with respect to maps and points (in the points piecewise: the map is linear between its nodes).

    Args:
        maps: of the crops, in any precision.
        points: in crop px.
        spec: that of the maps.

    Returns:
        A descriptor per point in the dtype of the points; NaN for a NaN point.

    Raises:
        ValueError: the maps were made for another spec.

    Example:
        >>> maps = hog_maps(torch.rand(2, 3, 320, 320), HogSpec())
        >>> gather_hog(maps, torch.full((2, 66, 2), 160.0), HogSpec()).shape
        torch.Size([2, 66, 496])
    """
    if maps.spec != spec:
        raise ValueError(f"maps were made for {maps.spec}; got {spec}")
    cells = torch.arange(-spec.halo, spec.cells + spec.halo, device=points.device, dtype=points.dtype)
    offset = (cells + 0.5) * spec.cell_px - 0.5 - spec.patch_px // 2
    nodes = (points[..., None] + offset - first_node(spec)) / spec.stride
    histograms = _interpolate(maps.histograms, nodes[..., 0, :], nodes[..., 1, :])
    return normalise(histograms, spec, spec.halo)


def _interpolate(
    histograms: Float[Tensor, "*b rows columns bins"],
    x: Float[Tensor, "*b n cells"],
    y: Float[Tensor, "*b n cells"],
) -> Float[Tensor, "*b n cells cells bins"]:
    """Histograms at every pair (y, x) of fractional node indices: the four nodes around it, weighted in one pass."""
    rows, columns, bins = histograms.shape[-3:]
    low_x, share_x = _split(x, columns)
    low_y, share_y = _split(y, rows)
    batch = x.shape[:-2]
    start = torch.arange(batch.numel(), device=x.device).reshape(*batch, 1, 1, 1) * (rows * columns)
    corner = start + low_y[..., :, None] * columns + low_x[..., None, :]
    pair = torch.arange(2, device=x.device)
    index = corner[..., None] + (pair[:, None] * columns + pair).flatten()
    across = torch.stack([1 - share_x, share_x], dim=-1)
    down = torch.stack([1 - share_y, share_y], dim=-1)
    weights = down[..., :, None, :, None] * across[..., None, :, None, :]
    # Half-precision maps are converted as a whole: taking rows first and converting them takes several times as long
    # on a CPU, and weights in half precision would add a larger error than the maps.
    table = histograms.reshape(-1, bins).to(x.dtype)
    blended = F.embedding_bag(index.reshape(-1, 4), table, per_sample_weights=weights.reshape(-1, 4), mode="sum")
    return blended.reshape(*corner.shape, bins)


def _split(nodes: Float[Tensor, "*b cells"], count: int) -> tuple[Tensor, Float[Tensor, "*b cells"]]:
    """The node index below each coordinate and the weight of the next node; coordinates are clamped to the map."""
    inside = nodes.clamp(0, count - 1)
    low = torch.nan_to_num(inside.detach()).floor().clamp(max=count - 2)
    return low.long(), inside - low
