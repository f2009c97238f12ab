"""Leave-one-group-out predictions of the primal form: passes over the rows with the Gram matrix factorised.

See `selection` for the equations.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.gram import Moments
from facerecon_torch.regression.selection import (
    Factorisation,
    equal_size_batches,
    mean_of_others,
    number_groups,
    solve_left_out,
)
from facerecon_torch.regression.streaming import Features, chunk_rows, group_chunks
from facerecon_torch.regression.triangle import Eigen, tiles
from facerecon_torch.runtime.memory import halve_on_out_of_memory
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["leave_group_out_primal", "left_out_residuals"]

TABLE_BYTES = 2**28  # of predictions held at a time: more candidates than this takes need another pass
PASS_ROWS = 2048  # at least, where rows are wide: the factor is rounded to their dtype once for so many rows
STRIP = 128  # rows of A A' at a time: of a large group hardly more than the lower triangle is computed


def leave_group_out_primal(
    features: Features,
    moments: Moments,
    y: Float[Tensor, "n t"],
    groups: Int[Tensor, "n"],
    penalties: Sequence[float],
    *,
    scales: Float[Tensor, "d"],
    factorisation: Factorisation = "eigen",
    eigen: Eigen | None = None,
    ranks: Ranks = SINGLE,
) -> Iterator[Float[Tensor, "n t"] | None]:
    """As `leave_group_out_dual`, from X'X, for the fit that `moments` were taken for; the rows of the features
    multiplied by `scales` are read once more, or once for each penalty. None where Cholesky cannot factorise.

    Rows, targets and groups are the own ones of a process. `eigen` saves the decomposition of the scaled Gram matrix.
    """
    index, counts = number_groups(groups, ranks)
    rows = _RowPass(features, moments, y, index, counts)
    finite = [penalty for penalty in penalties if not math.isinf(penalty)]
    tables: Iterator[Tensor | None] = _by_eigen(rows, scales, finite, eigen)
    if factorisation == "cholesky":
        tables = _by_cholesky(rows, scales, finite)
    for penalty in penalties:
        yield rows.without_features() if math.isinf(penalty) else next(tables)


@dataclass(frozen=True)
class _Candidate:
    """One penalty in the basis that rows are turned to: A = turned * root, in-sample predictions A @ right."""

    root: Float[Tensor, "k"] | None
    right: Float[Tensor, "k t"]


def _by_eigen(
    rows: "_RowPass", scales: Float[Tensor, "d"], penalties: Sequence[float], eigen: Eigen | None
) -> Iterator[Float[Tensor, "n t"]]:
    """As many penalties in one pass as there is room to hold predictions of."""
    if not penalties:
        return
    eigen = rows.moments.gram.eigen(scales) if eigen is None else eigen
    basis = torch.empty_like(eigen.vectors, dtype=rows.dtype, memory_format=torch.contiguous_format)
    for part in tiles(len(scales), PASS_ROWS):
        basis[part] = scales[part, None] * eigen.vectors[part]
    rotated = eigen.vectors.mT @ (rows.moments.cross * scales[:, None])
    size = max(TABLE_BYTES // max(rows.y.numel() * rows.y.element_size(), 1), 1)
    for start in range(0, len(penalties), size):
        roots = [(eigen.values + penalty).rsqrt() for penalty in penalties[start : start + size]]
        candidates = [_Candidate(root.to(rows.dtype), (root[:, None] * rotated).to(rows.dtype)) for root in roots]
        yield from rows.tables(lambda chunk: chunk @ basis, candidates)


def _by_cholesky(
    rows: "_RowPass", scales: Float[Tensor, "d"], penalties: Sequence[float]
) -> Iterator[Float[Tensor, "n t"] | None]:
    """One factor and one pass for each penalty."""
    gram, narrow = rows.moments.gram, scales.to(rows.dtype)
    for penalty in penalties:
        if not gram.factorise(scales, penalty):
            yield None
            continue
        right = gram.forward(rows.moments.cross * scales[:, None]).to(rows.dtype)
        yield from rows.tables(lambda chunk: gram.turn_(chunk.mul_(narrow)), [_Candidate(None, right)])


class _RowPass:
    """What all passes over the rows have in common."""

    def __init__(
        self,
        features: Features,
        moments: Moments,
        y: Float[Tensor, "n t"],
        index: Int[Tensor, "n"],
        counts: Int[Tensor, "groups"],
    ) -> None:
        self.features, self.moments, self.y, self.index, self.counts = features, moments, y, index, counts
        self.dtype = moments.dtype
        self.share = 1.0 / moments.count if moments.centred else 0.0

    def without_features(self) -> Float[Tensor, "n t"]:
        """The predictions of an infinite penalty."""
        moments, targets = self.moments, self.y.to(torch.float64)
        others = mean_of_others(targets, moments.target_mean, self.index, moments.count, moments.centred)
        return others.to(self.y.dtype)

    def tables(
        self, turn: Callable[[Tensor], Tensor], candidates: Sequence[_Candidate]
    ) -> Float[Tensor, "candidates n t"]:
        """The predictions of all candidates in one pass. `turn` takes rows about the mean, which it may overwrite, to
        the basis of the candidates."""
        mean = self.moments.feature_mean.to(self.dtype)
        # What the mean loses in the dtype of the rows would be one and the same error in all of them.
        rest = turn((self.moments.feature_mean - mean).to(self.dtype)[None])
        found = self.y.new_empty(len(candidates), *self.y.shape)
        size = max(chunk_rows(len(mean), mean.device), PASS_ROWS)
        done = 0
        for samples, chunk in group_chunks(self.features, self.index, self.counts, size):
            turned = _in_parts(partial(_turned, chunk, mean, turn), len(chunk)).sub_(rest)
            for members in equal_size_batches(self.index[samples], turned.shape[1]):
                work = partial(self._leave_out, turned, samples, members, candidates, found)
                halve_on_out_of_memory(work, range(len(members)), len(members))
            done += len(samples)
        if done != len(self.y):
            raise ValueError(f"features must yield {len(self.y)} rows, one per target, on every pass; got {done}")
        return found

    def _leave_out(
        self,
        turned: Float[Tensor, "m k"],
        samples: Int[Tensor, "m"],
        members: Int[Tensor, "g size"],
        candidates: Sequence[_Candidate],
        found: Float[Tensor, "candidates n t"],
        part: slice,
    ) -> None:
        basis, own = turned[members[part]], samples[members[part]]
        half = torch.empty_like(basis)
        truth = self.y[own].to(torch.float64)
        for candidate, table in zip(candidates, found, strict=True):
            scaled = basis if candidate.root is None else torch.mul(basis, candidate.root, out=half)
            errors = truth - self.moments.target_mean - (scaled @ candidate.right).to(torch.float64)
            table[own] = (truth - left_out_residuals(scaled, errors, self.share)).to(table.dtype)


def _turned(chunk: Tensor, mean: Tensor, turn: Callable[[Tensor], Tensor], part: slice) -> Tensor:
    return turn(chunk[part].to(mean.dtype) - mean)


def _in_parts(work: Callable[[slice], Tensor], n: int) -> Tensor:
    parts = halve_on_out_of_memory(work, range(n), n)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def left_out_residuals(
    half: Float[Tensor, "g m k"], errors: Float[Tensor, "g m t"], share: float
) -> Float[Tensor, "g m t"]:
    """(I - A A' - share 11')^-1 e in float64, by way of the smaller of A A' and A'A."""
    if half.shape[1] > half.shape[2] + 1:
        half = half.to(torch.float64)
        wide = torch.cat([half, half.new_full((*half.shape[:2], 1), math.sqrt(share))], 2)
        inner = torch.eye(wide.shape[2], dtype=wide.dtype, device=wide.device) - wide.mT @ wide
        return errors + wide @ solve_left_out(inner, wide.mT @ errors)
    system = _products_of_rows(half).neg_().sub_(share)
    system.diagonal(dim1=1, dim2=2).add_(1.0)
    return solve_left_out(system, errors)


def _products_of_rows(half: Float[Tensor, "g m k"]) -> Float[Tensor, "g m m"]:
    """A A' in float64, multiplied in the dtype of A."""
    size = half.shape[1]
    if size <= 2 * STRIP:
        return (half @ half.mT).to(torch.float64)
    lower = half.new_zeros(half.shape[0], size, size, dtype=torch.float64)
    for rows in tiles(size, STRIP):
        lower[:, rows, : rows.stop] = half[:, rows] @ half[:, : rows.stop].mT
    return lower.tril_() + lower.tril(-1).mT
