"""The gauge of a bilinear model: (c alpha, beta / c) is the same shape for every c other than 0.

Left free, the size of a face can hide in beta. The fixed gauge demands that beta's component along mu_b, the
mean row of U_exp, is 1:  c = beta' mu_b / |mu_b|^2,  beta <- beta / c,  alpha <- c alpha.

Derivation of the statistics of Eq. 7 in that gauge. Row k of U_exp has the component c_k = u_k' mu_b /
|mu_b|^2, so the training face of person n and expression k, with weights (a_n, u_k), has (c_k a_n, u_k / c_k)
in the gauge. Over all pairs (n, k) of people and expressions:

    mean beta  = mean_k(u_k / c_k)          (its component along mu_b is 1, the rest may differ from mu_b)
    var beta   = var_k(u_k / c_k)           (zero along mu_b)
    mean alpha = mean_k(c_k) mean_n(a_n) = mean_n(a_n), for mean_k(c_k) = mu_b' mu_b / |mu_b|^2 = 1
    var alpha  = mean_k(c_k^2) mean_n(a_n^2) - (mean alpha)^2

Q = 1 / var is diagonal, so a variance that the gauge makes (almost) zero is raised to a small floor.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SMALLEST_COMPONENT", "Gauge", "RowStatistics", "fix_gauge", "gauge_component", "row_statistics"]

Gauge = Literal["fixed", "free"]

SMALLEST_COMPONENT = 0.05  # of beta along mu_b; faces lie near 1, and division by less would make beta huge
_SMALLEST_MEAN = 1e-6  # |mu_b|^2 of the mean squared row; below it the factors are centred and fix no gauge
_VARIANCE_FLOOR = 1e-6  # of the mean variance: keeps 1 / variance finite and the solves of Eq. 7 well conditioned


class RowStatistics(NamedTuple):
    """mu and 1/Q of Eq. 7 for alpha and beta, and the direction mu_b of the gauge."""

    identity_mean: Float[Tensor, "identities"]
    identity_variance: Float[Tensor, "identities"]
    expression_mean: Float[Tensor, "expressions"]
    expression_variance: Float[Tensor, "expressions"]
    direction: Float[Tensor, "expressions"]


def gauge_component(
    expression: Float[Tensor, "*b expressions"], direction: Float[Tensor, "expressions"]
) -> Float[Tensor, "*b"]:
    """c = beta' mu_b / |mu_b|^2, or 1 if |c| is below SMALLEST_COMPONENT or not finite, or if mu_b is zero.

    Such a beta holds no usable size. A negative c changes both signs and keeps the shape.
    """
    component = (expression @ direction) / direction.square().sum().clamp_min(torch.finfo(direction.dtype).tiny)
    usable = (component.abs() >= SMALLEST_COMPONENT) & torch.isfinite(component)
    return torch.where(usable, component, torch.ones_like(component))


def fix_gauge(
    identity: Float[Tensor, "*#b identities"],
    expression: Float[Tensor, "*#b expressions"],
    direction: Float[Tensor, "expressions"],
) -> tuple[Float[Tensor, "*#b identities"], Float[Tensor, "*#b expressions"]]:
    """(c alpha, beta / c): the same shape, with a component of 1 along mu_b (exceptions: `gauge_component`).

    Differentiable; finite input never gives NaN.
    """
    component = gauge_component(expression, direction)[..., None]
    return component * identity, expression / component


def row_statistics(
    identity_rows: Float[Tensor, "n_ids identities"],
    expression_rows: Float[Tensor, "n_exps expressions"],
    gauge: Gauge,
) -> RowStatistics:
    """Means and population variances of the rows ("free"), or of the pairs in the fixed gauge, in float64.

    The direction is zero if the rows have (almost) no mean. Raises ValueError if the gauge is fixed and the rows of
    U_exp have (almost) no mean: centred factors have no gauge.
    """
    people, faces = identity_rows.to(torch.float64), expression_rows.to(torch.float64)
    direction = faces.mean(dim=0)
    if not direction.square().sum() > _SMALLEST_MEAN * faces.square().sum(dim=-1).mean():
        direction = torch.zeros_like(direction)
    component = torch.ones(len(faces), dtype=torch.float64, device=faces.device)
    if gauge == "fixed":
        if not direction.any():
            raise ValueError('the rows of U_exp must have a mean for gauge="fixed"; theirs vanishes, use gauge="free"')
        component = gauge_component(faces, direction)
    faces = faces / component[:, None]
    identity_mean = component.mean() * people.mean(dim=0)
    identity_variance = component.square().mean() * people.square().mean(dim=0) - identity_mean.square()
    return RowStatistics(
        identity_mean,
        _floored(identity_variance, identity_mean),
        faces.mean(dim=0),
        _floored(faces.var(dim=0, correction=0), faces.mean(dim=0)),
        direction,
    )


def _floored(variance: Float[Tensor, "n"], mean: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    # A single row has no variance; the mean then gives a positive scale.
    floor = _VARIANCE_FLOOR * (variance.mean() + _VARIANCE_FLOOR * mean.square().mean())
    return variance.clamp_min(float(floor))
