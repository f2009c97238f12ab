"""Where cascades start without a photograph, starts that are shifted at random, and the gauge of every update."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.checks import require_count
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import FaceParameters

__all__ = ["Perturbation", "mean_face", "retraction"]


def mean_face(model: FaceModel, samples: int) -> FaceParameters:
    """The model's mean parameters, repeated for every sample; they use no photograph."""
    return FaceParameters(
        identity=model.identity_mean.expand(samples, -1).clone(),
        expression=model.expression_mean.expand(samples, -1).clone(),
    )


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Settings of shifted copies of training samples: their number, and the size of the shifts.

    Attributes:
        copies: of every sample, beside itself; 0: none, as in the paper.
        deviations: standard deviation of a weight's shift, in standard deviations of this weight over people.
        seed: of the shifts.

    Raises:
        ValueError: a negative number of copies, or no positive deviations.
    """

    copies: int = 0
    deviations: float | int = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("cascade.perturbed_copies", self.copies, 0)
        if not 0 < self.deviations < float("inf"):
            raise ValueError(f"cascade.perturbation must be a positive number; got {self.deviations}")

    def shifts(self, model: FaceModel, places: Int[Tensor, "n"], total: int) -> Float[Tensor, "copies n parameters"]:
        """The shifts of the weights of every copy of some samples.

        Those of a sample depend on its place alone, not on the fold or the process that asks.

        Args:
            model: whose spreads count.
            places: of the samples in the data set.
            total: samples of the data set.
        """
        generator = torch.Generator().manual_seed(self.seed)
        spread = torch.cat([model.identity_variance, model.expression_variance]).sqrt()
        drawn = torch.randn(total, self.copies, len(spread), generator=generator)[places.cpu()]
        return self.deviations * spread * drawn.movedim(1, 0).to(spread)


def retraction(model: FaceModel) -> Callable[[Tensor], Tensor]:
    """g -> the equivalent g in the model's gauge."""
    return _Retraction(model)


class _Retraction:
    """A function with a name of its own, so that cascades can be pickled."""

    def __init__(self, model: FaceModel) -> None:
        self._model = model

    def __call__(self, flat: Tensor) -> Tensor:
        parameters = FaceParameters.from_flat(flat, self._model.n_identity)
        return FaceParameters(*self._model.fix_gauge(parameters.identity, parameters.expression)).flat
