"""Errors of a cascade's estimates of beta: offset, gain and covariance, measured on faces that it was not trained on.

With b the estimates and g the truth, both relative to the neutral face and in the fixed gauge,

    b = offset + g gain + e,    e ~ N(0, covariance).

A ridge shrinks its answers, so the gain of most directions is far below 1; that of people's shapes on beta is in the
offset and in e. With few faces, the gain tends to the identity and the covariance to the prior of beta.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["ExpressionError", "fit_expression_error"]


@dataclass(frozen=True, kw_only=True)
class ExpressionError:
    """The error of estimates of beta, in float64.

    Attributes:
        offset: Mean estimate of the neutral face, less the neutral face.
        gain: From the truth to the mean estimate.
        covariance: Of the rest.
        penalty: Median over faces of the largest evidence for a name that their errors alone give (the product of an
            expression with the error, in the metric of the inverse covariance).

    Example:
        >>> error = fit_expression_error(estimate - neutral, truth - neutral, directions, model.expression_variance)
    """

    offset: Float[Tensor, "expressions"]
    gain: Float[Tensor, "expressions expressions"]
    covariance: Float[Tensor, "expressions expressions"]
    penalty: Float[Tensor, ""]

    def whitening(self) -> Float[Tensor, "expressions expressions"]:
        """W with W W' the inverse of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance.to(torch.float64))
        smallest = torch.finfo(torch.float32).eps * values.amax()
        whitening: Tensor = vectors / values.clamp_min(smallest).sqrt()
        return whitening


def fit_expression_error(
    estimate: Float[Tensor, "n expressions"],
    truth: Float[Tensor, "n expressions"],
    directions: Float[Tensor, "names expressions"],
    variance: Float[Tensor, "expressions"],
    ranks: Ranks = SINGLE,
) -> ExpressionError:
    """The error of estimates, all relative to the neutral face.

    Args:
        estimate: of faces whose subjects were left out of the fit.
        truth: of the same faces.
        directions: of the named expressions.
        variance: of the prior of beta, which counts as many faces as beta has entries.
        ranks: the processes that share the faces; all get the same error.
    """
    estimate, truth, prior = estimate.double(), truth.double(), torch.diag(variance.double())
    rows = torch.cat([torch.ones_like(truth[:, :1]), truth, estimate], dim=1)
    moments = ranks.add_(rows.mT @ rows)
    size, n = truth.shape[1], moments[0, 0]
    mean = moments[0, 1:] / n
    centred = moments[1:, 1:] - n * torch.outer(mean, mean)
    inside, across, outside = centred[:size, :size], centred[:size, size:], centred[size:, size:]
    gain = torch.linalg.solve(inside + size * prior, across + size * prior)
    offset = mean[size:] - mean[:size] @ gain
    shared = gain.mT @ across
    residual = outside - shared - shared.mT + gain.mT @ inside @ gain
    covariance = (residual + size * prior) / (n + size)
    error = ExpressionError(offset=offset, gain=gain, covariance=covariance, penalty=n.new_zeros(()))
    root = error.whitening()
    noise = (estimate - offset - truth @ gain) @ root
    seen = directions.double() @ gain @ root
    # Without a name there is nothing to exceed.
    evidence = (noise @ seen.mT).amax(dim=1) if len(seen) else noise.new_zeros(len(noise))
    penalty = ranks.gather(evidence).median().clamp_min(0)
    return ExpressionError(offset=offset, gain=gain, covariance=covariance, penalty=penalty)
