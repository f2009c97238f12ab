"""Compares the Triton kernels with eager maps on the CPU: run as a script, with TRITON_INTERPRET=1 in its environment.

Prints one line a case: its name and the largest difference as a share of the largest histogram.
"""

import sys
from collections.abc import Iterator

import torch

from facerecon_torch.features.hog import HogSpec, hog_maps
from facerecon_torch.features.hog.triton_maps import triton_maps


def crops_of(kind: str, channels: int) -> torch.Tensor:
    """Noise; or five grey levels, whose gradients point along the axes and diagonals and are often 0 or equal."""
    noise = torch.rand(2, channels, 9, 11, generator=torch.Generator().manual_seed(0))
    return noise if kind == "noise" else (4 * noise).round() / 4


def cases() -> Iterator[tuple[str, torch.Tensor, HogSpec, torch.dtype]]:
    for variant in ("uoctti", "dalal"):
        for vote in ("linear", "hard"):
            for kind, channels, stride in (("noise", 3, 4), ("levels", 1, 2)):
                spec = HogSpec(variant=variant, vote=vote, patch_px=8, cell_px=4, stride=stride)
                yield f"{variant}-{vote}-{kind}", crops_of(kind, channels), spec, torch.float32
    yield "grey", crops_of("noise", 3), HogSpec(patch_px=4, cell_px=2, stride=1, colour=False), torch.float32
    yield "half", crops_of("noise", 1), HogSpec(patch_px=4, cell_px=2, stride=2), torch.float16


def main() -> None:
    lines = []
    for name, crops, spec, dtype in cases():
        expected = hog_maps(crops, spec, dtype=dtype).histograms
        got = triton_maps(crops, spec, dtype)
        if got.shape != expected.shape or got.dtype != dtype:
            raise SystemExit(f"{spec}: {got.shape} {got.dtype} against {expected.shape} {expected.dtype}")
        off = (got.float() - expected.float()).abs().max() / expected.float().max()
        lines.append(f"{name} {float(off)}")
    # The eager products carry a NaN farther, into every cell of its rows and columns.
    broken = crops_of("noise", 3)[:1]
    broken[0, 1, 4, 5] = torch.nan
    for vote in ("linear", "hard"):
        spec = HogSpec(vote=vote, patch_px=8, cell_px=4, stride=4)
        expected = hog_maps(broken, spec).histograms.isnan().any(-1)
        got = triton_maps(broken, spec, torch.float32).isnan().any(-1)
        lines.append(f"nan-{vote} {float(not got.any() or (got & ~expected).any())}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
