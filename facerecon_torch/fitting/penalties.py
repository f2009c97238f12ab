"""Choice of the penalties lambda_1 and lambda_2 of Eq. 7, and of the weight of the contour, on training faces."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.checks import require_shape
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.model.base import FaceModel

__all__ = [
    "EXPRESSION_GRID",
    "IDENTITY_GRID",
    "PenaltyChoice",
    "evaluation_faces",
    "select_contour_weight",
    "select_penalties",
]

IDENTITY_GRID = (4.0, 16.0, 32.0, 64.0, 128.0, 256.0)
EXPRESSION_GRID = (4.0, 16.0, 64.0, 256.0)
CONTOUR_WEIGHTS = (0.1, 0.3, 1.0)
_MOST_FACES = 400  # the error surface is flat: more faces move no choice and cost a fit per grid point
_MOST_ROWS = 500


@dataclass(frozen=True)
class PenaltyChoice:
    """`spec` with the best penalties, and the mean vertex error in mm of every pair of penalties."""

    spec: FitSpec
    error: Float[Tensor, "identity_grid expression_grid"]


@torch.no_grad()
def select_penalties(
    model: FaceModel,
    landmarks: Float[Tensor, "b 66 2"],
    truth: Float[Tensor, "b vertices 3"],
    spec: FitSpec,
    *,
    identity_grid: Sequence[float] = IDENTITY_GRID,
    expression_grid: Sequence[float] = EXPRESSION_GRID,
    scale: Float[Tensor, "b"] | None = None,
) -> PenaltyChoice:
    """The pair of penalties with the least mean vertex error of the landmark fit (model frame, no alignment).

    Evaluated on at most 400 faces and 500 vertices of the whole-face set, evenly spread.

    Args:
        model: bilinear or linear, with topology.
        landmarks: in px.
        truth: in mm, the true mesh of each face in the model's topology.
        spec: everything but the penalties.
        identity_grid: candidates of lambda_1.
        expression_grid: candidates of lambda_2.
        scale: size of the faces in px/mm, where it is known.

    Returns:
        The choice, and the error of every pair.

    Raises:
        ValueError: another number of vertices, an empty grid, or a model without topology.

    Example:
        >>> choice = select_penalties(model, landmarks, truth, FitSpec())
    """
    if not identity_grid or not expression_grid:
        raise ValueError("identity_grid and expression_grid must not be empty")
    tried = [
        replace(spec, identity_penalty=identity_penalty, expression_penalty=expression_penalty)
        for identity_penalty in identity_grid
        for expression_penalty in expression_grid
    ]
    error = _errors(model, landmarks, truth, tried, scale).reshape(len(identity_grid), len(expression_grid))
    best = divmod(int(error.argmin()), len(expression_grid))
    chosen = replace(spec, identity_penalty=identity_grid[best[0]], expression_penalty=expression_grid[best[1]])
    return PenaltyChoice(chosen, error.cpu())


@torch.no_grad()
def select_contour_weight(
    model: FaceModel, landmarks: Float[Tensor, "b 66 2"], truth: Float[Tensor, "b vertices 3"], spec: FitSpec
) -> FitSpec:
    """`spec` with the contour weight of 0.1, 0.3 and 1 that has the least mean vertex error, as in
    `select_penalties`."""
    tried = [replace(spec, contour_weight=weight) for weight in CONTOUR_WEIGHTS]
    return tried[int(_errors(model, landmarks, truth, tried, None).argmin())]


def _errors(
    model: FaceModel,
    landmarks: Float[Tensor, "b 66 2"],
    truth: Float[Tensor, "b vertices 3"],
    tried: Sequence[FitSpec],
    scale: Float[Tensor, "b"] | None,
) -> Float[Tensor, "tried"]:
    """The mean vertex error of each spec's fits."""
    require_shape("truth", truth, (len(landmarks), model.n_vertices, 3))
    if model.topology is None:
        raise ValueError("model must have a topology; restricted models have none")
    faces = evaluation_faces(len(landmarks)).to(truth.device)
    rows = _spread(model.topology.whole_vertices, _MOST_ROWS)
    surface = model.restrict(rows)
    points, expected = landmarks[faces], truth[faces][:, rows].to(model.dtype)
    sizes = None if scale is None else scale[faces]
    errors = []
    for spec in tried:
        fit = LandmarkFitter(model, spec).fit(points, scale=sizes).parameters.to(model.dtype)
        errors.append((surface.vertices(fit.identity, fit.expression) - expected).norm(dim=-1).mean())
    return torch.stack(errors)


def evaluation_faces(faces: int) -> Int[Tensor, "chosen"]:
    """The faces, of so many, that penalties are evaluated on."""
    return _spread(torch.arange(faces), _MOST_FACES)


def _spread(values: Int[Tensor, "n"], most: int) -> Int[Tensor, "m"]:
    """At most `most` of the values, evenly spread."""
    if len(values) <= most:
        return values
    places = torch.linspace(0, len(values) - 1, most, dtype=torch.float64).round().long()
    return values[places.to(values.device)]
