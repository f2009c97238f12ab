"""The kernels that make dense maps: a reference in plain torch, and faster ones for the same numbers.

`auto` is the default. On CUDA it takes the Triton kernel for float32 crops that need no gradient, elsewhere the eager
one. On a CPU `compiled` makes a map in 0.6 of the eager time, which saves a millisecond or two, but compiling takes 6
to 25 s once per process: only thousands of crops earn that back, so it has to be asked for.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable

import torch
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
from facerecon_torch.features.hog.histograms import orientation_votes, pool_dense, votes_by_cell
from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["KERNELS", "make_maps", "use_kernel"]

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


def make_maps(
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
