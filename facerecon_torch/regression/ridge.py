"""Multi-target ridge regression in closed form (Eq. 13), primal or dual.

Both forms solve  min |Y - X S W - 1b'|^2 + penalty |W|^2  for any column scales S from second moments computed once:
`DualProblem` from K = XX' (n samples), `PrimalProblem` from X'X (d features). The scales never touch X itself. Solves
are Cholesky factorisations in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.regression.moments import (
    Features,
    Moments,
    Rows,
    SampleGram,
    centre_,
    combine_blocks,
    gram_of_rows,
    moments_of_rows,
    resolve_blocks,
    tiles,
)
from facerecon_torch.runtime.memory import free_bytes
from facerecon_torch.runtime.precision import in_own_precision

__all__ = [
    "DualProblem",
    "FormName",
    "PenalisedFactor",
    "PrimalProblem",
    "Ridge",
    "RidgeProblem",
    "Solution",
    "choose_form",
    "fit_ridge",
    "make_problem",
    "require_targets",
]

FormName: TypeAlias = Literal["primal", "dual"]

FREE_SHARE = 0.8  # of the free memory, for the matrices of a fit; the rest is for chunks and for the caller
CONSTANT = 1e-10  # a feature block whose energy about its mean is a smaller fraction than this is constant
PANEL = 512  # columns of a factor that are rounded to the dtype of the rows at a time


@dataclass(frozen=True)
class Ridge:
    """An affine map y = x W + b, with the penalty and the closed form that it came from (inf: W = 0).

    Example:
        >>> ridge = fit_ridge(x, y, 0.5)
        >>> y_new = ridge(x_new)
    """

    weight: Float[Tensor, "d t"]
    bias: Float[Tensor, "t"]
    penalty: float
    form: FormName

    def __call__(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b t"]:
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return x.to(dtype) @ self.weight.to(dtype) + self.bias.to(dtype)

    def to(self, *args: Any, **kwargs: Any) -> "Ridge":
        """The same map after `Tensor.to` of its weight and bias."""
        return replace(self, weight=self.weight.to(*args, **kwargs), bias=self.bias.to(*args, **kwargs))


@in_own_precision
def fit_ridge(x: Features, y: Tensor, penalty: float | int, *, bias: bool = True, form: str = "auto") -> Ridge:
    """The minimiser of |Y - XW - 1b'|^2 + penalty |W|^2.

    Args:
        x: features [n, d], or a source of their row chunks; float64 features are multiplied in float64, all others in
            float32.
        y: targets [n, t].
        penalty: positive; inf leaves the mean.
        bias: fit b, free of penalty; otherwise b = 0.
        form: primal (d x d), dual (n x n), or auto: see `choose_form`.

    Returns:
        The ridge in the dtype of y.

    Raises:
        ValueError: unless penalty > 0, y is finite and there is one row of x for each row of y.

    Example:
        >>> ridge = fit_ridge(torch.randn(100, 20), torch.randn(100, 3), 0.5)
        >>> ridge.form
        'primal'
    """
    if not penalty > 0:  # this form refuses NaN too
        raise ValueError(f"penalty must be positive; got {penalty}")
    require_targets(x, y)
    rows = Rows.agree(x, len(y), bias=bias, device=y.device)
    problem = make_problem(rows, y, bias=bias, form=form)
    solution = problem.solve(torch.ones_like(problem.energies), float(penalty))
    return Ridge(solution.weight.to(y.dtype), solution.bias.to(y.dtype), float(penalty), problem.form)


def require_targets(x: Features, y: Tensor, *, may_be_empty: bool = False) -> None:
    """Raises ValueError unless y is a finite matrix with a row for each row of x."""
    require_shape("y", y, (None, None))
    require_finite("y", y)
    if not (len(y) or may_be_empty):
        raise ValueError(f"y must be a matrix with at least one row; got {tuple(y.shape)}")
    if isinstance(x, Tensor) and x.shape[0] != y.shape[0]:
        raise ValueError(f"x and y must have the same number of rows; got {x.shape[0]} and {y.shape[0]}")


def choose_form(
    n: int, d: int, form: str, *, blocks: int = 1, memory: int | None = None, device: torch.device | None = None
) -> FormName:
    """The form itself if it is primal or dual; for auto, dual where the n samples are fewer than the d features, unless
    that does not fit the memory and the primal form needs less.

    The dual form holds X in float32 and float64 matrices n x n: one for each block, their sum, its factor and the
    factor's inverse. The primal form holds X'X and its factor, 16 d^2 bytes.

    Args:
        n: samples.
        d: features.
        form: primal, dual or auto.
        blocks: number of feature blocks.
        memory: budget in bytes (None: 80 % of what is free on `device`).
        device: of the work (None: the CPU).

    Raises:
        ValueError: another form.

    Example:
        >>> choose_form(100, 8316, "auto")
        'dual'
    """
    if form not in ("auto", "primal", "dual"):
        raise ValueError(f"form must be auto, primal or dual; got {form!r}")
    if form == "primal" or (form == "auto" and n >= d):
        return "primal"
    if form == "dual":
        return "dual"
    budget = FREE_SHARE * free_bytes(device or torch.device("cpu")) if memory is None else memory
    dual, primal = 4 * n * d + 8 * n * n * (blocks + 3), 16 * d * d
    return "dual" if dual <= max(budget, primal) else "primal"


@dataclass(frozen=True)
class Solution:
    """Weight of the scaled features and bias, in float64; own in-sample predictions where they cost nothing."""

    weight: Float[Tensor, "d t"]
    bias: Float[Tensor, "t"]
    fitted: Float[Tensor, "n t"] | None


class _Problem:
    """Rows and targets of one fit, for any block scales and penalty. Subclasses add the moments of their form.

    `energies` are the sums of squares of each feature block, about the mean where there is a bias.
    """

    form: FormName
    energies: Float[Tensor, "b"]
    target_mean: Float[Tensor, "t"]

    def __init__(self, rows: Rows, y: Float[Tensor, "n t"], *, bias: bool, block_sizes: tuple[int, ...]) -> None:
        self.rows, self.y, self.bias, self.block_sizes, self.n = rows, y, bias, block_sizes, rows.n

    def _columns(self, scales: Float[Tensor, "b"]) -> Float[Tensor, "d"]:
        """The scale of every feature."""
        sizes = torch.tensor(self.block_sizes, device=scales.device)
        return scales.repeat_interleave(sizes, output_size=self.rows.d)


class DualProblem(_Problem):
    """W = S X'a with a = (K + penalty I)^-1 Y; X is read once for W. K, Y and a are those of all processes."""

    form = "dual"

    def __init__(
        self,
        rows: Rows,
        y: Float[Tensor, "n t"],
        gram: SampleGram | None = None,
        *,
        bias: bool,
        block_sizes: tuple[int, ...],
    ) -> None:
        super().__init__(rows, y, bias=bias, block_sizes=block_sizes)
        blocks = gram_of_rows(rows, block_sizes, bias=bias).blocks if gram is None else self._shared(gram)
        before = blocks.diagonal(dim1=1, dim2=2).sum(1)
        self.blocks = centre_(blocks) if bias else blocks
        after = self.blocks.diagonal(dim1=1, dim2=2).sum(1)
        # What centring leaves of a constant block is rounding, which a scale of 1/RMS would blow up.
        self.energies = torch.where(after <= CONSTANT * before, 0.0, after)
        targets = rows.ranks.gather(y).to(torch.float64)
        self.target_mean = targets.mean(0) if bias else torch.zeros_like(targets[0])
        self.residuals = targets - self.target_mean

    def _shared(self, gram: SampleGram) -> Float[Tensor, "b n n"]:
        """The blocks of a Gram matrix that other fits use too, in memory of their own where they will be centred."""
        if gram.block_sizes != self.block_sizes or gram.blocks.shape[1] != self.n:
            raise ValueError(
                f"gram must be of {self.n} samples in blocks {self.block_sizes}; "
                f"got {gram.blocks.shape[1]} in {gram.block_sizes}"
            )
        if gram.shifted and not self.bias:
            raise ValueError("a fit without bias needs a Gram matrix computed with bias=False; got bias=True")
        return gram.blocks.clone() if self.bias else gram.blocks

    def factorise(self, scales: Float[Tensor, "b"], penalty: float) -> tuple[Float[Tensor, "n n"] | None, float]:
        """(L, c) with LL' = K + penalty I + c 11'/n; None where that is not positive definite.

        Centring makes K singular along 1. Adding c 11'/n with c = the mean of its diagonal (0 without a bias) gives
        that direction a typical eigenvalue; the orthogonal complement is unchanged.
        """
        gram = combine_blocks(self.blocks, scales)
        level = float(gram.diagonal().mean()) if self.bias else 0.0
        gram.add_(level / self.n).diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(gram)
        return (None if bool(failed) else factor), level

    def solve(self, scales: Float[Tensor, "b"], penalty: float) -> Solution:
        """The ridge of features whose block b is multiplied by s_b."""
        if math.isinf(penalty):
            zero = self.residuals.new_zeros(self.rows.d, len(self.target_mean))
            return Solution(zero, self.target_mean, self.target_mean.expand(len(self.y), -1).clone())
        factor, _ = self.factorise(scales, penalty)
        if factor is None:
            raise _penalty_error(penalty)
        dual = torch.cholesky_solve(self.residuals, factor)
        weight, feature_mean = self._weight_of(dual[self.rows.own])
        columns = self._columns(scales)
        weight *= columns[:, None]
        fitted = (self.target_mean + self.residuals - penalty * dual)[self.rows.own]
        return Solution(weight, self.target_mean - (feature_mean * columns) @ weight, fitted)

    def _weight_of(self, dual: Float[Tensor, "own t"]) -> tuple[Float[Tensor, "d t"], Float[Tensor, "d"]]:
        """(X'a, mean of X) in one pass. With a bias 1'a = 0, so taking any constant off X leaves X'a as it is."""
        mean, ranks = self.rows.provisional_mean, self.rows.ranks
        factors = dual.to(mean.dtype)
        weight, total = dual.new_zeros(len(mean), dual.shape[1]), dual.new_zeros(len(mean))
        for part, chunk in self.rows.chunks():
            shifted = chunk.to(mean.dtype) - mean
            weight += shifted.mT @ factors[part]
            total += shifted.sum(0, dtype=torch.float64)
        weight, total = ranks.add_(weight), ranks.add_(total)
        return weight, mean + total / self.n if self.bias else torch.zeros_like(total)


