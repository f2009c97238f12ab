"""A cascade of linear stages, x_{k+1} = x_k + r_k(h(x_k, k)), trained one after the other (Eq. 11-13).

The vector x and the observation h are anything: this module knows no faces.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite
from facerecon_torch.regression.gram import Moments, SampleGram
from facerecon_torch.regression.search import ErrorFunction, PathPoint, mean_error
from facerecon_torch.regression.selection import Factorisation
from facerecon_torch.regression.stage import Stage, StageFit, fit_stage, predict
from facerecon_torch.regression.stage_spec import DEFAULT_RHOS, StageSpec
from facerecon_torch.regression.storage import stages_from_tensors, stages_meta, stages_to_tensors
from facerecon_torch.regression.streaming import Features
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Cascade", "CascadeSpec", "StageReport", "train_cascade"]

Observe: TypeAlias = Callable[[Tensor, int], Features]
Retract: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cascade:
    """Stages in a row. `retract`, if any, maps x back to where it may live (a gauge) after every update."""

    stages: tuple[Stage, ...]
    retract: Retract | None = None

    def step(self, x: Float[Tensor, "n p"], observe: Observe, k: int) -> Float[Tensor, "n p"]:
        """x + r_k(h(x, k)), retracted; `observe` gives the features [n, d] or a source of chunks of them."""
        return _updated(x, predict(self.stages[k], observe(x, k)), self.retract)

    def run(self, x: Float[Tensor, "n p"], observe: Observe) -> Float[Tensor, "n p"]:
        """All stages, from x."""
        for k in range(len(self.stages)):
            x = self.step(x, observe, k)
        return x

    def to(self, *args: Any, **kwargs: Any) -> "Cascade":
        return replace(self, stages=tuple(stage.to(*args, **kwargs) for stage in self.stages))

    def to_tensors(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Named tensors of all stages; weights in `dtype`, float16 included (largest error 2^-11 of the largest
        weight of the same target), everything else in the dtype it has."""
        return stages_to_tensors(self.stages, dtype)

    def meta(self) -> dict[str, Any]:
        """What `to_tensors` leaves out, as plain JSON values."""
        return stages_meta(self.stages)

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, Any],
        *,
        retract: Retract | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Cascade":
        """The cascade of `to_tensors` and `meta`, in `dtype`. Raises ValueError naming the entry that is wrong."""
        return cls(stages_from_tensors(tensors, meta, dtype), retract)


@dataclass(frozen=True, kw_only=True)
class CascadeSpec:
    """How a cascade is trained.

    cross_fit: update the training samples by out-of-group predictions, start no stage after the first with a bias,
    offer the exact zero update to each of them, and stop when the cross-fitted error falls by less than `min_gain`
    (a fraction). False: in-sample updates, a bias in every stage, all stages kept; with one `rho` that is the paper's
    algorithm.
    rho: fixed, or None to choose among `rhos`. Everything else as in StageSpec.
    """

    stages: int = 5
    cross_fit: bool = True
    rho: float | int | None = None
    rhos: Sequence[float | int] = DEFAULT_RHOS
    min_gain: float | int = 0.005
    block_sizes: Sequence[int] | None = None
    block_weights_grid: Sequence[Sequence[float | int]] | None = None
    scale_blocks: bool = True
    form: Literal["auto", "primal", "dual"] = "auto"
    factorisation: Literal["auto"] | Factorisation = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ValueError(f"stages must be at least 1; got {self.stages}")
        if not 0 <= self.min_gain < 1:
            raise ValueError(f"min_gain must be in [0, 1); got {self.min_gain}")
        self.stage_spec(0)

    def stage_spec(self, k: int) -> StageSpec:
        """How stage k is fitted."""
        rhos = tuple(self.rhos) if self.rho is None else (self.rho,)
        later = self.cross_fit and k > 0
        return StageSpec(
            rhos=(*rhos, math.inf) if later else rhos,
            block_sizes=self.block_sizes,
            block_weights_grid=self.block_weights_grid,
            bias=not later,
            scale_blocks=self.scale_blocks,
            form=self.form,
            factorisation=self.factorisation,
            memory=self.memory,
        )


@dataclass(frozen=True)
class StageReport:
    """What one stage did to the training samples; `error` functions give the unit.

    rho is None for the zero update; `start_error` is that of the x the stage began with; `cross_fitted_error` is None
    without groups; `in_sample_error` is that of an in-sample update of the same x. `path` holds every candidate.
    """

    rho: float | None
    block_weights: tuple[float, ...]
    start_error: float
    cross_fitted_error: float | None
    in_sample_error: float
    kept: bool
    seconds: float
    form: str
    path: tuple[PathPoint, ...]


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
    first: SampleGram | Moments | None = None,
    ranks: Ranks = SINGLE,
) -> tuple[Cascade, list[StageReport]]:
    """Train up to `spec.stages` stages that move x0 [n, p] towards target [n, p].

    `observe(x, k)` gives the features of all samples at x; `error(x)` maps all samples to one number and chooses rho.
    `on_stage(k, cascade, report)` is called with the stage still in the cascade even where it is then dropped, so
    `cascade.step(x_test, observe_test, k)` can follow. `first`, where several folds share it: the Gram matrix of the
    features at x0 (`gram.select(rows)` of that of all samples; dual form), or their moments and those of target - x0
    (`moments.without(left_out)`; primal form). Reports of a dropped stage come last, with kept=False.

    Of several processes each gives its own samples, as in `fit_stage`; all get the same cascade and reports.
    """
    _require_training(x0, target, groups, spec)
    cascade, reports, x = Cascade((), retract), list[StageReport](), x0
    reached = mean_error(error, x, ranks)
    for k in range(spec.stages):
        began = time.perf_counter()
        fit = fit_stage(
            observe(x, k),
            target - x,
            groups,
            partial(_error_after, x=x, error=error, retract=retract),
            spec.stage_spec(k),
            first=first if k == 0 else None,
            start_rho=reports[-1].rho if reports else None,
            ranks=ranks,
        )
        candidate = replace(cascade, stages=(*cascade.stages, fit.stage))
        kept = not spec.cross_fit or _gains(fit.error, reached, spec.min_gain)
        report = _report(fit, reached, mean_error(error, _updated(x, fit.in_sample, retract), ranks), kept, began)
        reports.append(report)
        if on_stage is not None:
            on_stage(k, candidate, report)
        if not kept:
            break
        update = fit.out_of_group if spec.cross_fit and fit.out_of_group is not None else fit.in_sample
        cascade, x = candidate, _updated(x, update, retract)
        reached = mean_error(error, x, ranks)
    return cascade, reports


def _error_after(update: Tensor, *, x: Tensor, error: ErrorFunction, retract: Retract | None) -> Tensor | float:
    return error(_updated(x, update, retract))


def _updated(x: Tensor, update: Tensor, retract: Retract | None) -> Tensor:
    moved = x + update.to(x.dtype)
    return moved if retract is None else retract(moved)


def _gains(error: float | None, reached: float, min_gain: float) -> bool:
    return error is not None and error < reached and error <= (1.0 - min_gain) * reached


def _report(fit: StageFit, start: float, in_sample: float, kept: bool, began: float) -> StageReport:
    return StageReport(
        rho=fit.rho,
        block_weights=fit.block_weights,
        start_error=start,
        cross_fitted_error=fit.error,
        in_sample_error=in_sample,
        kept=kept,
        seconds=time.perf_counter() - began,
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
