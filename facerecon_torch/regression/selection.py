"""Exact leave-one-group-out predictions of a ridge fit for many penalties.

With e the in-sample residuals of a fit with penalty lambda and H its hat matrix (mean included), leaving group g out
gives the residuals r_g = (I - H_gg)^-1 e_g on that group, with the penalty and the feature scales held fixed:

    dual    r_g = (lambda B_gg - 11'/n)^-1 (lambda a_g),   B = (K + lambda I)^-1,  a = B Y
    primal  r_g = (I - A_g A_g' - 11'/n)^-1 e_g,           A A' = X (X'X + lambda I)^-1 X'

X, Y and K are centred and 11'/n is there only where the fit has a bias. Two factorisations serve either form. One
eigendecomposition V L V' serves all penalties: A = X V (L + lambda)^-1/2 in the primal form, whose rows are turned once
for as many penalties as there is room to keep predictions of. Or each penalty has a Cholesky factor U'U of its own:
A = X U^-1, which takes a pass over the rows for each penalty but no second [d, d] matrix, and B as it stands in the
dual form. The dual form is float64 throughout; the primal multiplies rows in the dtype in which the moments were
multiplied, and solves in float64.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.triangle import Eigen, decompose
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = [
    "Factorisation",
    "equal_size_batches",
    "leave_group_out_dual",
    "mean_of_others",
    "number_groups",
    "solve_left_out",
]

Factorisation: TypeAlias = Literal["eigen", "cholesky"]

BUCKET_NUMBERS = 2**23  # numbers of the factor that one batch of groups gathers: 64 MiB of float64


def number_groups(groups: Int[Tensor, "n"], ranks: Ranks = SINGLE) -> tuple[Int[Tensor, "n"], Int[Tensor, "groups"]]:
    """(group number of each own sample from 0, size of each own group); ValueError where there are fewer than 2 groups
    in all, or where processes share one."""
    names, index, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    everywhere = ranks.gather(names)
    different = len(torch.unique(everywhere))
    if different < len(everywhere):
        raise ValueError(f"every group must be on one process; got {len(everywhere) - different} that are on several")
    if different < 2:
        raise ValueError(f"leaving one group out needs at least 2 groups; got {different}")
    return index, counts


def equal_size_batches(index: Int[Tensor, "n"], width: int) -> list[Int[Tensor, "g size"]]:
    """The sample numbers of groups of one size as the rows of one matrix; a loop over sizes, not over groups."""
    order = torch.argsort(index, stable=True)
    _, counts = torch.unique(index, return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    batches: list[Tensor] = []
    for size in torch.unique(counts).tolist():
        members = order[starts[counts == size][:, None] + torch.arange(size, device=order.device)]
        batches.extend(torch.split(members, max(BUCKET_NUMBERS // (size * max(width, size)), 1)))
    return batches


def mean_of_others(
    targets: Float[Tensor, "n t"], target_mean: Float[Tensor, "t"], index: Int[Tensor, "n"], count: int, bias: bool
) -> Float[Tensor, "n t"]:
    """What is left of a fit with an infinite penalty: the mean of the other groups, or 0."""
    if not bias:
        return torch.zeros_like(targets)
    sizes = torch.bincount(index)
    sums = targets.new_zeros(len(sizes), targets.shape[1]).index_add_(0, index, targets - target_mean)
    return (target_mean - sums / (count - sizes)[:, None])[index]


def solve_left_out(system: Float[Tensor, "g m m"], errors: Float[Tensor, "g m t"]) -> Float[Tensor, "g m t"]:
    """system^-1 errors for the residual operators of groups left out, which are positive definite.

    By Cholesky, one after the other: LU of a batch runs on several threads, each of which may start threads of its own,
    and with MKL and GNU OpenMP such a call was seen never to return. What rounding leaves indefinite is solved by LU,
    alone.
    """
    factor, failed = torch.linalg.cholesky_ex(system)
    solved = torch.cholesky_solve(errors, factor)
    for k in failed.nonzero()[:, 0].tolist():
        solved[k] = torch.linalg.solve(system[k], errors[k])
    return solved


def leave_group_out_dual(
    gram: Float[Tensor, "n n"],
    y: Float[Tensor, "n t"],
    groups: Int[Tensor, "n"],
    penalties: Sequence[float],
    *,
    bias: bool,
    factorisation: Factorisation = "eigen",
) -> Iterator[Float[Tensor, "n t"]]:
    """Predictions of every group by the fit without it, one table per penalty (inf: the mean of the others, or 0).

    `gram` is centred where the fit has a bias; `y` is not, and sets the dtype of the result. Where rounding leaves a
    Gram matrix that Cholesky cannot factorise, the eigendecomposition takes over.
    """
    index, _ = number_groups(groups)
    targets = y.to(torch.float64)
    mean = targets.mean(0) if bias else torch.zeros_like(targets[0])
    blocks = _CholeskyBlocks(gram, targets - mean, bias) if factorisation == "cholesky" else None
    fallback: _EigenBlocks | None = None
    for penalty in penalties:
        table = torch.empty_like(y)
        if math.isinf(penalty):
            yield table.copy_(mean_of_others(targets, mean, index, len(y), bias))
            continue
        source: _EigenBlocks | _CholeskyBlocks
        if blocks is not None and blocks.factorise(penalty):
            source = blocks
        else:
            blocks = None
            source = fallback = fallback or _EigenBlocks(decompose(gram), targets - mean, bias)
            source.penalty = penalty
        for rows in equal_size_batches(index, len(y)):
            table[rows] = (targets[rows] - solve_left_out(*source.of(rows))).to(y.dtype)
        yield table


class _EigenBlocks:
    """(lambda B_gg - 11'/n, lambda a_g) from one eigendecomposition."""

    def __init__(self, eigen: Eigen, centred: Float[Tensor, "n t"], bias: bool) -> None:
        self.eigen, self.rotated, self.penalty = eigen, eigen.vectors.mT @ centred, math.inf
        self.offset = 1.0 / len(centred) if bias else 0.0

    def of(self, rows: Int[Tensor, "g m"]) -> tuple[Float[Tensor, "g m m"], Float[Tensor, "g m t"]]:
        basis = self.eigen.vectors[rows]
        kept = basis * (1.0 / (self.eigen.values / self.penalty + 1.0))  # lambda / (value + lambda)
        return (kept @ basis.mT).sub_(self.offset), kept @ self.rotated


class _CholeskyBlocks:
    """The same from the inverse itself.

    Centring leaves K nothing along 1, where lambda B would be 1 and cancel against 11'/n. With c 11'/n added to K it is
    lambda / (lambda + c) there, the rest is as it was, and as much less than 11'/n is taken off.
    """

    def __init__(self, gram: Float[Tensor, "n n"], centred: Float[Tensor, "n t"], bias: bool) -> None:
        self.gram, self.centred, self.bias = gram, centred, bias
        self.level = float(gram.diagonal().mean()) if bias else 0.0
        self.inverse, self.dual, self.offset = gram[:0, :0], centred[:0], 0.0

    def factorise(self, penalty: float) -> bool:
        """Whether the Gram matrix with this penalty is positive definite."""
        self.inverse = self.gram[:0, :0]  # lets the one before go first
        penalised = self.gram + self.level / len(self.gram)
        penalised.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(penalised)
        del penalised
        if bool(failed):
            return False
        self.inverse = torch.cholesky_inverse(factor).mul_(penalty)
        self.dual = torch.cholesky_solve(self.centred, factor).mul_(penalty)
        self.offset = penalty / (penalty + self.level) / len(self.gram) if self.bias else 0.0
        return True

    def of(self, rows: Int[Tensor, "g m"]) -> tuple[Float[Tensor, "g m m"], Float[Tensor, "g m t"]]:
        return self.inverse[rows[:, :, None], rows[:, None, :]].sub_(self.offset), self.dual[rows]
