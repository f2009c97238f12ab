"""The processes that share one training run: sum, gather and share among them, and the order of gathered rows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor

__all__ = ["SINGLE", "GatherOrder", "Ranks", "joined_ranks"]

_T = TypeVar("_T")
_WAIT = timedelta(minutes=60)  # one process may read photographs for long while the others wait


@dataclass(frozen=True)
class Ranks:
    """`rank` of `world` processes, each with samples of its own. Alone, nothing is sent and every answer is the input.

    What all of them compute from the same numbers is the same on all; what could differ by rounding is decided by
    rank 0 and shared.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only process that writes files and logs."""
        return self.rank == 0

    def add_(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; the same bits on all of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, rows: Shaped[Tensor, "own *rest"]) -> Shaped[Tensor, "all *rest"]:
        """The rows of all processes, in the order of their ranks; they may hold different numbers of rows."""
        if self.world == 1:
            return rows
        counts = self._counts(len(rows), rows.device)
        own = rows.contiguous()
        # Backends want equal shapes: padded to the longest, cut afterwards.
        padded = own.new_zeros((max(counts), *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def _counts(self, own: int, device: torch.device) -> list[int]:
        counts = torch.zeros(self.world, dtype=torch.int64, device=device)
        counts[self.rank] = own
        dist.all_reduce(counts)
        found: list[int] = counts.tolist()
        return found

    def share(self, value: _T) -> _T:
        """Rank 0's value on all processes: a tensor of one shape and dtype everywhere, or anything that pickles."""
        if self.world == 1:
            return value
        if isinstance(value, Tensor):
            sent = value.contiguous().clone()
            dist.broadcast(sent, src=0)
            return sent  # type: ignore[return-value]
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


SINGLE = Ranks()


@dataclass(frozen=True)
class GatherOrder:
    """The order of a data set for rows that are gathered from all processes; it does not depend on their number.

    `places` are the positions of this process's samples in the data set, on the device of the work; `all_places` those
    of all samples, rank after rank.
    """

    ranks: Ranks
    places: Int[Tensor, "own"]
    all_places: Int[Tensor, "all"]

    @classmethod
    def of(cls, places: Int[Tensor, "own"], ranks: Ranks = SINGLE) -> "GatherOrder":
        """The order for this process's `places`; every process calls it."""
        return cls(ranks, places, ranks.gather(places))

    def __len__(self) -> int:
        return len(self.all_places)

    @cached_property
    def rows(self) -> Int[Tensor, "all"]:
        """The gathered row of each sample, in the order of the data set."""
        return torch.argsort(self.all_places)

    @property
    def sorted_places(self) -> Int[Tensor, "all"]:
        """The positions of all samples in the data set, ascending."""
        return self.all_places[self.rows]

    def gather(self, rows: Shaped[Tensor, "own *rest"]) -> Shaped[Tensor, "all *rest"]:
        """The rows of all samples in the order of the data set, on the device of `rows`."""
        gathered: Tensor = self.ranks.gather(rows.to(self.places.device))[self.rows]
        return gathered.to(rows.device)


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The processes that `torchrun` started, joined over NCCL (CUDA) or Gloo (CPU); `SINGLE` without torchrun.
    `device` is this process's own."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield SINGLE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_WAIT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
