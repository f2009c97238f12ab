"""One stage of a cascade: feature blocks brought to one scale, then a ridge whose penalty is chosen out of group."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.regression.forms import RidgeForm, make_form
from facerecon_torch.regression.gram import SampleGram
from facerecon_torch.regression.ridge import Ridge, require_targets
from facerecon_torch.regression.streaming import Features, row_chunks

__all__ = ["DEFAULT_RHOS", "PathPoint", "Stage", "StageFit", "StageSpec", "fit_stage", "predict"]

ErrorFunction: TypeAlias = Callable[[Tensor], Tensor | float]

# rho = 1 is the mean eigenvalue over all D directions, of which a wide problem fills only n: the useful range moves
# with D / n, so the path covers tall and wide problems; one factorisation serves it all.
DEFAULT_RHOS = tuple(10.0 ** (step / 2) for step in range(-6, 11))


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """How a stage is fitted; every (rho, block weights) pair is tried and the least out-of-group error wins.

    rhos: lambda = rho tr(G) / D with G the Gram matrix of the scaled features; inf is the mean alone, or, without a
    bias, the exact zero update. One number fixes it.
    block_sizes: columns of each feature block in order (None: one block).
    block_weights_grid: relative weights of the blocks (None: all 1).
    scale_blocks: divide each block by its RMS norm over the training samples (about the mean if there is a bias).
    """

    rhos: Sequence[float | int] | float | int = DEFAULT_RHOS
    block_sizes: Sequence[int] | None = None
    block_weights_grid: Sequence[Sequence[float | int]] | None = None
    bias: bool = True
    scale_blocks: bool = True
    form: Literal["auto", "primal", "dual"] = "auto"
    product_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        rhos = (self.rhos,) if isinstance(self.rhos, (int, float)) else tuple(self.rhos)
        if not rhos or not all(rho > 0 for rho in rhos):
            raise ValueError(f"rhos must be positive numbers, at least one; got {rhos}")
        object.__setattr__(self, "rhos", tuple(float(rho) for rho in rhos))
        if self.block_weights_grid is None:
            return
        grid = tuple(tuple(float(w) for w in weights) for weights in self.block_weights_grid)
        if not grid or any(not 0 <= w < math.inf for weights in grid for w in weights):
            raise ValueError(f"block_weights_grid must hold finite weights of at least 0; got {grid}")
        object.__setattr__(self, "block_weights_grid", grid)

    def candidates(self, blocks: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """(block weights, rhos) to try, the strongest penalty first."""
        grid = self.block_weights_grid or ((1.0,) * blocks,)
        if any(len(weights) != blocks for weights in grid):
            raise ValueError(f"every entry of block_weights_grid must have {blocks} weights; got {grid}")
        rhos = self.rhos if isinstance(self.rhos, tuple) else (float(self.rhos),)  # type: ignore[arg-type]
        return [(tuple(weights), tuple(sorted(rhos, reverse=True))) for weights in grid]


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
    if isinstance(features, Tensor):
        return stage(features)
    return torch.cat([stage(chunk) for _, chunk in row_chunks(features)])


@dataclass(frozen=True)
class PathPoint:
    """One candidate that was tried; rho is None for an infinite penalty, error that of the out-of-group predictions."""

    rho: float | None
    block_weights: tuple[float, ...]
    error: float


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
    gram: SampleGram | None = None,
) -> StageFit:
    """Fit y [n, t] from features x [n, d] with the rho and block weights of least out-of-group error.

    `error` maps predictions of y to a scalar and is called once per candidate with exact leave-one-group-out
    predictions (penalty and scales held fixed); ties go to the stronger penalty. `groups` [n] names the group of each
    sample; without it there must be a single candidate. `gram`, of the same samples, saves the dual form its products.
    """
    require_targets(x, y)
    problem = make_form(
        x,
        y,
        bias=spec.bias,
        form=spec.form,
        block_sizes=spec.block_sizes,
        product_dtype=spec.product_dtype,
        gram=gram,
    )
    best, out_of_group, path = _search(problem, y, groups, error, spec)
    scales = _block_scales(problem, len(y), best.block_weights, spec)
    penalty = _penalty(problem, scales, best.rho)
    solution = problem.solve(scales, penalty)
    ridge = Ridge(solution.weight.to(y.dtype), solution.bias.to(y.dtype), penalty, problem.name)
    stage = Stage(ridge, problem.block_sizes, scales.to(y.dtype))
    fitted = predict(stage, x) if solution.fitted is None else solution.fitted
    found = None if out_of_group is None else best.error
    return StageFit(stage, fitted.to(y.dtype), out_of_group, best.rho, best.block_weights, found, path)


def _search(
    problem: RidgeForm, y: Float[Tensor, "n t"], groups: Tensor | None, error: ErrorFunction, spec: StageSpec
) -> tuple[PathPoint, Float[Tensor, "n t"] | None, tuple[PathPoint, ...]]:
    candidates = spec.candidates(len(problem.block_sizes))
    if groups is None:
        (weights, rhos), *others = candidates
        if others or len(rhos) > 1:
            raise ValueError("choosing rho or block weights needs groups; got groups=None and several candidates")
        return PathPoint(_finite_or_none(rhos[0]), weights, math.nan), None, ()
    if groups.shape != y.shape[:1] or groups.is_floating_point():
        raise ValueError(f"groups must be {len(y)} integers; got {groups.dtype} {tuple(groups.shape)}")
    best, kept = PathPoint(None, (), math.inf), None
    path: list[PathPoint] = []
    for weights, rhos in candidates:
        scales = _block_scales(problem, len(y), weights, spec)
        penalties = [_penalty(problem, scales, rho) for rho in rhos]
        tables = problem.leave_group_out(scales, penalties, groups.to(y.device))
        for rho, table in zip(rhos, tables):
            predictions = torch.zeros_like(table) if math.isinf(rho) and not spec.bias else table
            path.append(PathPoint(_finite_or_none(rho), weights, float(error(predictions))))
            if math.isnan(path[-1].error):
                raise ValueError(f"error must return a number; got NaN at rho={rho}, block weights {weights}")
            if kept is None or path[-1].error < best.error:
                best, kept = path[-1], predictions
        kept = None if kept is None else kept.clone()  # lets the other tables of this path go
    return best, kept, tuple(path)


def _block_scales(problem: RidgeForm, n: int, weights: tuple[float, ...], spec: StageSpec) -> Float[Tensor, "blocks"]:
    """w_b / RMS norm of block b; 0 for a block that says nothing."""
    wanted = torch.tensor(weights, dtype=torch.float64, device=problem.energies.device)
    if not spec.scale_blocks:
        return wanted
    norms = (problem.energies / n).sqrt()
    return torch.where(norms > 0, wanted / norms, 0.0)


def _finite_or_none(rho: float) -> float | None:
    return None if math.isinf(rho) else rho


def _penalty(problem: RidgeForm, scales: Float[Tensor, "blocks"], rho: float | None) -> float:
    """lambda = rho tr(G) / D of the scaled features; rho itself where they are all zero and any penalty will do."""
    if rho is None:
        return math.inf
    trace = float((scales.square() * problem.energies).sum())
    return rho * trace / sum(problem.block_sizes) if trace > 0 else rho
