"""What the processes of one fit agree on before any of them reads its rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.regression.streaming import Features, first_rows, product_dtype_of, row_chunks
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Layout", "lay_out", "own_chunks", "shifted_chunks"]


@dataclass(frozen=True)
class Layout:
    """Rows of each process in the order of their ranks, the rank that asks, and a provisional mean of the features (any
    constant near their mean; 0 if not to be shifted), in the dtype of products and on the device of the work."""

    counts: tuple[int, ...]
    rank: int
    mean: Float[Tensor, "d"]

    @property
    def n(self) -> int:
        """Rows of all processes."""
        return sum(self.counts)

    @property
    def own(self) -> slice:
        """Where this process's rows stand among those of all."""
        start = sum(self.counts[: self.rank])
        return slice(start, start + self.counts[self.rank])


def lay_out(
    features: Features,
    n: int,
    *,
    shift: bool,
    device: torch.device | None = None,
    product_dtype: torch.dtype | None = None,
    ranks: Ranks = SINGLE,
) -> Layout:
    """The layout of `n` own rows, which may be none; ValueError unless there are rows, all of one width. `device` is
    that of the work (None: that of the features)."""
    first = first_rows(features)
    if device is None:
        device = torch.device("cpu") if first is None else first.device
    doubled = first is not None and product_dtype_of(first.dtype, product_dtype) == torch.float64
    said = torch.tensor([[n, 0 if first is None else first.shape[1], doubled]], device=device)
    counts, widths, doubles = ranks.gather(said).T.tolist()
    if len(set(widths) - {0}) != 1:
        raise ValueError(
            f"features must hold at least one row, and of all processes the same number of columns; got {widths}"
        )
    dtype = torch.float64 if any(doubles) else torch.float32 if product_dtype is None else product_dtype
    if not shift:
        return Layout(tuple(counts), ranks.rank, torch.zeros(max(widths), dtype=dtype, device=device))
    means = torch.zeros(0, max(widths), dtype=torch.float64, device=device)
    if first is not None:
        means = first.to(device).mean(0, keepdim=True, dtype=torch.float64)
    return Layout(tuple(counts), ranks.rank, ranks.gather(means)[0].to(dtype))


def own_chunks(features: Features, layout: Layout, rows: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """`row_chunks` on the device of the work; ValueError unless exactly as many rows come as were announced."""
    total, n = 0, layout.counts[layout.rank]
    for start, chunk in row_chunks(features, rows, layout.mean.device):
        total = start + chunk.shape[0]
        if total > n:
            break
        yield start, chunk
    if total != n:
        raise ValueError(f"features must yield {n} rows, one per target, on every pass; got {total}{'+' * (total > n)}")


def shifted_chunks(features: Features, layout: Layout, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """(range among the own rows, rows less the provisional mean in its dtype)."""
    for start, chunk in own_chunks(features, layout, rows):
        yield slice(start, start + chunk.shape[0]), chunk.to(layout.mean.dtype) - layout.mean
