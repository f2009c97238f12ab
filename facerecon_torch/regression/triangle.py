"""A symmetric matrix in one triangle of a square, and what is made of it in the other.

The matrix stands below the diagonal, its diagonal aside; on and above the diagonal is room for the triangular factor of
the scaled and penalised matrix, or for its eigendecomposition to start from. Nothing needs a second [d, d] matrix, and
the next penalty finds the matrix as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Eigen", "Triangle", "decompose", "tiles"]

TILE = 1024


def tiles(width: int, size: int) -> Iterator[slice]:
    """0:size, size:2 size, ... up to `width`."""
    for start in range(0, width, size):
        yield slice(start, min(start + size, width))


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues and eigenvectors of a Gram matrix; values at the level of rounding are those of directions without
    any spread, and 0. `lowest` is the least value as it was found."""

    values: Float[Tensor, "m"]
    vectors: Float[Tensor, "m m"]
    lowest: float


def decompose(matrix: Float[Tensor, "m m"]) -> Eigen:
    """The eigendecomposition of what is on and above the diagonal."""
    values, vectors = torch.linalg.eigh(matrix, UPLO="U")
    noise = torch.finfo(values.dtype).eps * len(values) * values[-1]
    return Eigen(torch.where(values > noise, values, 0.0), vectors, float(values[0]))


@dataclass
class Triangle:
    """The symmetric float64 matrix whose lower triangle and diagonal are those of `room`, which it takes over."""

    room: Float[Tensor, "d d"]
    diagonal: Float[Tensor, "d"] = field(init=False)
    _factor: tuple[Float[Tensor, "d"], float] | None = field(init=False, default=None)  # what `room` has a factor of

    def __post_init__(self) -> None:
        self.diagonal = self.room.diagonal().clone()

    def full(self) -> Float[Tensor, "d d"]:
        """The whole matrix, in memory of its own."""
        lower = self.room.tril(-1)
        return lower.add_(lower.mT.clone()).diagonal_scatter(self.diagonal)

    def _scaled_rows(self, rows: slice, scales: Float[Tensor, "d"]) -> Float[Tensor, "b right"]:
        """Rows of S G S from the diagonal on, in memory of their own."""
        panel = self.room[rows.start :, rows].mT.clone(memory_format=torch.contiguous_format)
        size = panel.shape[0]
        corner = panel[:, :size].triu(1)
        panel[:, :size] = corner + corner.mT + torch.diag(self.diagonal[rows])
        return panel.mul_(scales[rows, None]).mul_(scales[rows.start :])

    def eigen(self, scales: Float[Tensor, "d"]) -> Eigen:
        """The eigendecomposition of S G S."""
        self._factor = None
        for rows in tiles(len(scales), TILE):
            size, panel = rows.stop - rows.start, self._scaled_rows(rows, scales)
            corner = self.room[rows, rows].tril(-1)
            self.room[rows, rows.start :] = panel
            self.room[rows, rows] = corner + panel[:, :size].triu()
        return decompose(self.room)

    def factorise(self, scales: Float[Tensor, "d"], penalty: float) -> bool:
        """U above the diagonal with U'U = S G S + penalty I; False where that is not positive definite.

        One row of blocks after the other, each less the products of all rows above it: d^3 / 3 operations, almost all
        of them in matrix products. What was factorised last is not factorised again.
        """
        if self._factor is not None and self._factor[1] == penalty and torch.equal(self._factor[0], scales):
            return True
        self._factor = None
        for rows in tiles(len(scales), TILE):
            size, panel = rows.stop - rows.start, self._scaled_rows(rows, scales)
            panel.addmm_(self.room[: rows.start, rows].mT, self.room[: rows.start, rows.start :], alpha=-1)
            corner, rest = panel[:, :size], panel[:, size:]
            corner.diagonal().add_(penalty)
            factor, failed = torch.linalg.cholesky_ex(corner)
            if bool(failed):
                return False
            self.room[rows, rows] = self.room[rows, rows].tril(-1) + factor.mT
            self.room[rows, rows.stop :] = torch.linalg.solve_triangular(factor, rest, upper=False)
        self._factor = (scales, penalty)
        return True

    def forward(self, right: Float[Tensor, "d t"]) -> Float[Tensor, "d t"]:
        """U'^-1 right."""
        solved: Tensor = torch.linalg.solve_triangular(self.room.mT, right, upper=False)
        return solved

    def backward(self, right: Float[Tensor, "d t"]) -> Float[Tensor, "d t"]:
        """U^-1 right."""
        solved: Tensor = torch.linalg.solve_triangular(self.room, right, upper=True)
        return solved

    def turn_(self, rows: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """rows <- rows U^-1, in place and in the dtype of `rows`; m d^2 operations, almost all in matrix products."""
        for columns in tiles(rows.shape[1], TILE):
            part = rows[:, columns]
            if columns.start:
                above = self.room[: columns.start, columns].to(rows.dtype)
                part.addmm_(rows[:, : columns.start], above, alpha=-1)
            factor = self.room[columns, columns].to(rows.dtype)
            part.copy_(torch.linalg.solve_triangular(factor, part, upper=True, left=False))
        return rows
