"""What the device can do at most: copying memory and multiplying matrices, measured in the same run."""

import time
from typing import Any

import torch

__all__ = ["measure_ceilings"]

_CPU_COPY, _CUDA_COPY = 2**26, 2**30  # bytes: beyond every cache
_CPU_SIDE, _CUDA_SIDE = 1536, 8192


def measure_ceilings(device: torch.device, dtype: torch.dtype, *, quick: bool = False) -> dict[str, Any]:
    """The best of several tries, with torch's present number of threads.

    `copy_gb_s` counts bytes read and bytes written; `product_gflop_s` counts 2 n^3 for a product of two n x n matrices
    and is given for float32 (TF32 off), float64, and on CUDA for tf32, float16 and bfloat16.
    """
    on_cuda = device.type == "cuda"
    side = (_CUDA_SIDE if on_cuda else _CPU_SIDE) // (2 if quick else 1)
    names = ["float32", "float64"] + (["float16", "bfloat16"] if on_cuda else [])
    products = {name: _product_rate(device, getattr(torch, name), side) for name in names}
    if on_cuda:
        kept = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        products["tf32"] = _product_rate(device, torch.float32, side)
        torch.backends.cuda.matmul.allow_tf32 = kept
    return {
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "copy_gb_s": _copy_rate(device),
        "product_gflop_s": products,
    }


def _best(work: Any, device: torch.device, tries: int) -> float:
    """Seconds of the fastest of `tries` calls, after one that is not counted."""
    best = float("inf")
    for k in range(tries + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start) if k else best
    return best


def _copy_rate(device: torch.device) -> float:
    numbers = (_CUDA_COPY if device.type == "cuda" else _CPU_COPY) // 4
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * numbers / _best(lambda: target.copy_(source), device, 12) / 1e9


def _product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with torch.inference_mode():
        return 2 * side**3 / _best(lambda: torch.mm(a, b, out=out), device, 5) / 1e9