class PenalisedFactor:
    """The upper triangular U with U'U = S G S + penalty I, in a [d, d] float64 buffer that serves one penalty after the
    other. G and the buffer are all that is held: LAPACK factorises in place."""

    def __init__(self, gram: Float[Tensor, "d d"]) -> None:
        self.gram = gram
        self.upper = torch.empty_like(gram, memory_format=torch.contiguous_format)
        self._of: tuple[Float[Tensor, "d"], float] | None = None

    def factorise(self, scales: Float[Tensor, "d"], penalty: float) -> bool:
        """Whether S G S + penalty I is positive definite; if so, `upper` is its factor."""
        if self._of is not None and self._of[1] == penalty and torch.equal(self._of[0], scales):
            return True
        torch.mul(self.gram, scales[:, None], out=self.upper).mul_(scales)
        self.upper.diagonal().add_(penalty)
        lower = self.upper.mT  # column-major, as LAPACK wants it: no copy is made
        _, failed = torch.linalg.cholesky_ex(lower, out=(lower, torch.zeros_like(scales[0], dtype=torch.int32)))
        self._of = None if bool(failed) else (scales, penalty)
        return self._of is not None

    def forward(self, right: Float[Tensor, "d t"]) -> Float[Tensor, "d t"]:
        """U'^-1 right."""
        solved: Tensor = torch.linalg.solve_triangular(self.upper.mT, right, upper=False)
        return solved

    def backward(self, right: Float[Tensor, "d t"]) -> Float[Tensor, "d t"]:
        """U^-1 right."""
        solved: Tensor = torch.linalg.solve_triangular(self.upper, right, upper=True)
        return solved

    def turn_(self, rows: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """rows U^-1, in place and in the dtype of `rows`; m d^2 operations, almost all in matrix products.

        In float32 entries are off by about sqrt(condition) 6e-8 of their size, where condition <= 1 + d / relative
        penalty is that of U'U: 1e-5 at d = 32,868 and relative penalty 1.
        """
        for columns in tiles(0, rows.shape[1], PANEL):
            part = rows[:, columns]
            if columns.start:
                above = self.upper[: columns.start, columns].to(rows.dtype)
                part.addmm_(rows[:, : columns.start], above, alpha=-1)
            corner = self.upper[columns, columns].to(rows.dtype)
            part.copy_(torch.linalg.solve_triangular(corner, part, upper=True, left=False))
        return rows


class PrimalProblem(_Problem):
    """W = (S X'X S + penalty I)^-1 S X'Y."""

    form = "primal"

    def __init__(
        self,
        rows: Rows,
        y: Float[Tensor, "n t"],
        moments: Moments | None = None,
        *,
        bias: bool,
        block_sizes: tuple[int, ...],
    ) -> None:
        super().__init__(rows, y, bias=bias, block_sizes=block_sizes)
        self.moments = moments_of_rows(rows, y, bias=bias) if moments is None else self._shared(moments)
        self.target_mean, self.factor = self.moments.target_mean, PenalisedFactor(self.moments.gram)
        after = self.moments.gram.diagonal()
        before = after + self.n * self.moments.feature_mean.square()
        kept = torch.where(after <= CONSTANT * before, 0.0, after)
        self.energies = torch.stack([block.sum() for block in torch.split(kept, list(block_sizes))])

    def _shared(self, moments: Moments) -> Moments:
        expected = (self.n, self.rows.d, self.y.shape[1], self.bias)
        got = (moments.count, *moments.cross.shape, moments.centred)
        if got != expected:
            raise ValueError(f"moments must be of (rows, features, targets, bias) {expected}; got {got}")
        return moments

    def turned_targets(self, scales: Float[Tensor, "b"], penalty: float) -> Float[Tensor, "d t"] | None:
        """U'^-1 S X'Y with the factor of these scales and penalty; None where there is none."""
        columns = self._columns(scales)
        if not self.factor.factorise(columns, penalty):
            return None
        return self.factor.forward(self.moments.cross * columns[:, None])

    def turn(self, chunk: Float[Tensor, "m d"], scales: Float[Tensor, "b"]) -> Float[Tensor, "m d"]:
        """(x - mean) S U^-1 for the rows of a chunk, in the dtype of products."""
        exact, dtype = self.moments.feature_mean, self.moments.dtype
        mean = exact.to(dtype)
        # What the mean loses in this dtype would be one and the same error in all rows.
        shifted = (chunk.to(dtype) - mean).sub_((exact - mean).to(dtype))
        return self.factor.turn_(shifted.mul_(self._columns(scales).to(dtype)))

    def solve(self, scales: Float[Tensor, "b"], penalty: float) -> Solution:
        """The ridge of features whose block b is multiplied by s_b."""
        weight = torch.zeros_like(self.moments.cross)
        if not math.isinf(penalty):
            turned = self.turned_targets(scales, penalty)
            if turned is None:
                raise _penalty_error(penalty)
            weight = self.factor.backward(turned)
        constant = self.target_mean - (self.moments.feature_mean * self._columns(scales)) @ weight
        return Solution(weight, constant, None)


def _penalty_error(penalty: float) -> ValueError:
    return ValueError(
        f"penalty must exceed the rounding error of the Gram matrix; got {penalty:.3g}: raise the (relative) penalty, "
        "or give float64 features"
    )


RidgeProblem: TypeAlias = DualProblem | PrimalProblem


def make_problem(
    rows: Rows,
    y: Float[Tensor, "n t"],
    *,
    bias: bool,
    form: str = "auto",
    block_sizes: Sequence[int] | None = None,
    memory: int | None = None,
    shared: SampleGram | Moments | None = None,
) -> RidgeProblem:
    """The problem in the form that `form`, the sizes and the memory ask for, or that of the moments given in `shared`.
    Raises ValueError where features are not finite, and where `shared` contradicts `form` or the sizes."""
    sizes = resolve_blocks(block_sizes, rows.d)
    name = choose_form(rows.n, rows.d, form, blocks=len(sizes), memory=memory, device=y.device)
    if shared is not None:
        name = "dual" if isinstance(shared, SampleGram) else "primal"
        if form not in ("auto", name):
            raise ValueError(f"a sample Gram matrix serves the dual form only, moments the primal; got form={form!r}")
    name = rows.ranks.share(name)  # processes may have different amounts of memory left
    problem: RidgeProblem
    if isinstance(shared, SampleGram) or (shared is None and name == "dual"):
        problem = DualProblem(rows, y, shared, bias=bias, block_sizes=sizes)
    else:
        problem = PrimalProblem(rows, y, shared, bias=bias, block_sizes=sizes)
    if not bool(torch.isfinite(problem.energies).all()):
        raise ValueError("features must be finite; got NaN or infinity")
    return problem
