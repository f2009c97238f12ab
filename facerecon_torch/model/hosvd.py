"""Higher-order SVD of a data tensor in its two short modes (identity, expression).

T ~ core x2 U_id x3 U_exp (Eq. 2 of the paper; De Lathauwer et al., 2000). The columns of U_id and U_exp are the leading
left singular vectors of the two unfoldings. They come from Gram matrices, which are summed over chunks of rows in
float64. The tensor is never copied as a whole: it may be strided, or a view of a memory-mapped file that is larger than
the memory.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_shape

__all__ = ["Hosvd", "hosvd"]

_CHUNK_VALUES = 4_000_000  # float64 values held beside the tensor: 32 MB per copy


@dataclass(frozen=True)
class Hosvd:
    """T[r, n, e] ~ sum_ij core[r, i, j] identity_rows[n, i] expression_rows[e, j].

    The row matrices have orthonormal columns. The singular values of both unfoldings include those beyond the ranks.
    `residual_rms` is the root mean square of the truncation error over all values of T, and `spread_rms` that of T
    about its mean over people and expressions, both in the unit of T.
    """

    core: Float[Tensor, "rows identities expressions"]
    identity_rows: Float[Tensor, "n_ids identities"]
    expression_rows: Float[Tensor, "n_exps expressions"]
    identity_singular_values: Float[Tensor, "n_ids"]
    expression_singular_values: Float[Tensor, "n_exps"]
    residual_rms: float
    spread_rms: float

    @property
    def variance_kept(self) -> float:
        """1 - (residual_rms / spread_rms)^2; 1 for a tensor without spread."""
        return 1.0 - (self.residual_rms / self.spread_rms) ** 2 if self.spread_rms > 0 else 1.0


def hosvd(
    tensor: Tensor, identity_rank: int, expression_rank: int, *, device: torch.device | str | None = None
) -> Hosvd:
    """The truncated HOSVD of a data tensor, with the dtype and device of `tensor`.

    Sums, eigenvectors and projection are float64. In every column of the row matrices, the entry of largest magnitude
    is positive. Gram matrices square the singular values, so those below 1e-8 of the largest are not resolved.

    Args:
        tensor: [3V, ids, exps] in mm; row 3 v + axis.
        identity_rank: Columns of U_id.
        expression_rank: Columns of U_exp.
        device: Where the chunks are processed, one at a time; by default the device of `tensor`.

    Raises:
        ValueError: A rank lies outside [1, size of its mode], or the tensor has other axes.
    """
    require_shape("tensor", tensor, (None, None, None))
    if tensor.ndim != 3 or not tensor.is_floating_point():
        raise ValueError(f"tensor must be floating point [3V, ids, exps]; got {tensor.dtype} {tuple(tensor.shape)}")
    for name, rank, size in zip(
        ("identity_rank", "expression_rank"), (identity_rank, expression_rank), tensor.shape[1:]
    ):
        if not 1 <= rank <= size:
            raise ValueError(f"{name} must lie in [1, {size}]; got {rank}")
    identity_gram, expression_gram = _gram_matrices(tensor, torch.device(device or tensor.device))
    identity_rows, identity_values = _leading_vectors(identity_gram, identity_rank)
    expression_rows, expression_values = _leading_vectors(expression_gram, expression_rank)
    core, energy = _contract(tensor, identity_rows, expression_rows)
    residual, spread = (energy.clamp_min(0) / tensor.numel()).sqrt().tolist()
    return Hosvd(
        core,
        identity_rows.to(tensor),
        expression_rows.to(tensor),
        identity_values.to(tensor),
        expression_values.to(tensor),
        residual_rms=residual,
        spread_rms=spread,
    )


def _chunks(tensor: Float[Tensor, "rows n_ids n_exps"]) -> tuple[Float[Tensor, "chunk n_ids n_exps"], ...]:
    return torch.split(tensor, max(1, _CHUNK_VALUES // (tensor.shape[1] * tensor.shape[2])))


def _gram_matrices(
    tensor: Float[Tensor, "rows n_ids n_exps"], device: torch.device
) -> tuple[Float[Tensor, "n_ids n_ids"], Float[Tensor, "n_exps n_exps"]]:
    _, n_ids, n_exps = tensor.shape
    identity = torch.zeros(n_ids, n_ids, dtype=torch.float64, device=device)
    expression = torch.zeros(n_exps, n_exps, dtype=torch.float64, device=device)
    for chunk in _chunks(tensor):
        exact = chunk.to(device).to(torch.float64)
        by_identity = exact.transpose(0, 1).reshape(n_ids, -1)
        identity.addmm_(by_identity, by_identity.mT)
        by_expression = exact.reshape(-1, n_exps)
        expression.addmm_(by_expression.mT, by_expression)
    return identity, expression


def _leading_vectors(gram: Float[Tensor, "n n"], rank: int) -> tuple[Float[Tensor, "n rank"], Float[Tensor, "n"]]:
    values, vectors = torch.linalg.eigh(gram)
    leading = vectors.flip(-1)[:, :rank]
    peak = leading.abs().argmax(dim=0, keepdim=True)
    signs = torch.where(leading.gather(0, peak) < 0, -1.0, 1.0).to(gram.dtype)
    return leading * signs, values.flip(-1).clamp_min(0).sqrt()


def _contract(
    tensor: Float[Tensor, "rows n_ids n_exps"],
    identity: Float[Tensor, "n_ids i"],
    expression: Float[Tensor, "n_exps e"],
) -> tuple[Float[Tensor, "rows i e"], Float[Tensor, "2"]]:
    """The core, and two sums of squares: of the truncation error, and of the tensor about its mean over people and
    expressions. The computation runs on the device of the columns."""
    core = tensor.new_empty(tensor.shape[0], identity.shape[1], expression.shape[1])
    left_out, spread = identity.new_zeros(2).unbind()
    start = 0
    for chunk in _chunks(tensor):
        exact = chunk.to(identity.device).to(torch.float64)
        part = identity.mT @ (exact @ expression)
        core[start : start + len(chunk)] = part
        start += len(chunk)
        # |T - core x2 U_id x3 U_exp|^2 = |T|^2 - |core|^2 for orthonormal columns, by Pythagoras; likewise the mean
        whole, mean = exact.norm().square(), exact.mean(dim=(1, 2))
        left_out += whole - part.norm().square()
        spread += whole - exact[0].numel() * mean.norm().square()
    return core, torch.stack([left_out, spread])
