"""One stage of a cascade: feature blocks brought to one scale, then a ridge whose penalty is chosen out of group."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.regression.logo import leave_group_out
from facerecon_torch.regression.moments import Features, Moments, Rows, SampleGram, row_chunks
from facerecon_torch.regression.ridge import Ridge, RidgeProblem, make_problem, require_targets
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = [
    "DEFAULT_RELATIVE_PENALTIES",
    "ErrorFunction",
    "PathPoint",
    "RidgeSpec",
    "Stage",
    "StageFit",
    "fit_stage",
    "penalty_search",
    "predict",
]

ErrorFunction: TypeAlias = Callable[[Tensor], Tensor | float]

# Relative penalty 1 is the mean eigenvalue over all D directions, of which a wide problem fills only n: the useful
# range moves with D / n, so the default covers tall and wide problems.
DEFAULT_RELATIVE_PENALTIES = tuple(10.0 ** (step / 2) for step in range(-6, 11))


@dataclass(frozen=True, kw_only=True)
class RidgeSpec:
    """Settings of the ridge of a stage.

    Attributes:
        relative_penalty: fixed; penalty = relative_penalty tr(G) / D with G the Gram matrix of the scaled features.
            None: chosen among `relative_penalties` by exact leave-one-group-out error.
        penalty: fixed and absolute, instead of a relative one.
        relative_penalties: candidates; inf is the mean alone or, without a bias, the exact zero update.
        block_weights_grid: candidates for the relative weights of the feature blocks (None: all 1).
        scale_blocks: divide each block by its RMS norm over the training samples (about the mean if there is a bias).
        bias: fit a constant, free of penalty.
        form: primal, dual, or auto, by sizes and memory.
        block_sizes: columns of each feature block in order (None: one block).
        memory: bytes that the matrices may take (None: 80 % of what is free).

    Raises:
        ValueError: for penalties that are not positive, weights that are negative or not finite, or an unknown form.

    Example:
        >>> RidgeSpec(relative_penalties=(0.1, 1, 10), block_sizes=(200, 20), block_weights_grid=((1, 1), (1, 0.5)))
    """

    relative_penalty: float | int | None = None
    penalty: float | int | None = None
    relative_penalties: Sequence[float | int] = DEFAULT_RELATIVE_PENALTIES
    block_weights_grid: Sequence[Sequence[float | int]] | None = None
    scale_blocks: bool = True
    bias: bool = True
    form: str = "auto"
    block_sizes: Sequence[int] | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.relative_penalty is not None and not self.relative_penalty > 0:
            raise ValueError(
                f"regression.relative_penalty must be positive, or null to choose it; got {self.relative_penalty}"
            )
        if self.penalty is not None and (self.relative_penalty is not None or not self.penalty > 0):
            raise ValueError(
                "regression.penalty must be positive, and stand without relative_penalty; got "
                f"{self.penalty} and {self.relative_penalty}"
            )
        penalties = tuple(float(penalty) for penalty in self.relative_penalties)
        if not penalties or not all(penalty > 0 for penalty in penalties):
            raise ValueError(f"relative_penalties must be positive numbers, at least one; got {penalties}")
        object.__setattr__(self, "relative_penalties", penalties)
        if self.form not in ("auto", "primal", "dual"):
            raise ValueError(f"regression.form must be auto, primal or dual; got {self.form!r}")
        if self.block_weights_grid is None:
            return
        grid = tuple(tuple(float(weight) for weight in weights) for weights in self.block_weights_grid)
        if not grid or any(not 0 <= weight < math.inf for weights in grid for weight in weights):
            raise ValueError(f"block_weights_grid must hold finite weights of at least 0; got {grid}")
        object.__setattr__(self, "block_weights_grid", grid)

    @property
    def candidates(self) -> tuple[float, ...]:
        """The relative penalties to try, the strongest first."""
        if self.relative_penalty is not None:
            return (float(self.relative_penalty),)
        return tuple(sorted(self.relative_penalties, reverse=True))

    def weights(self, blocks: int) -> tuple[tuple[float, ...], ...]:
        """The block weights to try. Raises ValueError unless there is one for each block."""
        grid = self.block_weights_grid or ((1.0,) * blocks,)
        if any(len(weights) != blocks for weights in grid):
            raise ValueError(f"every entry of block_weights_grid must have {blocks} weights; got {grid}")
        return tuple(tuple(weights) for weights in grid)


@dataclass(frozen=True)
class Stage:
    """The affine map y = sum_b s_b x_b W_b + b: a ridge of features whose block b is multiplied by the scale s_b.

    Attributes:
        ridge: W and b.
        block_sizes: number of columns of each block.
        block_scales: s.

    Example:
        >>> update = stage(x)
    """

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
        """The same stage after `Tensor.to` of its tensors."""
        return replace(self, ridge=self.ridge.to(*args, **kwargs), block_scales=self.block_scales.to(*args, **kwargs))


def predict(stage: Stage, features: Features) -> Tensor:
    """stage(features) [n, t], chunk by chunk where the features are a source.

    Args:
        stage: a fitted stage.
        features: [n, d], or a source of row chunks.

    Example:
        >>> predict(fit.stage, lambda: iter(x.split(1000)))
    """
    bias = stage.ridge.bias
    if isinstance(features, Tensor) and features.device == bias.device:
        return stage(features)
    parts = [stage(chunk) for _, chunk in row_chunks(features, device=bias.device)]
    return torch.cat(parts) if parts else bias.new_zeros(0, len(bias))


@dataclass(frozen=True)
class PathPoint:
    """One candidate that was tried, with the error of its out-of-group predictions; relative_penalty is None for an
    infinite penalty."""

    relative_penalty: float | None
    block_weights: tuple[float, ...]
    error: float


@dataclass(frozen=True)
class StageFit:
    """A fitted stage with its training predictions, in the dtype of the targets.

    Attributes:
        stage: fitted on all samples.
        in_sample: its predictions.
        out_of_group: predictions of each group by the fit without it; None where no groups were given.
        relative_penalty: the chosen one.
        block_weights: the chosen ones.
        error: of `out_of_group`; None where no groups were given.
        path: all candidates that were tried.

    Example:
        >>> fit_stage(x, y, groups, error, RidgeSpec()).relative_penalty
    """

    stage: Stage
    in_sample: Float[Tensor, "n t"]
    out_of_group: Float[Tensor, "n t"] | None
    relative_penalty: float | None
    block_weights: tuple[float, ...]
    error: float | None
    path: tuple[PathPoint, ...]


def fit_stage(
    x: Features,
    y: Tensor,
    groups: Tensor | None,
    error: ErrorFunction,
    spec: RidgeSpec,
    *,
    shared: SampleGram | Moments | None = None,
    start: float | None = None,
    ranks: Ranks = SINGLE,
) -> StageFit:
    """The ridge with the relative penalty and block weights of least out-of-group error.

    Args:
        x: features [n, d], or a source of their row chunks.
        y: targets [n, t].
        groups: name [n] of the group of each sample; None where there is a single candidate.
        error: maps predictions of y to one number. It is called once per candidate, with exact leave-one-group-out
            predictions (penalty and scales held fixed); ties go to the stronger penalty.
        spec: the candidates.
        shared: Gram matrix (dual form) or moments (primal) of the same samples, where other fits use them too.
        start: relative penalty at which the search begins (None: the middle of the candidates).
        ranks: the processes that share the fit. Each gives its own rows, which may be none: whole groups, with names
            that are unique among all. `error` must then return the error over the samples of all, the same on all.

    Returns:
        The fit, the same stage on all processes.

    Raises:
        ValueError: for groups, moments or weights that do not fit the samples, an error that is NaN, or penalties below
            the rounding error of the Gram matrix.

    Example:
        >>> fit = fit_stage(x, y, person, lambda p: (p - y).norm(dim=1).mean(), RidgeSpec())
        >>> fit.relative_penalty, fit.error
    """
    require_targets(x, y, may_be_empty=ranks.world > 1)
    rows = Rows.agree(x, len(y), bias=spec.bias, device=y.device, ranks=ranks)
    problem = make_problem(
        rows, y, bias=spec.bias, form=spec.form, block_sizes=spec.block_sizes, memory=spec.memory, shared=shared
    )
    spec = _with_relative_penalty(problem, spec)
    best, out_of_group, path = penalty_search(problem, groups, error, spec, start=start)
    scales = _block_scales(problem, best.block_weights, spec)
    penalty = _penalty(problem, scales, math.inf if best.relative_penalty is None else best.relative_penalty)
    solution = problem.solve(scales, penalty)
    ridge = Ridge(solution.weight.to(y.dtype), solution.bias.to(y.dtype), penalty, problem.form)
    stage = Stage(ridge, problem.block_sizes, scales.to(y.dtype))
    fitted = predict(stage, x) if solution.fitted is None else solution.fitted
    chosen = None if out_of_group is None else best.error
    return StageFit(stage, fitted.to(y.dtype), out_of_group, best.relative_penalty, best.block_weights, chosen, path)


def penalty_search(
    problem: RidgeProblem, groups: Tensor | None, error: ErrorFunction, spec: RidgeSpec, *, start: float | None = None
) -> tuple[PathPoint, Float[Tensor, "n t"] | None, tuple[PathPoint, ...]]:
    """(best candidate, its out-of-group predictions, candidates tried); the single candidate where there are no groups.

    For each choice of block weights the finite penalties are walked from `start`, or from the best so far, towards
    less error until both neighbours of the best are known: each costs a factorisation, and in the primal form a pass
    over the rows. The walk ends at the least error of the whole path wherever the error has one minimum along it.
    """
    grid, penalties, y = spec.weights(len(problem.block_sizes)), spec.candidates, problem.y
    if groups is None:
        if len(grid) > 1 or len(penalties) > 1:
            raise ValueError("choosing a penalty or block weights needs groups; got groups=None and several candidates")
        return PathPoint(_finite_or_none(penalties[0]), grid[0], math.nan), None, ()
    if groups.shape != y.shape[:1] or groups.is_floating_point():
        raise ValueError(f"groups must be {len(y)} integers; got {groups.dtype} {tuple(groups.shape)}")
    trials = _Trials(problem, groups.to(y.device), error, spec)
    finite = [penalty for penalty in penalties if not math.isinf(penalty)]
    for weights in grid:
        if len(finite) < len(penalties):
            trials.error_of(weights, math.inf)
        if finite:
            best = start if trials.best is None else trials.best.relative_penalty or start
            walk(len(finite), _nearest(finite, best), partial(trials.error_at, weights, finite))
    if trials.best is None:
        raise ValueError(
            "relative_penalties must exceed the rounding error of the Gram matrix; no candidate could be factorised"
        )
    order = {weights: number for number, weights in enumerate(grid)}
    path = sorted(trials.path, key=lambda point: (order[point.block_weights], -(point.relative_penalty or math.inf)))
    return trials.best, trials.predictions, tuple(path)


def walk(count: int, start: int, value: Callable[[int], float]) -> int:
    """The number of the least value among 0 .. count - 1, found from `start` one step at a time until both neighbours
    of the least are known. Ties go to the lower number."""
    values = {start: value(start)}
    while True:
        best = min(values, key=lambda k: (values[k], k))
        unknown = [k for k in (best - 1, best + 1) if 0 <= k < count and k not in values]
        if not unknown:
            return best
        values[unknown[0]] = value(unknown[0])


def _nearest(penalties: Sequence[float], goal: float | None) -> int:
    if goal is None:
        return len(penalties) // 2
    return min(range(len(penalties)), key=lambda k: abs(math.log(penalties[k] / goal)))


class _Trials:
    """The candidates tried so far, the best of them, and its predictions alone."""

    def __init__(self, problem: RidgeProblem, groups: Tensor, error: ErrorFunction, spec: RidgeSpec) -> None:
        self.problem, self.groups, self.error, self.spec = problem, groups, error, spec
        self.best: PathPoint | None = None
        self.predictions: Tensor | None = None
        self.path: list[PathPoint] = []

    def error_at(self, weights: tuple[float, ...], relative_penalties: Sequence[float], k: int) -> float:
        """The out-of-group error of one of the penalties."""
        return self.error_of(weights, relative_penalties[k])

    def error_of(self, weights: tuple[float, ...], relative_penalty: float) -> float:
        """The out-of-group error of a candidate; inf where its matrix cannot be factorised."""
        scales = _block_scales(self.problem, weights, self.spec)
        predictions = leave_group_out(
            self.problem, self.groups, scales, _penalty(self.problem, scales, relative_penalty)
        )
        if predictions is None:
            return math.inf
        point = PathPoint(_finite_or_none(relative_penalty), weights, float(self.error(predictions)))
        if math.isnan(point.error):
            raise ValueError(
                f"error must return a number; got NaN at relative penalty {relative_penalty}, block weights {weights}"
            )
        self.path.append(point)
        if self.best is None or _beats(point, self.best):
            self.best, self.predictions = point, predictions
        return point.error


def _beats(point: PathPoint, best: PathPoint) -> bool:
    """Less error; of the same error, the stronger penalty among those of the same block weights."""
    if point.error != best.error or point.block_weights != best.block_weights:
        return point.error < best.error
    return (point.relative_penalty or math.inf) > (best.relative_penalty or math.inf)


def _finite_or_none(relative_penalty: float) -> float | None:
    return None if math.isinf(relative_penalty) else relative_penalty


def _block_scales(problem: RidgeProblem, weights: tuple[float, ...], spec: RidgeSpec) -> Float[Tensor, "blocks"]:
    """w_b / RMS norm of block b; 0 for a block without spread."""
    relative = torch.tensor(weights, dtype=torch.float64, device=problem.energies.device)
    if not spec.scale_blocks:
        return relative
    norms = (problem.energies / problem.n).sqrt()
    return torch.where(norms > 0, relative / norms, 0.0)


def _with_relative_penalty(problem: RidgeProblem, spec: RidgeSpec) -> RidgeSpec:
    """The spec with an absolute penalty as the relative one that equals it for these features."""
    if spec.penalty is None:
        return spec
    weights, *more = spec.weights(len(problem.block_sizes))
    if more:
        raise ValueError(f"regression.penalty needs a single choice of block weights; got {1 + len(more)}")
    unit = _penalty(problem, _block_scales(problem, weights, spec), 1.0)
    return replace(spec, penalty=None, relative_penalty=spec.penalty / unit)


def _penalty(problem: RidgeProblem, scales: Float[Tensor, "blocks"], relative_penalty: float) -> float:
    """relative_penalty tr(G) / D of the scaled features; itself where they are all zero and any penalty will do."""
    trace = float((scales.square() * problem.energies).sum())
    return relative_penalty * trace / problem.rows.d if trace > 0 else relative_penalty
