"""Compiles the Triton kernels to machine code of GPUs that are not there.

Call: `python triton_ahead_of_time.py shipped|all`. The launches are recorded from `triton_maps` itself, for the feature
files of configs/ ("shipped") or for every choice of a HogSpec ("all"). Prints a line per compilation: architecture,
kernel, constants, bytes of machine code.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from facerecon_torch.features.hog import HogSpec, triton_maps

ARCHITECTURES = (80, 90, 100)
_FEATURES = Path(__file__).parents[2] / "configs" / "features"
_TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", int: "i32", float: "fp32"}
_KERNELS = ("_vote", "_sum_neighbours")

Launch = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, Any], ...], tuple[int, ...]]


def shipped_specs() -> list[HogSpec]:
    specs = []
    for path in sorted(_FEATURES.glob("*.yaml")):
        values = yaml.safe_load(path.read_text())["hog"]
        specs.append(HogSpec(**{name: value for name, value in values.items() if not name.startswith("_")}))
    return specs


def all_specs() -> list[HogSpec]:
    choices = itertools.product(("uoctti", "dalal"), ("linear", "hard"), (16, 32), (1, 2, 4))
    return [HogSpec(variant=v, vote=vote, cell_px=cell, stride=s) for v, vote, cell, s in choices]


class Recorder:
    """Stands in for a kernel of `triton_maps` and notes how it is launched."""

    def __init__(self, kernel: Any, launches: set[Launch]) -> None:
        self.kernel, self._launches = kernel, launches

    def __getitem__(self, grid: object) -> "Recorder":
        return self

    def __call__(self, *arguments: Any, num_warps: int = 4, **constants: Any) -> None:
        named = dict(zip(self.kernel.arg_names, arguments))
        types = {k: _TYPES[v.dtype if isinstance(v, torch.Tensor) else type(v)] for k, v in named.items()}
        # As Triton itself does: memory from torch is aligned, and whole numbers are told to be multiples of 16.
        aligned = [isinstance(v, torch.Tensor) or (isinstance(v, int) and v % 16 == 0) for v in named.values()]
        places = tuple(place for place, true in enumerate(aligned) if true)
        options = tuple(constants.items())
        self._launches.add((self.kernel.__name__, tuple(types.items()), (*options, ("num_warps", num_warps)), places))


def record(specs: list[HogSpec], channels: tuple[int, ...], sizes: tuple[int, ...]) -> set[Launch]:
    """Launches of maps in float32 and float16; sizes that are multiples of 16 make other programs than odd ones."""
    launches: set[Launch] = set()
    kernels = {name: getattr(triton_maps, name) for name in _KERNELS}
    for name, kernel in kernels.items():
        setattr(triton_maps, name, Recorder(kernel, launches))
    for spec, count, size, dtype in itertools.product(specs, channels, sizes, (torch.float32, torch.float16)):
        triton_maps.triton_maps(torch.zeros(1, count, size, size), spec, dtype)
    for name, kernel in kernels.items():
        setattr(triton_maps, name, kernel)
    return launches


def build(launch: Launch, architecture: int) -> str:
    name, types, options, aligned = launch
    kernel, constants = getattr(triton_maps, name), dict(options)
    warps = constants.pop("num_warps")
    signature = {**dict(types), **dict.fromkeys(constants, "constexpr")}
    signature = {argument: signature[argument] for argument in kernel.arg_names}
    attributes = {(place,): [["tt.divisibility", 16]] for place in aligned}
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = compile(source, GPUTarget("cuda", architecture, 32), {"num_warps": warps})
    return f"sm_{architecture} {name} {constants} {len(compiled.asm['cubin'])}"


def main(which: str) -> Iterator[str]:
    if which == "shipped":
        launches = record(shipped_specs(), channels=(3,), sizes=(320,))
    else:
        launches = record(all_specs(), channels=(1, 3), sizes=(320, 321))
    for launch, architecture in itertools.product(sorted(launches), ARCHITECTURES):
        yield build(launch, architecture)


if __name__ == "__main__":
    for line in main(sys.argv[1]):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
