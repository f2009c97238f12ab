"""The two closed forms of one ridge problem, behind the same three questions.

Both solve  min |Y - X S W - 1b'|^2 + lambda |W|^2  for any column scales S from moments computed once:
`DualForm` from K = XX' (n samples), `PrimalForm` from X'X (d features). The scales never touch X itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.gram import (
    SampleGram,
    centre_in_place,
    combine_blocks,
    compute_moments,
    compute_sample_gram,
    provisional_mean,
    resolve_blocks,
    shifted_chunks,
)
from facerecon_torch.regression.selection import leave_group_out_dual, leave_group_out_primal
from facerecon_torch.regression.streaming import Features, peek_rows, product_dtype_of

__all__ = ["DualForm", "FormName", "PrimalForm", "RidgeForm", "Solution", "choose_form", "make_form"]

FormName = Literal["primal", "dual"]
CONSTANT = 1e-10  # a feature block whose energy about its mean is a smaller share than this is constant


@dataclass(frozen=True)
class Solution:
    """Weight of the scaled features and bias, float64; the in-sample predictions where they come for nothing."""

    weight: Float[Tensor, "d t"]
    bias: Float[Tensor, "t"]
    fitted: Float[Tensor, "n t"] | None


def _spread(scales: Float[Tensor, "b"], sizes: tuple[int, ...]) -> Float[Tensor, "d"]:
    return scales.repeat_interleave(torch.tensor(sizes, device=scales.device), output_size=sum(sizes))


def _solve_penalised(gram: Float[Tensor, "m m"], right: Float[Tensor, "m t"], penalty: float) -> Float[Tensor, "m t"]:
    """(gram + penalty I)^-1 right; `gram` is overwritten."""
    gram.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if bool(failed):
        raise ValueError(
            f"penalty must exceed the rounding error of the Gram matrix; got {penalty:.3g}: raise it (or rho), or "
            "multiply with product_dtype=torch.float64"
        )
    return torch.cholesky_solve(right, factor)


class DualForm:
    """W = S X' a with a = (K + lambda I)^-1 Y; X is read once for W."""

    name: FormName = "dual"

    def __init__(
        self,
        features: Features,
        y: Float[Tensor, "n t"],
        gram: SampleGram | None,
        *,
        bias: bool,
        block_sizes: tuple[int, ...],
        product_dtype: torch.dtype | None,
    ) -> None:
        self.features, self.y, self.bias, self.block_sizes = features, y, bias, block_sizes
        self.product_dtype = product_dtype
        own = gram or compute_sample_gram(
            features, len(y), block_sizes=block_sizes, shift=bias, product_dtype=product_dtype
        )
        if own.block_sizes != block_sizes or own.blocks.shape[1] != len(y):
            raise ValueError(
                f"gram must be of {len(y)} samples in blocks {block_sizes}; "
                f"got {own.blocks.shape[1]} in {own.block_sizes}"
            )
        before = own.blocks.diagonal(dim1=1, dim2=2).sum(1)
        self.blocks = centre_in_place(own.blocks) if gram is None and bias else own.centred(bias)
        after = self.blocks.diagonal(dim1=1, dim2=2).sum(1)
        # What centring leaves of a constant block is rounding, which a scale of 1/RMS would blow up.
        self.energies = torch.where(after <= CONSTANT * before, 0.0, after)

    def leave_group_out(
        self, scales: Float[Tensor, "b"], penalties: Sequence[float], groups: Int[Tensor, "n"]
    ) -> Float[Tensor, "p n t"]:
        combined = combine_blocks(self.blocks, scales)
        return leave_group_out_dual(combined, self.y, groups, penalties, bias=self.bias)

    def solve(self, scales: Float[Tensor, "b"], penalty: float) -> Solution:
        targets = self.y.to(torch.float64)
        mean = targets.mean(0) if self.bias else torch.zeros_like(targets[0])
        if math.isinf(penalty):
            zero = targets.new_zeros(sum(self.block_sizes), len(mean))
            return Solution(zero, mean, mean.expand_as(targets).clone())
        dual = _solve_penalised(combine_blocks(self.blocks, scales), targets - mean, penalty)
        weight, feature_mean = self._read_weight(dual)
        columns = _spread(scales, self.block_sizes)
        weight *= columns[:, None]
        return Solution(weight, mean - (feature_mean * columns) @ weight, targets - penalty * dual)

    def _read_weight(self, dual: Float[Tensor, "n t"]) -> tuple[Float[Tensor, "d t"], Float[Tensor, "d"]]:
        """(X'a, mean of X) in one pass. With a bias 1'a = 0, so taking any constant off X leaves X'a as it is."""
        first = peek_rows(self.features)
        dtype = product_dtype_of(first.dtype, self.product_dtype)
        mean = provisional_mean(first, dtype, shift=self.bias)
        factors = dual.to(dtype)
        weight = dual.new_zeros(len(mean), dual.shape[1])
        total = dual.new_zeros(len(mean))
        for rows, chunk in shifted_chunks(self.features, mean, len(dual)):
            weight += chunk.mT @ factors[rows]
            total += chunk.sum(0, dtype=torch.float64)
        return weight, mean + total / len(dual) if self.bias else torch.zeros_like(total)


