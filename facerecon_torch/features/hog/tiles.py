"""How much is worked on at once."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["numbers_per_pixel", "split_by_bytes"]

# Intermediate results of one group. On a CPU they should still be in the cache when they are read again, and every
# buffer below the size from which the allocator asks the system for fresh pages each time: groups of 64 MiB took three
# times as long per crop as groups of about one crop of 320 x 320. A GPU wants wide kernels instead.
_CPU_BYTES = 12 * 2**20
_GPU_BYTES = 2**30


def numbers_per_pixel(spec: HogSpec) -> int:
    """Numbers that are alive per pixel while it votes: its votes, and about ten gradients and indices."""
    return spec.bins + 10


def split_by_bytes(rows: Shaped[Tensor, "n *rest"], bytes_per_row: int) -> tuple[Shaped[Tensor, "m *rest"], ...]:
    """Groups of rows whose intermediate results stay within the device's budget, each of at least one row.

    All rows at once where a graph is being recorded (torch.export, torch.compile): it has no loop whose length depends
    on the rows.
    """
    if torch.compiler.is_compiling():
        return (rows,)
    budget = _CPU_BYTES if rows.device.type == "cpu" else _GPU_BYTES
    return torch.split(rows, max(1, budget // bytes_per_row))
