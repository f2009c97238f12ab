"""Where cascades start without a photograph, and the gauge that every update returns to."""

from collections.abc import Callable

from torch import Tensor

from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import FaceParameters

__all__ = ["mean_face", "retraction"]


def mean_face(model: FaceModel, samples: int) -> FaceParameters:
    """The model's mean parameters for every sample: the answer of somebody who has not seen the picture."""
    return FaceParameters(
        identity=model.identity_mean.expand(samples, -1).clone(),
        expression=model.expression_mean.expand(samples, -1).clone(),
    )


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
