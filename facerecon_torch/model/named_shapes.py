"""The shape of one face without expression, and what every named expression adds to it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.named_weights import NEUTRAL
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import FaceParameters

__all__ = ["NamedShapes", "named_shapes", "neutral_vertices"]


@dataclass(frozen=True, kw_only=True)
class NamedShapes:
    """A face as neutral + sum_k w_k displacements_k.

    Attributes:
        names: the named expressions but `neutral`.
        neutral: vertices of the face without expression, mm, model frame.
        displacements: of the vertices by every named expression at weight 1, mm.
    """

    names: tuple[str, ...]
    neutral: Float[Tensor, "vertices 3"]
    displacements: Float[Tensor, "names vertices 3"]


def _normalised(model: FaceModel, parameters: FaceParameters) -> FaceParameters:
    """The parameters of the same shape with the beta that named expressions are compared with."""
    weights = parameters.to(model.device, model.dtype)
    beta = model.normalised_expression(weights.expression)
    if beta is weights.expression:
        return weights
    # beta was divided by c: alpha is multiplied by it (model/gauge.py)
    c = (weights.expression * beta).sum(-1, keepdim=True) / beta.square().sum(-1, keepdim=True)
    return FaceParameters(c * weights.identity, beta)


@in_own_precision
def neutral_vertices(model: FaceModel, parameters: FaceParameters) -> Float[Tensor, "*b vertices 3"]:
    """The vertices of the faces without expression, in mm, model frame.

    Args:
        model: the face model.
        parameters: of the faces, whose identity is kept.

    Example:
        vertices = neutral_vertices(model, faces.parameters)
    """
    identity = _normalised(model, parameters).identity
    return model.vertices(identity, model.named.origin.to(identity))


@in_own_precision
def named_shapes(model: FaceModel, parameters: FaceParameters) -> NamedShapes:
    """The shapes of one face: neutral, and the displacement by every named expression.

    Args:
        model: the face model.
        parameters: of one face, without batch axis; its identity is kept.

    Example:
        shapes = named_shapes(model, faces[0].parameters)
    """
    identity = _normalised(model, parameters).identity
    design, offset = model.expression_design(identity)
    names = tuple(name for name in model.expression_names if name != NEUTRAL)
    moved = (design.flatten(0, 1) @ model.named.directions.to(design).mT).mT
    return NamedShapes(
        names=names,
        neutral=design @ model.named.origin.to(design) + offset,
        displacements=moved.reshape(len(names), *offset.shape),
    )
