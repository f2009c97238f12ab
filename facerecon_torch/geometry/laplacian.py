"""The cotangent Laplacian of a mesh, as a sparse matrix that a batch of fields on it shares.

With C the cotangent Laplacian and M the areas of the vertices, B = M^(-1/2) C makes |B x|^2 the bending
energy of a field x: the integral over the surface of its squared Laplacian.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["Laplacian", "SparseRows", "cotangent_laplacian", "laplacian_of_weights"]

_STEEPEST = 20.0  # cotangent of the smallest angle that counts, about 3 degrees: slivers do not take over
_SMALLEST = 1e-2  # share of the median area below which no vertex is taken to lie


@dataclass(frozen=True)
class SparseRows:
    """Row r holds `values[starts[r] : starts[r + 1]]` in the columns `columns[...]` of the same range."""

    columns: Int[Tensor, "entries"]
    values: Float[Tensor, "entries"]
    starts: Int[Tensor, "rows_and_end"]

    @classmethod
    def from_scipy(cls, matrix: sparse.spmatrix, dtype: torch.dtype = torch.float64) -> "SparseRows":
        """A copy of a SciPy matrix, on the CPU."""
        rows = sparse.csr_matrix(matrix)
        rows.sum_duplicates()
        columns, starts = (torch.from_numpy(a.astype(np.int64)) for a in (rows.indices, rows.indptr))
        return cls(columns, torch.from_numpy(rows.data.astype(np.float64)).to(dtype), starts)

    def __matmul__(self, field: Float[Tensor, "n c"]) -> Float[Tensor, "rows c"]:
        # torch's weighted sum over looked-up rows is a sparse product, several times faster than torch.sparse's.
        answer: Tensor = embedding_bag(
            self.columns, field, self.starts, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )
        return answer

    def squared(self) -> "SparseRows":
        """The matrix of squared entries."""
        return replace(self, values=self.values.square())

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "SparseRows":
        """The matrix on another device and in another dtype."""
        return SparseRows(self.columns.to(device), self.values.to(device, dtype), self.starts.to(device))


@dataclass(frozen=True)
class Laplacian:
    """`bending` is B = M^(-1/2) C; `areas` is M, in mm^2."""

    bending: SparseRows
    areas: Float[Tensor, "V"]

    def __call__(self, field: Float[Tensor, "*b V c"]) -> Float[Tensor, "*b V c"]:
        """B x of every field; zero where the field is constant around a vertex."""
        shape = field.shape
        bent = self.bending @ field.movedim(-2, 0).flatten(1)
        return bent.reshape(shape[-2], *shape[:-2], shape[-1]).movedim(0, -2)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Laplacian":
        """The operator on another device and in another dtype."""
        return Laplacian(self.bending.to(device, dtype), self.areas.to(device, dtype))


def cotangent_laplacian(vertices: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"]) -> Laplacian:
    """The operator (C x)_i = sum_j (cot a_ij + cot b_ij) / 2 (x_j - x_i) with a and b the angles opposite the edge.

    The area of a vertex is a third of its triangles' area. Cotangents are clamped to +-20 and areas to at least 1 % of
    their median, so that a triangle without area does no harm. Computed on the CPU.

    Args:
        vertices: in mm.
        triangles: corners.

    Returns:
        The operator in float64, on the device of the vertices.

    Example:
        >>> bent = cotangent_laplacian(vertices, triangles)(vertices)
    """
    table, corners = triangles.cpu().numpy(), vertices[triangles].double().cpu().numpy()
    halves = np.empty(table.shape)
    for k in range(3):
        first, second = corners[:, k - 2] - corners[:, k], corners[:, k - 1] - corners[:, k]
        double_area = np.linalg.norm(np.cross(first, second), axis=1)
        cotangent = (first * second).sum(1) / np.maximum(double_area, np.finfo(float).tiny)
        halves[:, k] = np.clip(cotangent, -_STEEPEST, _STEEPEST) / 2
    n_vertices = len(vertices)
    areas = np.bincount(table.ravel(), np.repeat(double_area / 6, 3), n_vertices)
    return laplacian_of_weights(_symmetric(table, halves, n_vertices), areas).to(vertices.device, torch.float64)


def laplacian_of_weights(weights: sparse.csr_matrix, areas: np.ndarray) -> Laplacian:
    """The operator of symmetric edge weights [V, V] without a diagonal and of vertex areas, which are clamped to at
    least 1 % of their median. On the CPU, in float64."""
    areas = np.maximum(areas, _SMALLEST * np.median(areas))
    sums = np.asarray(weights.sum(1)).ravel()
    bending = sparse.diags(areas**-0.5) @ (weights - sparse.diags(sums))
    return Laplacian(SparseRows.from_scipy(bending), torch.from_numpy(areas))


def _symmetric(triangles: np.ndarray, opposite: np.ndarray, n_vertices: int) -> sparse.csr_matrix:
    """Sums per edge; `opposite[t, k]` belongs to the edge of triangle t opposite its corner k."""
    first, second = np.roll(triangles, 1, 1).ravel(), np.roll(triangles, 2, 1).ravel()
    kept = first != second
    entries = (opposite.ravel()[kept], (first[kept], second[kept]))
    half = sparse.coo_matrix(entries, shape=(n_vertices, n_vertices))
    return sparse.csr_matrix(half + half.T)
