"""One small ridge problem per face, batched: the steps that Eq. 7 alternates between."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["solve_normal", "solve_ridge"]


def solve_ridge(
    design: Float[Tensor, "*b n k"],
    goal: Float[Tensor, "*b n"],
    penalty: Float[Tensor, "k"],
    mean: Float[Tensor, "k"],
) -> Float[Tensor, "*b k"]:
    """argmin over g of |design g - goal|^2 + sum_j penalty_j (g_j - mean_j)^2; penalties positive."""
    return solve_normal(design.mT @ design, (design.mT @ goal[..., None])[..., 0], penalty, mean)


def solve_normal(
    normal: Float[Tensor, "*b k k"],
    right: Float[Tensor, "*b k"],
    penalty: Float[Tensor, "k"],
    mean: Float[Tensor, "k"],
) -> Float[Tensor, "*b k"]:
    """The same from the products D'D and D'y. One Cholesky factor per face, without a check that would wait
    for the device: D'D plus a positive diagonal always has one."""
    factor = torch.linalg.cholesky_ex(normal + torch.diag(penalty))[0]
    return torch.cholesky_solve((right + penalty * mean)[..., None], factor)[..., 0]
