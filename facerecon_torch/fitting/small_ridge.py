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
    """The minimiser g of |D g - y|^2 + sum_j penalty_j (g_j - mean_j)^2.

    Args:
        normal: D'D.
        right: D'y.
        penalty: positive.
        mean: towards which g is shrunk.

    Example:
        >>> g = solve_normal(design.mT @ design, (design.mT @ y[..., None])[..., 0], penalty, mean)
    """
    return solve_positive(normal + torch.diag(penalty), right + penalty * mean)


def solve_positive(matrix: Float[Tensor, "*b k k"], right: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """The solutions matrix^-1 right by one Cholesky factor each. D'D plus a positive diagonal always has a factor, so
    that no check has to wait for the device."""
    factor = torch.linalg.cholesky_ex(matrix)[0]
    return torch.cholesky_solve(right[..., None], factor)[..., 0]
