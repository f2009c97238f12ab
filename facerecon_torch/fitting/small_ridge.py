"""One small ridge problem per face, batched: the steps that Eq. 7 alternates between."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["solve_normal", "solve_positive"]


def solve_normal(
    normal: Float[Tensor, "*b k k"],
    right: Float[Tensor, "*b k"],
    penalty: Float[Tensor, "k"],
    mean: Float[Tensor, "k"],
) -> Float[Tensor, "*b k"]:
    """argmin over g of |D g - y|^2 + sum_j penalty_j (g_j - mean_j)^2 from the products D'D and D'y; penalties
    positive."""
    return solve_positive(normal + torch.diag(penalty), right + penalty * mean)


def solve_positive(matrix: Float[Tensor, "*b k k"], right: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """matrix^-1 right. One Cholesky factor per face, without a check that would wait for the device: D'D plus a
    positive diagonal always has one."""
    factor = torch.linalg.cholesky_ex(matrix)[0]
    return torch.cholesky_solve(right[..., None], factor)[..., 0]
