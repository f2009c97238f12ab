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

    def fix(flat: Tensor) -> Tensor:
        parameters = FaceParameters.from_flat(flat, model.n_identity)
        return FaceParameters(*model.fix_gauge(parameters.identity, parameters.expression)).flat

    return fix
