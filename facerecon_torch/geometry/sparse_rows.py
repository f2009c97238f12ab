"""A sparse matrix whose product with the columns of a whole batch is one call, on CPU and CUDA."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["SparseRows"]


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
