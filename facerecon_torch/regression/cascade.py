"""A cascade of linear stages, x_{k+1} = x_k + r_k(h(x_k, k)), trained one after the other (Eq. 11-13).

The vector x and the observation h are anything: this module knows no faces.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_count, require_finite
from facerecon_torch.regression.moments import Features, Moments, SampleGram
from facerecon_torch.regression.stage import ErrorFunction, PathPoint, RidgeSpec, Stage, StageFit, fit_stage, predict
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Cascade", "CascadeSpec", "Observe", "Retract", "StageReport", "train_cascade"]

Observe: TypeAlias = Callable[[Tensor, int], Features]
Retract: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cascade:
    """Stages in a row. `retract`, if any, maps x back to the set where it may lie (a gauge) after every update.

    Example:
        >>> cascade, reports = train_cascade(observe, x0, target, groups, error, CascadeSpec(stages=3))
        >>> x = cascade.run(x0_new, observe_new)
    """

    stages: tuple[Stage, ...]
    retract: Retract | None = None

    def step(self, x: Float[Tensor, "n p"], observe: Observe, k: int) -> Float[Tensor, "n p"]:
        """x + r_k(h(x, k)), retracted; `observe` gives the features [n, d] or a source of chunks of them."""
        return self.updated(x, predict(self.stages[k], observe(x, k)))

    @in_own_precision
    def run(self, x: Float[Tensor, "n p"], observe: Observe) -> Float[Tensor, "n p"]:
        """All stages, from x."""
        for k in range(len(self.stages)):
            x = self.step(x, observe, k)
        return x

    def updated(self, x: Float[Tensor, "n p"], update: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """x + update in the dtype of x, retracted."""
        moved = x + update.to(x.dtype)
        return moved if self.retract is None else self.retract(moved)

    def to(self, *args: Any, **kwargs: Any) -> "Cascade":
        """The same cascade after `Tensor.to` of its stages."""
        return replace(self, stages=tuple(stage.to(*args, **kwargs) for stage in self.stages))


@dataclass(frozen=True, kw_only=True)
class CascadeSpec:
    """Settings of the training of a cascade.

    Attributes:
        stages: at most.
        cross_fit: update the training samples by out-of-group predictions, fit no bias after the first stage, offer
            each later one the exact zero update, and stop when the cross-fitted error falls by less than `min_gain`.
            False: in-sample updates, a bias in every stage, all stages kept; the paper's algorithm.
        min_gain: a fraction of the cross-fitted error.
        ridge: how each stage is fitted.

    Raises:
        ValueError: for fewer than 1 stage, or a min_gain outside [0, 1).

    Example:
        >>> CascadeSpec(cross_fit=False, ridge=RidgeSpec(relative_penalty=10))  # the paper's algorithm
    """

    stages: int = 5
    cross_fit: bool = True
    min_gain: float | int = 0.005
    ridge: RidgeSpec = field(default_factory=RidgeSpec)

    def __post_init__(self) -> None:
        require_count("cascade.stages", self.stages, 1)
        if not 0 <= self.min_gain < 1:
            raise ValueError(f"cascade.min_gain must be in [0, 1); got {self.min_gain}")
        if self.cross_fit and self.ridge.penalty is not None:
            raise ValueError(
                "cascade.cross_fit=true chooses among relative penalties and the zero update; got regression.penalty="
                f"{self.ridge.penalty}"
            )

    def stage(self, k: int) -> RidgeSpec:
        """The settings of stage k."""
        if k == 0 or not self.cross_fit:
            return self.ridge
        zero_update = (*self.ridge.candidates, math.inf)
        return replace(self.ridge, relative_penalty=None, relative_penalties=zero_update, bias=False)


@dataclass(frozen=True)
class StageReport:
    """The effect of one stage on the training samples, in the unit of the `error` function.

    relative_penalty is None for the zero update; `start_error` is that of the x the stage began with;
    `cross_fitted_error` is None without groups; `in_sample_error` is that of an in-sample update of the same x. `path`
    holds every candidate that was tried.
    """

    relative_penalty: float | None
    block_weights: tuple[float, ...]
    start_error: float
    cross_fitted_error: float | None
    in_sample_error: float
    kept: bool
    seconds: float
    form: str
    path: tuple[PathPoint, ...]


@in_own_precision
def train_cascade(
    observe: Observe,
    x0: Tensor,
    target: Tensor,
    groups: Tensor | None,
    error: ErrorFunction,
    spec: CascadeSpec,
    *,
    retract: Retract | None = None,
    on_stage: Callable[[int, Cascade, StageReport], None] | None = None,
    on_answers: Callable[[Tensor], None] | None = None,
    first: SampleGram | Moments | None = None,
    ranks: Ranks = SINGLE,
) -> tuple[Cascade, list[StageReport]]:
    """Up to `spec.stages` stages that move x0 towards target.

    Args:
        observe: h(x, k), the features [n, d] of all samples at x, or a source of chunks of them.
        x0: [n, p].
        target: [n, p].
        groups: name [n] of the group of each sample; None only without cross-fitting and choice of a penalty.
        error: maps all samples [n, p] to one number, which chooses penalties.
        spec: how stages are fitted and kept.
        retract: maps x back to the set where it may lie after every update.
        on_stage: called with (k, cascade, report) while the stage is in the cascade, even where it is then dropped.
        on_answers: called at the end with the x [n, p] of the training samples after all kept stages: out-of-group
            answers if the cascade is cross-fitted.
        first: moments of the first stage where several folds share them: the Gram matrix of the features at x0
            (`gram.select(rows)`; dual form), or their moments with target - x0 (`moments.without(left_out)`; primal).
        ranks: the processes that train together, as in `fit_stage`; each gives its own samples.

    Returns:
        The cascade, and a report of each stage; that of a dropped stage comes last, with kept=False.

    Raises:
        ValueError: for samples that are not finite or do not match, and as `fit_stage`.

    Example:
        >>> observe = lambda x, k: y - x.sin()  # invert sin(x)
        >>> cascade, reports = train_cascade(observe, x0, y.asin(), groups, mean_distance, CascadeSpec())
    """
    _require_training(x0, target, groups, spec)
    cascade, reports, x = Cascade((), retract), list[StageReport](), x0
    for k in range(spec.stages):
        began, start_error = time.perf_counter(), float(error(x))
        fit = fit_stage(
            observe(x, k),
            target - x,
            groups,
            partial(_error_after, cascade, x, error),
            spec.stage(k),
            shared=first if k == 0 else None,
            start=reports[-1].relative_penalty if reports else None,
            ranks=ranks,
        )
        candidate = replace(cascade, stages=(*cascade.stages, fit.stage))
        kept = not spec.cross_fit or _gains(fit.error, start_error, spec.min_gain)
        in_sample = float(_error_after(cascade, x, error, fit.in_sample))
        reports.append(_report(fit, start_error, in_sample, kept, time.perf_counter() - began))
        if on_stage is not None:
            on_stage(k, candidate, reports[-1])
        if not kept:
            break
        update = fit.out_of_group if spec.cross_fit and fit.out_of_group is not None else fit.in_sample
        cascade, x = candidate, cascade.updated(x, update)
    if on_answers is not None:
        on_answers(x)
    return cascade, reports


def _error_after(cascade: Cascade, x: Tensor, error: ErrorFunction, update: Tensor) -> Tensor | float:
    return error(cascade.updated(x, update))


def _gains(error: float | None, start: float, min_gain: float) -> bool:
    return error is not None and error < start and error <= (1.0 - min_gain) * start


def _report(fit: StageFit, start: float, in_sample: float, kept: bool, seconds: float) -> StageReport:
    return StageReport(
        relative_penalty=fit.relative_penalty,
        block_weights=fit.block_weights,
        start_error=start,
        cross_fitted_error=fit.error,
        in_sample_error=in_sample,
        kept=kept,
        seconds=seconds,
        form=fit.stage.ridge.form,
        path=fit.path,
    )


def _require_training(x0: Tensor, target: Tensor, groups: Tensor | None, spec: CascadeSpec) -> None:
    if x0.ndim != 2 or x0.shape != target.shape:
        raise ValueError(
            f"x0 and target must be matrices of one shape; got {tuple(x0.shape)} and {tuple(target.shape)}"
        )
    require_finite("x0", x0)
    require_finite("target", target)
    if spec.cross_fit and groups is None:
        raise ValueError("cross_fit=True needs groups; got groups=None")
