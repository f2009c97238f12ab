"""Training samples with copies that start elsewhere, so that a cascade sees more starts than there are photographs."""

import torch

from facerecon_torch.cascade.start import Perturbation
from facerecon_torch.commands.train.first_stage import FirstStage, SplitState
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.regression.moments import Features, Moments, SampleGram

__all__ = ["PerturbedState"]


class PerturbedState(SplitState):
    """Samples, then their copies, whose starts are shifted at random and put back into the gauge.

    Cameras and features of the copies are those of the shifted weights; nothing of the first stage can be shared.

    Args:
        samples: of one split.
        first: the first stage of their whole set.
        perturbation: of the starts, with at least one copy.
    """

    def __init__(self, samples: Samples, first: FirstStage, perturbation: Perturbation) -> None:
        shifts = perturbation.shifts(first.model, samples.places, len(samples.meshes))
        self._shifts = torch.cat([torch.zeros_like(shifts[:1]), shifts]).flatten(0, 1)
        super().__init__(samples[torch.arange(len(samples)).repeat(1 + perturbation.copies)], first)

    def begin(self, blocks: tuple[str, ...]) -> None:
        """Start a cascade on some feature blocks, from the shifted starts."""
        super().begin(blocks)
        self.x = self.retract(self.x + self._shifts)

    def _first_features(self) -> Features | None:
        return None

    def gram(self) -> SampleGram | None:
        """None: the starts are not those of the first stage."""
        return None

    def moments(self) -> Moments | None:
        """None: the starts are not those of the first stage."""
        return None
