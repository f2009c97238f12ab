"""S*: the weights of a known mesh in the model's topology and frame; no pose is estimated.

minimise  mean_v |S_v(alpha, beta) - s_v|^2  +  lambda_1 |alpha - mu_a|^2_Qa  +  lambda_2 |beta - mu_b|^2_Qb
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_positive, require_shape
from facerecon_torch.fitting.designs import solve_normal
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.gauge import fix_gauge
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import FaceParameters

__all__ = ["DenseFitter", "DenseSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSpec:
    """Settings of the fit to meshes. Penalties in mm^2 weigh against the mean squared distance over the vertices: with
    the default, a weight one standard deviation from its mean costs as much as an RMS distance of 0.01 mm."""

    rounds: int = 20  # expression, then identity; a linear model needs no rounds
    identity_penalty: float = 1e-4  # lambda_1, mm^2
    expression_penalty: float = 1e-4  # lambda_2, mm^2
    chunk: int = 256  # meshes solved together: bounds memory, changes no result

    def __post_init__(self) -> None:
        if min(self.rounds, self.chunk) < 1:
            raise ValueError(f"rounds and chunk must be at least 1; got {self.rounds} and {self.chunk}")
        require_positive(self, "identity_penalty", "expression_penalty")


_DEFAULT = DenseSpec()


class DenseFitter:
    """Fits a model to meshes on its topology; what depends on the model alone is computed once.

    Args:
        model: bilinear or linear.
        spec: penalties and rounds.

    Raises:
        TypeError: a model that is neither bilinear nor linear.

    Example:
        >>> parameters = DenseFitter(model)(vertices)
    """

    @torch.no_grad()
    @in_own_precision
    def __init__(self, model: FaceModel, spec: DenseSpec = _DEFAULT) -> None:
        self._model, self._spec = model, spec
        self._fit: _BilinearFit | _LinearFit
        if isinstance(model, BilinearModel):
            self._fit = _BilinearFit(model, spec)
        elif isinstance(model, LinearModel):
            self._fit = _LinearFit(model, spec)
        else:
            raise TypeError(f"model must be a BilinearModel or a LinearModel; got {type(model).__name__}")

    @torch.no_grad()
    @in_own_precision
    def __call__(self, vertices: Tensor) -> FaceParameters:
        """The weights whose shape is nearest to each mesh, in the model's gauge. Solved in float64.

        Args:
            vertices: [b, V, 3] in mm (model frame).

        Returns:
            Weights in the dtype and on the device of `vertices`.

        Raises:
            ValueError: another number of vertices, or values that are not finite.
        """
        require_shape("vertices", vertices, (None, self._model.n_vertices, 3))
        require_finite("vertices", vertices)
        starts = range(0, max(1, len(vertices)), self._spec.chunk)
        answers = [self._fit(vertices[k : k + self._spec.chunk].double()) for k in starts]
        return FaceParameters.cat(answers).to(vertices.dtype)


class _Priors(NamedTuple):
    """Penalties and means of Eq. 7 in float64."""

    identity_penalty: Float[Tensor, "identities"]
    identity_mean: Float[Tensor, "identities"]
    expression_penalty: Float[Tensor, "expressions"]
    expression_mean: Float[Tensor, "expressions"]


def _priors(model: FaceModel, spec: DenseSpec) -> _Priors:
    return _Priors(
        spec.identity_penalty / model.identity_variance.double(),
        model.identity_mean.double(),
        spec.expression_penalty / model.expression_variance.double(),
        model.expression_mean.double(),
    )


class _BilinearFit:
    """Alternating ridge on products that are computed once: with C the core as [3V, I E], |C (alpha x beta) - s|^2
    needs only C'C and C's, so that the cost of a step does not depend on the number of vertices."""

    def __init__(self, model: BilinearModel, spec: DenseSpec) -> None:
        self._model, self._rounds, self._priors = model, spec.rounds, _priors(model, spec)
        self._core = model.core.double().flatten(2).flatten(0, 1)
        gram = (self._core.mT @ self._core) / model.n_vertices
        gram = gram.reshape(model.n_identity, model.n_expression, model.n_identity, model.n_expression)
        self._for_identity = _packed(gram.permute(1, 3, 0, 2))
        self._for_expression = _packed(gram.permute(0, 2, 1, 3))

    def __call__(self, vertices: Float[Tensor, "b v 3"]) -> FaceParameters:
        model, priors = self._model, self._priors
        cross = (vertices.flatten(1) @ self._core) / model.n_vertices
        cross = cross.reshape(-1, model.n_identity, model.n_expression)
        alpha = priors.identity_mean.expand(len(vertices), -1)
        beta = priors.expression_mean.expand(len(vertices), -1)
        for _ in range(self._rounds):
            right = (cross.mT @ alpha[..., None])[..., 0]
            normal = _normal(alpha, self._for_expression)
            beta = solve_normal(normal, right, priors.expression_penalty, priors.expression_mean)
            alpha, beta = self._fix_gauge(alpha, beta)
            right = (cross @ beta[..., None])[..., 0]
            normal = _normal(beta, self._for_identity)
            alpha = solve_normal(normal, right, priors.identity_penalty, priors.identity_mean)
        return FaceParameters(identity=alpha, expression=beta)

    def _fix_gauge(self, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        if self._model.gauge == "free":
            return alpha, beta
        return fix_gauge(alpha, beta, self._model.gauge_direction.double())


def _packed(gram: Float[Tensor, "n n k k"]) -> Float[Tensor, "pairs k k"]:
    """The blocks of every unordered pair of factors: the sum of both orders of the pair, as a_i a_j = a_j a_i."""
    first, second = torch.triu_indices(len(gram), len(gram), device=gram.device)
    both = gram[first, second] + gram[second, first]
    return torch.where((first == second)[:, None, None], 0.5 * both, both)


def _normal(weights: Float[Tensor, "b n"], packed: Float[Tensor, "pairs k k"]) -> Float[Tensor, "b k k"]:
    """The sum over i and j of w_i w_j G_ij."""
    n = weights.shape[-1]
    first, second = torch.triu_indices(n, n, device=weights.device)
    products = weights[:, first] * weights[:, second]
    return (products @ packed.flatten(1)).reshape(-1, *packed.shape[1:])


class _LinearFit:
    """One ridge problem for both factors, with the same matrix for every mesh."""

    def __init__(self, model: LinearModel, spec: DenseSpec) -> None:
        self._n_identity, self._priors = model.n_identity, _priors(model, spec)
        self._offset = model.mean.double()
        bases = [basis.double().flatten(0, 1) for basis in (model.identity_basis, model.expression_basis)]
        self._basis = torch.cat(bases, dim=1) / model.n_vertices**0.5
        self._root = model.n_vertices**0.5

    def __call__(self, vertices: Float[Tensor, "b v 3"]) -> FaceParameters:
        priors = self._priors
        right = (vertices - self._offset).flatten(1) @ self._basis / self._root
        normal = self._basis.mT @ self._basis
        penalty = torch.cat([priors.identity_penalty, priors.expression_penalty])
        mean = torch.cat([priors.identity_mean, priors.expression_mean])
        flat = solve_normal(normal.expand(len(vertices), -1, -1), right, penalty, mean)
        return FaceParameters.from_flat(flat, self._n_identity)