class PrimalForm:
    """W = (S X'X S + lambda I)^-1 S X'Y."""

    name: FormName = "primal"

    def __init__(
        self,
        features: Features,
        y: Float[Tensor, "n t"],
        *,
        bias: bool,
        block_sizes: tuple[int, ...],
        product_dtype: torch.dtype | None,
    ) -> None:
        self.features, self.y, self.bias, self.block_sizes = features, y, bias, block_sizes
        self.moments = compute_moments(features, y, bias=bias, product_dtype=product_dtype)
        after = self.moments.gram.diagonal()
        before = after + len(y) * self.moments.feature_mean.square()
        kept = torch.where(after <= CONSTANT * before, 0.0, after)
        self.energies = torch.stack([block.sum() for block in torch.split(kept, list(block_sizes))])

    def leave_group_out(
        self, scales: Float[Tensor, "b"], penalties: Sequence[float], groups: Int[Tensor, "n"]
    ) -> Float[Tensor, "p n t"]:
        columns = _spread(scales, self.block_sizes)
        return leave_group_out_primal(
            self.features, self.moments, self.y, groups, penalties, scales=columns, bias=self.bias
        )

    def solve(self, scales: Float[Tensor, "b"], penalty: float) -> Solution:
        columns, mean = _spread(scales, self.block_sizes), self.moments.target_mean
        weight = torch.zeros_like(self.moments.cross)
        if not math.isinf(penalty):
            system = self.moments.gram * columns[:, None] * columns
            weight = _solve_penalised(system, self.moments.cross * columns[:, None], penalty)
        return Solution(weight, mean - (self.moments.feature_mean * columns) @ weight, None)


# One ridge problem, its moments computed, open to any block scales and penalty. `energies` holds the sum of squares of
# each feature block, about the mean where there is a bias.
RidgeForm: TypeAlias = DualForm | PrimalForm


def choose_form(n: int, d: int, form: Literal["auto", "primal", "dual"]) -> FormName:
    """The smaller system: dual where n < d."""
    if form not in ("auto", "primal", "dual"):
        raise ValueError(f"form must be auto, primal or dual; got {form!r}")
    if form == "auto":
        return "dual" if n < d else "primal"
    return form


def make_form(
    features: Features,
    y: Float[Tensor, "n t"],
    *,
    bias: bool,
    form: Literal["auto", "primal", "dual"] = "auto",
    block_sizes: Sequence[int] | None = None,
    product_dtype: torch.dtype | None = None,
    gram: SampleGram | None = None,
) -> RidgeForm:
    """The form that `form` and the shape ask for; a `gram` given makes it the dual one."""
    sizes = resolve_blocks(block_sizes, peek_rows(features).shape[1])
    problem: RidgeForm
    if gram is None and choose_form(len(y), sum(sizes), form) == "primal":
        problem = PrimalForm(features, y, bias=bias, block_sizes=sizes, product_dtype=product_dtype)
    elif form == "primal":
        raise ValueError("a sample Gram matrix serves the dual form only; got form='primal'")
    else:
        problem = DualForm(features, y, gram, bias=bias, block_sizes=sizes, product_dtype=product_dtype)
    if not bool(torch.isfinite(problem.energies).all()):
        raise ValueError("features must be finite; got NaN or infinity")
    return problem
