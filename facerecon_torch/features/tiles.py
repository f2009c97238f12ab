"""How much is worked on at once."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["split_by_bytes"]

# Votes of one group. On a CPU they should still be in the cache when they are pooled, and every buffer below the size
# from which the allocator asks the system for fresh pages each time: groups of 64 MiB took three times as long per
# crop as groups of 8 MiB, about one crop of 320 x 320. A GPU wants wide kernels instead.
_CPU_BYTES = 9 * 2**20
_GPU_BYTES = 2**29


def split_by_bytes(rows: Float[Tensor, "n *rest"], bytes_per_row: int) -> tuple[Float[Tensor, "m *rest"], ...]:
    """Groups of rows whose intermediate results stay within the device's budget, each of at least one row."""
    budget = _CPU_BYTES if rows.device.type == "cpu" else _GPU_BYTES
    return rows.split(max(1, budget // bytes_per_row))
