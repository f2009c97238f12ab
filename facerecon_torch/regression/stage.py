"""One stage of a cascade: feature blocks brought to one scale, then a ridge whose penalty is chosen out of group."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.regression.forms import make_form
from facerecon_torch.regression.gram import Moments, SampleGram
from facerecon_torch.regression.ridge import Ridge, require_targets
from facerecon_torch.regression.search import ErrorFunction, PathPoint, block_scales, penalty_of, search
from facerecon_torch.regression.stage_spec import DEFAULT_RHOS, StageSpec
from facerecon_torch.regression.streaming import Features, row_chunks
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["DEFAULT_RHOS", "PathPoint", "Stage", "StageFit", "StageSpec", "fit_stage", "predict"]


@dataclass(frozen=True)
class Stage:
    """y = sum_b s_b x_b W_b + b: the ridge of features whose block b is multiplied by the scale s_b."""

    ridge: Ridge
    block_sizes: tuple[int, ...]
    block_scales: Float[Tensor, "blocks"]

    def __call__(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b t"]:
        dtype = torch.promote_types(x.dtype, self.ridge.weight.dtype)
        weights = torch.split(self.ridge.weight.to(dtype), list(self.block_sizes))
        parts = torch.split(x, list(self.block_sizes), dim=-1)
        total = self.ridge.bias.to(dtype)
        for part, weight, scale in zip(parts, weights, self.block_scales.to(dtype), strict=True):
            total = total + scale * (part.to(dtype) @ weight)  # scaling the product leaves x uncopied
        return total

    def to(self, *args: Any, **kwargs: Any) -> "Stage":
        return replace(self, ridge=self.ridge.to(*args, **kwargs), block_scales=self.block_scales.to(*args, **kwargs))


def predict(stage: Stage, features: Features) -> Tensor:
    """stage(features), chunk by chunk where the features are a source."""
    bias = stage.ridge.bias
    if isinstance(features, Tensor) and features.device == bias.device:
        return stage(features)
    parts = [stage(chunk) for _, chunk in row_chunks(features, device=bias.device)]
    return torch.cat(parts) if parts else bias.new_zeros(0, len(bias))


@dataclass(frozen=True)
class StageFit:
    """A fitted stage with its training predictions, in the dtype of the targets.

    `out_of_group` is what the stage would say of each group had it been fitted without it; it and `error` are None
    where no groups were given. `rho` is None for an infinite penalty. `path` lists all candidates.
    """

    stage: Stage
    in_sample: Float[Tensor, "n t"]
    out_of_group: Float[Tensor, "n t"] | None
    rho: float | None
    block_weights: tuple[float, ...]
    error: float | None
    path: tuple[PathPoint, ...]


def fit_stage(
    x: Features,
    y: Tensor,
    groups: Tensor | None,
    error: ErrorFunction,
    spec: StageSpec,
    *,
    first: SampleGram | Moments | None = None,
    start_rho: float | None = None,
    ranks: Ranks = SINGLE,
) -> StageFit:
    """Fit y [n, t] from features x [n, d] with the rho and block weights of least out-of-group error.

    `error` maps predictions of y to a scalar and is called once per candidate with exact leave-one-group-out
    predictions (penalty and scales held fixed); ties go to the stronger penalty. `groups` [n] names the group of each
    sample; without it there must be a single candidate. `first`, the Gram matrix (dual form) or the moments (primal)
    of the same samples, saves the products. `start_rho`: where a walk along the rhos begins.

    Of several processes each gives its own rows, which may be none: whole groups, their names unique among all.
    `error` is then a mean over own samples, and they are averaged by their number. All get the same stage.
    """
    require_targets(x, y, ranks)
    problem = make_form(
        x,
        y,
        bias=spec.bias,
        form=spec.form,
        factorisation=spec.factorisation,
        block_sizes=spec.block_sizes,
        product_dtype=spec.product_dtype,
        penalties=len(spec.rhos),  # type: ignore[arg-type]
        memory=spec.memory,
        first=first,
        ranks=ranks,
    )
    best, out_of_group, path = search(problem, y, groups, error, spec, start_rho=start_rho, ranks=ranks)
    scales = block_scales(problem, best.block_weights, spec)
    penalty = penalty_of(problem, scales, best.rho)
    solution = problem.solve(scales, penalty)
    ridge = Ridge(solution.weight.to(y.dtype), solution.bias.to(y.dtype), penalty, problem.name)
    stage = Stage(ridge, problem.block_sizes, scales.to(y.dtype))
    fitted = predict(stage, x) if solution.fitted is None else solution.fitted
    found = None if out_of_group is None else best.error
    return StageFit(stage, fitted.to(y.dtype), out_of_group, best.rho, best.block_weights, found, path)
