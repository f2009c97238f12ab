"""Compares the Triton kernels with the maps of the differentiable path (kornia's gradients) on the CPU.

Run as a script, with TRITON_INTERPRET=1 in its environment. Prints a line per case: its name and the largest difference
of the histograms, and of the slopes of descriptors with respect to positions, as a share of the largest value.
"""

import sys
from collections.abc import Iterator

import torch

from facerecon_torch.features.hog import HogMaps, HogSpec, gather_hog, hog_maps
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


def position_slopes(histograms: torch.Tensor, spec: HogSpec) -> torch.Tensor:
    """Slopes of a weighted sum of descriptors with respect to the positions of three points a crop."""
    points = torch.tensor([[4.2, 5.1], [0.7, 2.3], [9.6, 7.4]]).expand(len(histograms), 3, 2).clone().requires_grad_()
    described = gather_hog(HogMaps(histograms, spec), points, spec)
    return torch.autograd.grad((described * torch.linspace(-1, 1, spec.length)).sum(), points)[0]


def off(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected.float()).abs().max() / expected.float().abs().max())


def main() -> None:
    lines = []
    for name, crops, spec, dtype in cases():
        expected = hog_maps(crops.requires_grad_(), spec, dtype=dtype).histograms.detach()
        got = triton_maps(crops.detach(), spec, dtype)
        if got.shape != expected.shape or got.dtype != dtype:
            raise SystemExit(f"{spec}: {got.shape} {got.dtype} against {expected.shape} {expected.dtype}")
        lines.append(f"{name} {off(got, expected)} {off(position_slopes(got, spec), position_slopes(expected, spec))}")
    # The eager products carry a NaN farther, into every cell of its rows and columns.
    broken = crops_of("noise", 3)[:1]
    broken[0, 1, 4, 5] = torch.nan
    for vote in ("linear", "hard"):
        spec = HogSpec(vote=vote, patch_px=8, cell_px=4, stride=4)
        expected = hog_maps(broken, spec).histograms.isnan().any(-1)
        got = triton_maps(broken, spec, torch.float32).isnan().any(-1)
        lines.append(f"nan-{vote} {float(not got.any() or (got & ~expected).any())} 0.0")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
