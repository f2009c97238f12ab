"""How dense maps are made: one reference in plain torch, and faster kernels for the same numbers.

`auto` is the default. On CUDA it takes the Triton kernel for float32 crops that need no gradient. Everywhere else it
is eager: on a CPU `compiled` takes 0.6 of the eager time for a map, a millisecond or two less each, but compiling takes
6 to 25 s once a process, which only thousands of crops earn back. So that is left to whoever has them.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog.gradients import as_channels, differences, dominant_gradient, repeat_border
from facerecon_torch.features.hog.orientation import orientation_votes
from facerecon_torch.features.hog.pooling import deal_to_cells, pool_dense
from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["KERNELS", "make_maps", "use_kernel"]

KERNELS = ("auto", "eager", "compiled", "triton")

_Dealt = tuple[Int[Tensor, "b h w"], list[Float[Tensor, "votes b h w"]]]

_chosen = ["auto"]
_log = logging.getLogger(__name__)


def use_kernel(name: str) -> None:
    """Make this process's dense maps with that kernel wherever it applies, and eagerly elsewhere.

    `eager`: the reference. `compiled`: torch.compile of the work per pixel, for crops that need no gradient; where
    compiling fails, the log says so once and maps are made eagerly. `triton`: for float32 CUDA crops that need no
    gradient. `auto`: see above. Raises ValueError for another name, and for `triton` where that package is missing.
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
    # Neither a gradient nor a graph that is being recorded (torch.export) can see into a kernel.
    plain = not (torch.is_grad_enabled() and crops.requires_grad) and not torch.compiler.is_compiling()
    if plain and _chosen[0] in ("auto", "triton") and crops.is_cuda and crops.dtype == torch.float32:
        triton_maps = _triton_maps()
        if triton_maps is not None:
            return triton_maps(crops, spec, dtype)
    deal = _deal_compiled if plain and _chosen[0] == "compiled" else _deal_pixels
    return pool_dense(*deal(repeat_border(as_channels(crops, spec.colour)), spec), spec).to(dtype)


def _deal_pixels(wide: Float[Tensor, "b c high wide"], spec: HogSpec) -> _Dealt:
    """All that happens pixel by pixel: what each gives to the small cells around it."""
    return deal_to_cells(*orientation_votes(*dominant_gradient(*differences(wide)), spec), spec)


def _deal_compiled(wide: Float[Tensor, "b c high wide"], spec: HogSpec) -> _Dealt:
    try:
        return _compiled(spec)(wide)
    except Exception as error:  # a compiler may be missing or fail in many ways; what the input did, eager raises again
        dealt = _deal_pixels(wide, spec)
        _log.warning("dense maps are made without torch.compile, which failed: %s", str(error).partition("\n")[0])
        _chosen[:] = ["eager"]
        return dealt


@functools.lru_cache
def _compiled(spec: HogSpec) -> Callable[[Tensor], _Dealt]:
    compiled: Callable[[Tensor], _Dealt] = torch.compile(functools.partial(_deal_pixels, spec=spec))
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
