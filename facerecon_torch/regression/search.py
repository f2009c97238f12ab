"""The choice of rho and block weights by out-of-group error: along the whole path, or by a walk."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.regression.forms import RidgeForm
from facerecon_torch.regression.stage_spec import StageSpec
from facerecon_torch.runtime.ranks import Ranks

__all__ = ["ErrorFunction", "PathPoint", "block_scales", "mean_error", "penalty_of", "search", "walk"]

ErrorFunction: TypeAlias = Callable[[Tensor], Tensor | float]


@dataclass(frozen=True)
class PathPoint:
    """One candidate that was tried; rho is None for an infinite penalty, error that of the out-of-group predictions."""

    rho: float | None
    block_weights: tuple[float, ...]
    error: float


def mean_error(error: ErrorFunction, values: Tensor, ranks: Ranks) -> float:
    """error(values), which is a mean over the own samples, as a mean over those of all processes; the same bits on
    all. A process without samples is not asked."""
    if ranks.world == 1:
        return float(error(values))
    sums = torch.zeros(2, dtype=torch.float64, device=values.device)
    if len(values):
        sums[0], sums[1] = float(error(values)) * len(values), len(values)
    total, count = ranks.add_(sums).tolist()
    return float(total / count)


def search(
    problem: RidgeForm,
    y: Float[Tensor, "n t"],
    groups: Tensor | None,
    error: ErrorFunction,
    spec: StageSpec,
    *,
    start_rho: float | None,
    ranks: Ranks,
) -> tuple[PathPoint, Float[Tensor, "n t"] | None, tuple[PathPoint, ...]]:
    """(the best candidate, its out-of-group predictions, all candidates tried); a single candidate without groups."""
    candidates = spec.candidates(len(problem.block_sizes))
    if groups is None:
        (weights, rhos), *others = candidates
        if others or len(rhos) > 1:
            raise ValueError("choosing rho or block weights needs groups; got groups=None and several candidates")
        return PathPoint(_finite_or_none(rhos[0]), weights, math.nan), None, ()
    if groups.shape != y.shape[:1] or groups.is_floating_point():
        raise ValueError(f"groups must be {len(y)} integers; got {groups.dtype} {tuple(groups.shape)}")
    judge = _Judge(problem, groups.to(y.device), error, spec, ranks)
    for weights, rhos in candidates:
        if not problem.walks:
            judge.try_all(weights, rhos)
            continue
        judge.try_all(weights, [rho for rho in rhos if math.isinf(rho)])
        finite = [rho for rho in rhos if not math.isinf(rho)]
        best = start_rho if judge.best is None or judge.best.rho is None else judge.best.rho
        if finite:
            walk(len(finite), _nearest(finite, best), partial(judge.try_one, weights, finite))
    if judge.best is None:
        raise ValueError("rhos must exceed the rounding error of the Gram matrix; no candidate could be factorised")
    order = {weights: number for number, (weights, _) in enumerate(candidates)}
    judge.path.sort(key=lambda point: (order[point.block_weights], -math.inf if point.rho is None else -point.rho))
    return judge.best, judge.kept, tuple(judge.path)


def walk(count: int, start: int, value: Callable[[int], float]) -> int:
    """From `start` towards less value, one step at a time along 0 .. count - 1, until both neighbours of the least are
    known; its number. Ties go to the lower number."""
    seen = {start: value(start)}
    while True:
        best = min(seen, key=lambda k: (seen[k], k))
        unknown = [k for k in (best - 1, best + 1) if 0 <= k < count and k not in seen]
        if not unknown:
            return best
        seen[unknown[0]] = value(unknown[0])


def _nearest(rhos: Sequence[float], wanted: float | None) -> int:
    if wanted is None:
        return len(rhos) // 2
    return min(range(len(rhos)), key=lambda k: abs(math.log(rhos[k] / wanted)))


class _Judge:
    """Tries candidates and keeps the best, and of the tables only its own."""

    def __init__(self, problem: RidgeForm, groups: Tensor, error: ErrorFunction, spec: StageSpec, ranks: Ranks) -> None:
        self.problem, self.groups, self.error, self.spec, self.ranks = problem, groups, error, spec, ranks
        self.best: PathPoint | None = None
        self.kept: Tensor | None = None
        self.path: list[PathPoint] = []

    def try_all(self, weights: tuple[float, ...], rhos: Sequence[float]) -> list[float]:
        """The errors of some rhos, inf where there is no answer."""
        if not rhos:
            return []
        scales = block_scales(self.problem, weights, self.spec)
        penalties = [penalty_of(self.problem, scales, rho) for rho in rhos]
        points = (PathPoint(_finite_or_none(rho), weights, math.inf) for rho in rhos)
        # map and no loop variable: no table outlives its turn
        return list(map(self._judge, points, self.problem.leave_group_out(scales, penalties, self.groups)))

    def try_one(self, weights: tuple[float, ...], rhos: Sequence[float], k: int) -> float:
        """The error of one of the rhos."""
        return self.try_all(weights, [rhos[k]])[0]

    def _judge(self, point: PathPoint, predictions: Tensor | None) -> float:
        if predictions is None:
            return math.inf
        point = PathPoint(point.rho, point.block_weights, mean_error(self.error, predictions, self.ranks))
        if math.isnan(point.error):
            where = f"rho={point.rho}, block weights {point.block_weights}"
            raise ValueError(f"error must return a number; got NaN at {where}")
        self.path.append(point)
        if self.best is None or _beats(point, self.best):
            self.best, self.kept = point, predictions.clone()
        return point.error


def _beats(point: PathPoint, best: PathPoint) -> bool:
    """Less error; of the same error, the stronger penalty among those of the same block weights."""
    if point.error != best.error or point.block_weights != best.block_weights:
        return point.error < best.error
    return best.rho is not None and (point.rho is None or point.rho > best.rho)


def block_scales(problem: RidgeForm, weights: tuple[float, ...], spec: StageSpec) -> Float[Tensor, "blocks"]:
    """w_b / RMS norm of block b; 0 for a block that says nothing."""
    wanted = torch.tensor(weights, dtype=torch.float64, device=problem.energies.device)
    if not spec.scale_blocks:
        return wanted
    norms = (problem.energies / problem.n).sqrt()
    return torch.where(norms > 0, wanted / norms, 0.0)


def _finite_or_none(rho: float) -> float | None:
    return None if math.isinf(rho) else rho


def penalty_of(problem: RidgeForm, scales: Float[Tensor, "blocks"], rho: float | None) -> float:
    """lambda = rho tr(G) / D of the scaled features; rho itself where they are all zero and any penalty will do."""
    if rho is None or math.isinf(rho):
        return math.inf
    trace = float((scales.square() * problem.energies).sum())
    return rho * trace / sum(problem.block_sizes) if trace > 0 else rho
