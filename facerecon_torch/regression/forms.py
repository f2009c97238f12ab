"""The two closed forms of one ridge problem, behind the same three questions.

Both solve  min |Y - X S W - 1b'|^2 + lambda |W|^2  for any column scales S from moments computed once:
`DualForm` from K = XX' (n samples), `PrimalForm` from X'X (d features). The scales never touch X itself. Of several
processes each brings rows of its own, and gets its own rows of predictions and the weights of all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.gram import (
    Moments,
    SampleGram,
    centre_in_place,
    combine_blocks,
    compute_moments,
    compute_sample_gram,
    resolve_blocks,
)
from facerecon_torch.regression.layout import lay_out, shifted_chunks
from facerecon_torch.regression.plan import FormName, choose_factorisation, choose_form
from facerecon_torch.regression.row_pass import leave_group_out_primal
from facerecon_torch.regression.selection import Factorisation, leave_group_out_dual
from facerecon_torch.regression.streaming import Features
from facerecon_torch.regression.triangle import Eigen
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["DualForm", "FormName", "PrimalForm", "Problem", "RidgeForm", "Solution", "choose_form", "make_form"]

CONSTANT = 1e-10  # a feature block whose energy about its mean is a smaller share than this is constant


@dataclass(frozen=True)
class Problem:
    """Rows and targets of this process, and what both forms have to know of them."""

    features: Features
    y: Float[Tensor, "n t"]
    bias: bool
    block_sizes: tuple[int, ...]
    product_dtype: torch.dtype | None
    factorisation: Factorisation
    ranks: Ranks


@dataclass(frozen=True)
class Solution:
    """Weight of the scaled features and bias, float64; the in-sample predictions where they come for nothing."""

    weight: Float[Tensor, "d t"]
    bias: Float[Tensor, "t"]
    fitted: Float[Tensor, "n t"] | None


def _spread(scales: Float[Tensor, "b"], sizes: tuple[int, ...]) -> Float[Tensor, "d"]:
    return scales.repeat_interleave(torch.tensor(sizes, device=scales.device), output_size=sum(sizes))


def _refuse(penalty: float) -> ValueError:
    return ValueError(
        f"penalty must exceed the rounding error of the Gram matrix; got {penalty:.3g}: raise it (or rho), or "
        "multiply with product_dtype=torch.float64"
    )


class DualForm:
    """W = S X' a with a = (K + lambda I)^-1 Y; X is read once for W. K, Y and a are those of all processes."""

    name: FormName = "dual"
    walks = False  # a penalty more costs no pass over the rows: all are tried

    def __init__(self, problem: Problem, gram: SampleGram | None) -> None:
        self.problem, self.block_sizes = problem, problem.block_sizes
        self.layout = lay_out(
            problem.features, len(problem.y), shift=problem.bias, device=problem.y.device,
            product_dtype=problem.product_dtype, ranks=problem.ranks,
        )  # fmt: skip
        self.targets = problem.ranks.gather(problem.y)
        self.n = len(self.targets)
        own = gram or compute_sample_gram(
            problem.features, len(problem.y), block_sizes=problem.block_sizes, shift=problem.bias,
            product_dtype=problem.product_dtype, device=problem.y.device, ranks=problem.ranks,
        )  # fmt: skip
        if own.block_sizes != problem.block_sizes or own.blocks.shape[1] != self.n:
            raise ValueError(
                f"gram must be of {self.n} samples in blocks {problem.block_sizes}; "
                f"got {own.blocks.shape[1]} in {own.block_sizes}"
            )
        before = own.blocks.diagonal(dim1=1, dim2=2).sum(1)
        self.blocks = centre_in_place(own.blocks) if gram is None and problem.bias else own.centred(problem.bias)
        after = self.blocks.diagonal(dim1=1, dim2=2).sum(1)
        # What centring leaves of a constant block is rounding, which a scale of 1/RMS would blow up.
        self.energies = torch.where(after <= CONSTANT * before, 0.0, after)

    def leave_group_out(
        self, scales: Float[Tensor, "b"], penalties: Sequence[float], groups: Int[Tensor, "n"]
    ) -> Iterator[Float[Tensor, "n t"] | None]:
        """The own rows of the predictions, one table per penalty."""
        tables = leave_group_out_dual(
            combine_blocks(self.blocks, scales),
            self.targets,
            self.problem.ranks.gather(groups),
            penalties,
            bias=self.problem.bias,
            factorisation=self.problem.factorisation,
        )
        return (table[self.layout.own] for table in tables)

    def solve(self, scales: Float[Tensor, "b"], penalty: float) -> Solution:
        targets = self.targets.to(torch.float64)
        mean = targets.mean(0) if self.problem.bias else torch.zeros_like(targets[0])
        if math.isinf(penalty):
            zero = targets.new_zeros(sum(self.block_sizes), len(mean))
            return Solution(zero, mean, mean.expand(len(self.problem.y), -1).clone())
        gram = combine_blocks(self.blocks, scales)
        gram.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if bool(failed):
            raise _refuse(penalty)
        dual = torch.cholesky_solve(targets - mean, factor)
        weight, feature_mean = self._read_weight(dual[self.layout.own])
        columns = _spread(scales, self.block_sizes)
        weight *= columns[:, None]
        fitted = (targets - penalty * dual)[self.layout.own]
        return Solution(weight, mean - (feature_mean * columns) @ weight, fitted)

    def _read_weight(self, dual: Float[Tensor, "own t"]) -> tuple[Float[Tensor, "d t"], Float[Tensor, "d"]]:
        """(X'a, mean of X) in one pass. With a bias 1'a = 0, so taking any constant off X leaves X'a as it is."""
        mean = self.layout.mean
        factors = dual.to(mean.dtype)
        weight = dual.new_zeros(len(mean), dual.shape[1])
        total = dual.new_zeros(len(mean))
        for rows, chunk in shifted_chunks(self.problem.features, self.layout):
            weight += chunk.mT @ factors[rows]
            total += chunk.sum(0, dtype=torch.float64)
        weight, total = self.problem.ranks.add_(weight), self.problem.ranks.add_(total)
        return weight, mean + total / self.n if self.problem.bias else torch.zeros_like(total)


