"""Multi-target ridge regression in closed form (Eq. 13), primal or dual, in memory or streamed."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.regression.forms import make_form
from facerecon_torch.regression.plan import FormName
from facerecon_torch.regression.streaming import Features
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Ridge", "fit_ridge"]


@dataclass(frozen=True)
class Ridge:
    """An affine map y = x W + b, with the penalty and the closed form that it came from (inf: W = 0)."""

    weight: Float[Tensor, "d t"]
    bias: Float[Tensor, "t"]
    penalty: float
    form: FormName

    def __call__(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b t"]:
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return x.to(dtype) @ self.weight.to(dtype) + self.bias.to(dtype)

    def to(self, *args: Any, **kwargs: Any) -> "Ridge":
        return replace(self, weight=self.weight.to(*args, **kwargs), bias=self.bias.to(*args, **kwargs))


def fit_ridge(
    x: Features,
    y: Tensor,
    penalty: float | int,
    *,
    bias: bool = True,
    form: Literal["auto", "primal", "dual"] = "auto",
    product_dtype: torch.dtype | None = None,
) -> Ridge:
    """argmin |Y - XW - 1b'|^2 + penalty |W|^2, the bias free of penalty (absent, and 0, if not `bias`).

    x is [n, d], or a source of row chunks that can be called again: the primal form (n >= d) reads it once, the dual
    form (n < d) once per band of rows plus once. Sums and solves are float64; chunks are multiplied in float32 unless
    x is float64 or `product_dtype` says so. The result has the dtype of y. Raises ValueError unless penalty > 0 and
    the targets are finite.
    """
    require_penalty(penalty)
    require_targets(x, y)
    problem = make_form(x, y, bias=bias, form=form, product_dtype=product_dtype)
    solution = problem.solve(torch.ones_like(problem.energies), penalty)
    return Ridge(solution.weight.to(y.dtype), solution.bias.to(y.dtype), float(penalty), problem.name)


def require_penalty(penalty: float | int) -> None:
    """Raise ValueError unless `penalty` is positive; this form refuses NaN too."""
    if not penalty > 0:
        raise ValueError(f"penalty must be positive; got {penalty}")


def require_targets(x: Features, y: Tensor, ranks: Ranks = SINGLE) -> None:
    """Raise ValueError unless y is a finite matrix with a row for each row of x; one of several processes may have
    none."""
    require_shape("y", y, (None, None))
    require_finite("y", y)
    if y.ndim != 2 or not (y.shape[0] or ranks.world > 1):
        raise ValueError(f"y must be a matrix with at least one row; got {tuple(y.shape)}")
    if isinstance(x, Tensor) and x.shape[0] != y.shape[0]:
        raise ValueError(f"x and y must have the same number of rows; got {x.shape[0]} and {y.shape[0]}")
