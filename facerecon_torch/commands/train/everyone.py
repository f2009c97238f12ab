"""The samples of one set that stand on several processes, as one set again."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Everyone"]


@dataclass(frozen=True)
class Everyone:
    """Puts the rows of all processes into the order of the data set, which does not depend on how many there are.

    `places` are those of this process's samples in the data set, on the device of the work; `all_places` those of all
    samples, rank after rank.
    """

    ranks: Ranks
    places: Int[Tensor, "own"]
    all_places: Int[Tensor, "all"]

    @classmethod
    def of(cls, places: Int[Tensor, "own"], ranks: Ranks = SINGLE) -> "Everyone":
        return cls(ranks, places, ranks.gather(places))

    def __len__(self) -> int:
        return len(self.all_places)

    @cached_property
    def order(self) -> Int[Tensor, "all"]:
        """Which row of all processes each sample of the set is."""
        return torch.argsort(self.all_places)

    def places_of(self, numbers: Int[Tensor, "some"]) -> Int[Tensor, "some"]:
        """The places of the samples with these numbers, counted in the order of the set."""
        return self.all_places[self.order][numbers.to(self.order.device)]

    def gather(self, rows: Shaped[Tensor, "own *rest"]) -> Shaped[Tensor, "all *rest"]:
        """The rows of all samples, on the device that they came on."""
        there: Tensor = self.ranks.gather(rows.to(self.places.device))[self.order]
        return there.to(rows.device)

    def words(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """The words of all samples."""
        text = "\n".join([*own, ""]) if own else ""
        letters = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0).byte()
        found = bytes(self.ranks.gather(letters.to(self.places.device)).tolist()).decode().split("\n")
        return tuple(found[i] for i in self.order.tolist())
