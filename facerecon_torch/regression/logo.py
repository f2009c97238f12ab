"""Exact leave-one-group-out predictions of a ridge fit from its one Cholesky factor.

With e the in-sample residuals of a fit and H its hat matrix (mean included), leaving group g out gives the residuals
r_g = (I - H_gg)^-1 e_g on that group, with the penalty and the feature scales held fixed:

    dual    I - H = penalty B - 11'/n,  e = penalty B Y,  B = (K + penalty I)^-1 = Z'Z,  Z = L^-1
    primal  I - H = I - A A' - 11'/n,   e = Y - A A'Y,    A = X U^-1

X, Y and K are centred and 11'/n is there only where the fit has a bias; LL' and U'U are the penalised Gram matrices.
The primal form takes one pass over the rows, multiplies them in the dtype of their moments and solves in float64; the
dual form is float64 throughout.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.moments import Features, chunk_rows, require_rows, row_chunks, select_rows
from facerecon_torch.regression.ridge import DualProblem, PrimalProblem, RidgeProblem
from facerecon_torch.runtime.memory import halve_on_out_of_memory
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Groups", "equal_size_batches", "group_chunks", "leave_group_out", "left_out_residuals", "solve_left_out"]

BATCH_NUMBERS = 2**23  # numbers of the factor that one batch of groups gathers: 64 MiB of float64
PASS_ROWS = 1024  # at least, where rows are wide: the factor is rounded to their dtype once for so many rows


@dataclass(frozen=True)
class Groups:
    """The group of each sample, numbered from 0, and the size of each group."""

    index: Int[Tensor, "n"]
    counts: Int[Tensor, "groups"]

    @classmethod
    def number(cls, names: Int[Tensor, "n"], ranks: Ranks = SINGLE) -> "Groups":
        """Own groups by their names. Raises ValueError where there are fewer than 2 groups in all, or where processes
        share one."""
        own, index, counts = torch.unique(names, return_inverse=True, return_counts=True)
        all_names = ranks.gather(own)
        different = len(torch.unique(all_names))
        if different < len(all_names):
            raise ValueError(f"every group must be on one process; got {len(all_names) - different} on several")
        if different < 2:
            raise ValueError(f"leaving one group out needs at least 2 groups; got {different}")
        return cls(index, counts)


def leave_group_out(
    problem: RidgeProblem, groups: Int[Tensor, "n"], scales: Float[Tensor, "b"], penalty: float
) -> Float[Tensor, "n t"] | None:
    """The prediction of every own sample by the fit without its group, in the dtype of the targets; None where rounding
    leaves no positive definite matrix to factorise.

    Args:
        problem: rows, targets and moments.
        groups: name of the group of each own sample.
        scales: of the feature blocks.
        penalty: inf leaves the mean of the other groups, or 0 without a bias.

    Raises:
        ValueError: there are fewer than 2 groups, or processes share one.

    Example:
        >>> leave_group_out(problem, subjects, torch.ones(1), 0.5)
    """
    own = Groups.number(groups, problem.rows.ranks)
    if math.isinf(penalty):
        return _mean_of_others(problem, own)
    if isinstance(problem, DualProblem):
        return _leave_out_dual(problem, Groups.number(problem.rows.ranks.gather(groups)), scales, penalty)
    return _leave_out_primal(problem, own, scales, penalty)


def _mean_of_others(problem: RidgeProblem, groups: Groups) -> Float[Tensor, "n t"]:
    """The predictions of an infinite penalty: the mean of the other groups, or 0."""
    if not problem.bias:
        return torch.zeros_like(problem.y)
    mean, residuals = problem.target_mean, problem.y.to(torch.float64) - problem.target_mean
    sums = residuals.new_zeros(len(groups.counts), residuals.shape[1]).index_add_(0, groups.index, residuals)
    return (mean - sums / (problem.n - groups.counts)[:, None])[groups.index].to(problem.y.dtype)


def _leave_out_dual(
    problem: DualProblem, groups: Groups, scales: Float[Tensor, "b"], penalty: float
) -> Float[Tensor, "n t"] | None:
    factor, level = problem.factorise(scales, penalty)
    if factor is None:
        return None
    n = problem.n
    errors = torch.cholesky_solve(problem.residuals, factor).mul_(penalty)
    identity = torch.eye(n, dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    del factor, identity
    # Along 1, penalty B is penalty / (penalty + level) where 1 would cancel against 11'/n.
    offset = penalty / (penalty + level) / n if problem.bias else 0.0
    left_out = torch.empty_like(errors)
    for members in equal_size_batches(groups.index, n):
        basis = inverse[:, members.flatten()].view(n, *members.shape).movedim(0, 2)  # [g, m, n]
        system = (basis @ basis.mT).mul_(penalty).sub_(offset)
        left_out[members] = solve_left_out(system, errors[members])
    predictions = problem.target_mean + problem.residuals - left_out
    return predictions[problem.rows.own].to(problem.y.dtype)


def _leave_out_primal(
    problem: PrimalProblem, groups: Groups, scales: Float[Tensor, "b"], penalty: float
) -> Float[Tensor, "n t"] | None:
    right = problem.turned_targets(scales, penalty)
    if right is None:
        return None
    rows, y, moments = problem.rows, problem.y, problem.moments
    right = right.to(moments.dtype)
    share = 1.0 / moments.count if moments.centred else 0.0
    predictions, done = torch.empty_like(y), 0
    for samples, chunk in group_chunks(rows.features, groups, max(chunk_rows(rows.d, y.device), PASS_ROWS)):
        parts = halve_on_out_of_memory(partial(_turned, problem, scales, chunk), range(len(chunk)), len(chunk))
        turned = parts[0] if len(parts) == 1 else torch.cat(parts)
        del chunk, parts
        truth = y[samples].to(torch.float64)
        errors = truth - problem.target_mean - (turned @ right).to(torch.float64)
        for members in equal_size_batches(groups.index[samples], rows.d):
            left_out = left_out_residuals(turned[members], errors[members], share)
            predictions[samples[members]] = (truth[members] - left_out).to(y.dtype)
        done += len(samples)
        del turned  # not held while the next chunk is read
    require_rows(done, len(y))
    return predictions


def _turned(
    problem: PrimalProblem, scales: Float[Tensor, "b"], chunk: Float[Tensor, "m d"], part: slice
) -> Float[Tensor, "part d"]:
    return problem.turn(chunk[part], scales)


def left_out_residuals(
    half: Float[Tensor, "g m k"], errors: Float[Tensor, "g m t"], share: float
) -> Float[Tensor, "g m t"]:
    """(I - A A' - share 11')^-1 e in float64, by way of the smaller of A A' and A'A; A A' is multiplied in the dtype of
    A."""
    if half.shape[1] > half.shape[2] + 1:
        half = half.to(torch.float64)
        wide = torch.cat([half, half.new_full((*half.shape[:2], 1), math.sqrt(share))], 2)
        inner = torch.eye(wide.shape[2], dtype=wide.dtype, device=wide.device) - wide.mT @ wide
        return errors + wide @ solve_left_out(inner, wide.mT @ errors)
    system = (half @ half.mT).to(torch.float64).neg_().sub_(share)
    system.diagonal(dim1=1, dim2=2).add_(1.0)
    return solve_left_out(system, errors)


def solve_left_out(system: Float[Tensor, "g m m"], errors: Float[Tensor, "g m t"]) -> Float[Tensor, "g m t"]:
    """system^-1 errors for the residual operators of groups left out, which are positive definite.

    By Cholesky: LU of a batch runs on several threads, each of which may start threads of its own, and with MKL and GNU
    OpenMP such a call was seen never to return. A system that rounding made indefinite is solved by LU, alone.
    """
    factor, failed = torch.linalg.cholesky_ex(system)
    # cholesky_solve takes 20 times as long on a batch of small systems.
    half = torch.linalg.solve_triangular(factor, errors, upper=False)
    solved: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    for k in failed.nonzero()[:, 0].tolist():
        solved[k] = torch.linalg.solve(system[k], errors[k])
    return solved


def equal_size_batches(index: Int[Tensor, "n"], width: int) -> list[Int[Tensor, "g size"]]:
    """The sample numbers of groups of one size as the rows of one matrix; a loop over sizes, not over groups."""
    order = torch.argsort(index, stable=True)
    _, counts = torch.unique(index, return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    batches: list[Tensor] = []
    for size in torch.unique(counts).tolist():
        members = order[starts[counts == size][:, None] + torch.arange(size, device=order.device)]
        batches.extend(torch.split(members, max(BATCH_NUMBERS // (size * max(width, size)), 1)))
    return batches


def group_chunks(
    features: Features, groups: Groups, rows: int
) -> Iterator[tuple[Int[Tensor, "m"], Float[Tensor, "m d"]]]:
    """(sample numbers, their rows), about `rows` at a time, on the device of `groups`; no group is ever cut.

    The rows of groups that are not complete yet are held. A tensor is read sorted by group; the samples of a source
    should be sorted, to keep what is held small.
    """
    index = groups.index
    order = torch.arange(len(index), device=index.device)
    if isinstance(features, Tensor):
        order = torch.argsort(index, stable=True)
        features = select_rows(features, order.to(features.device), rows)
    missing = groups.counts.clone()
    samples, held = order[:0], None
    for part, chunk in row_chunks(features, rows, index.device):
        if part.stop > len(order):
            require_rows(part.stop, len(order))
        arrived = order[part]
        missing -= torch.bincount(index[arrived], minlength=len(missing))
        samples = torch.cat([samples, arrived])
        held = chunk if held is None or not len(held) else torch.cat([held, chunk])
        del chunk
        complete = missing[index[samples]] == 0
        count = int(complete.sum())
        if bool(complete[:count].all()):  # as where samples are sorted by group: views will do
            ready, held = held[:count], held[count:].clone()
        else:
            ready, held = held[complete], held[~complete]
        ready_samples, samples = samples[complete], samples[~complete]
        if count:
            yield ready_samples, ready
        del ready