class PrimalForm:
    """W = (S X'X S + lambda I)^-1 S X'Y."""

    name: FormName = "primal"

    def __init__(self, problem: Problem, moments: Moments | None) -> None:
        self.problem, self.block_sizes = problem, problem.block_sizes
        self.walks = problem.factorisation == "cholesky"  # each penalty is a pass over the rows
        if moments is None:
            moments = compute_moments(
                problem.features, problem.y, bias=problem.bias, product_dtype=problem.product_dtype,
                ranks=problem.ranks,
            )  # fmt: skip
        else:
            self._require_same(moments)
        self.moments, self.n = moments, moments.count
        after = moments.gram.diagonal
        before = after + moments.count * moments.feature_mean.square()
        kept = torch.where(after <= CONSTANT * before, 0.0, after)
        self.energies = torch.stack([block.sum() for block in torch.split(kept, list(problem.block_sizes))])
        self._eigen: tuple[Float[Tensor, "d"], Eigen] | None = None

    def _require_same(self, moments: Moments) -> None:
        problem = self.problem
        rows = int(problem.ranks.add_(torch.tensor(len(problem.y), device=problem.y.device)))
        wanted = (rows, sum(problem.block_sizes), problem.y.shape[1], problem.bias)
        got = (moments.count, *moments.cross.shape, moments.centred)
        if got != wanted:
            raise ValueError(f"moments must be of (rows, features, targets, bias) {wanted}; got {got}")

    def leave_group_out(
        self, scales: Float[Tensor, "b"], penalties: Sequence[float], groups: Int[Tensor, "n"]
    ) -> Iterator[Float[Tensor, "n t"] | None]:
        """The predictions of the own rows, one table per penalty; None where Cholesky cannot factorise."""
        columns = _spread(scales, self.block_sizes)
        self._eigen = None  # lets the one before go first
        eigen = None
        if not self.walks and any(math.isfinite(penalty) for penalty in penalties):
            eigen = self.moments.gram.eigen(columns)
            self._eigen = columns, eigen
        return leave_group_out_primal(
            self.problem.features, self.moments, self.problem.y, groups, penalties, scales=columns,
            factorisation=self.problem.factorisation, eigen=eigen, ranks=self.problem.ranks,
        )  # fmt: skip

    def solve(self, scales: Float[Tensor, "b"], penalty: float) -> Solution:
        columns, mean = _spread(scales, self.block_sizes), self.moments.target_mean
        weight = torch.zeros_like(self.moments.cross)
        if not math.isinf(penalty):
            weight = self._solve(columns, penalty)
        return Solution(weight, mean - (self.moments.feature_mean * columns) @ weight, None)

    def _solve(self, columns: Float[Tensor, "d"], penalty: float) -> Float[Tensor, "d t"]:
        right = self.moments.cross * columns[:, None]
        if self._eigen is not None and torch.equal(self._eigen[0], columns):
            eigen = self._eigen[1]
            if eigen.lowest + penalty <= 0:
                raise _refuse(penalty)
            return eigen.vectors @ ((eigen.vectors.mT @ right) / (eigen.values + penalty)[:, None])
        self._eigen = None
        gram = self.moments.gram
        if not gram.factorise(columns, penalty):
            raise _refuse(penalty)
        return gram.backward(gram.forward(right))


# One ridge problem, its moments computed, open to any block scales and penalty. `n` counts the samples of all
# processes; `energies` holds the sum of squares of each feature block, about the mean where there is a bias.
RidgeForm: TypeAlias = DualForm | PrimalForm


def make_form(
    features: Features,
    y: Float[Tensor, "n t"],
    *,
    bias: bool,
    form: Literal["auto", "primal", "dual"] = "auto",
    factorisation: Literal["auto"] | Factorisation = "auto",
    block_sizes: Sequence[int] | None = None,
    product_dtype: torch.dtype | None = None,
    penalties: int = 1,
    memory: int | None = None,
    first: SampleGram | Moments | None = None,
    ranks: Ranks = SINGLE,
) -> RidgeForm:
    """The form that `form`, the shape and the memory ask for; a Gram matrix (dual) or moments (primal) given in `first`
    decide it."""
    layout = lay_out(features, len(y), shift=False, device=y.device, ranks=ranks)
    n, d = layout.n, len(layout.mean)
    sizes = resolve_blocks(block_sizes, d)
    name = choose_form(n, d, form, blocks=len(sizes), memory=memory, device=y.device)
    if first is not None:
        name = "dual" if isinstance(first, SampleGram) else "primal"
        if form not in ("auto", name):
            raise ValueError(f"a sample Gram matrix serves the dual form only, moments the primal; got form={form!r}")
    chosen = factorisation
    if chosen == "auto":
        chosen = choose_factorisation(name, n, d, penalties, device=y.device, memory=memory)
    name, chosen = ranks.share((name, chosen))  # processes may have different amounts of memory left
    problem = Problem(features, y, bias, sizes, product_dtype, chosen, ranks)
    made: RidgeForm
    if isinstance(first, SampleGram) or (first is None and name == "dual"):
        made = DualForm(problem, first)
    else:
        made = PrimalForm(problem, first)
    if not bool(torch.isfinite(made.energies).all()):
        raise ValueError("features must be finite; got NaN or infinity")
    return made
