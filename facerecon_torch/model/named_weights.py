"""Expression weights beta as non-negative weights of named expressions.

With u_0 the row of the neutral face and u_k the rows of the others,

    min_w |L (beta - u_0 - sum_k w_k (u_k - u_0))|^2 + ridge |w|^2   with  w_k >= 0,

where |L x|^2 = x' M x is the mean squared vertex displacement (mm^2) of x on the mean identity. Expressions are added
to each other, so weights may sum to more than 1. The ridge makes the solution unique if there are more names than
factors, and prevents names from cancelling each other. A whole batch is solved at once by the active-set method of
Lawson and Hanson (1974).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["NEUTRAL", "NamedExpressions", "nonnegative_least_squares"]

NEUTRAL = "neutral"

RIDGE = (
    0.03  # of the mean squared size of the expressions; smaller values let names cancel each other at weights above 2
)
_STEPS_PER_NAME = 4  # an active set changes once per step; solutions need about 2 steps per non-zero weight
_STEPS_PER_CHECK = 4  # the check for a finished batch waits for the device


class NamedExpressions(nn.Module):
    """The weights of named expressions for beta; distances are measured by `metric`, M in mm^2."""

    origin: Tensor
    directions: Tensor
    root: Tensor

    def __init__(
        self,
        rows: Float[Tensor, "names expressions"],
        names: tuple[str, ...],
        metric: Float[Tensor, "expressions expressions"],
    ) -> None:
        super().__init__()
        self.neutral = names.index(NEUTRAL) if NEUTRAL in names else None
        origin = metric.new_zeros(len(metric)).to(rows) if self.neutral is None else rows[self.neutral]
        others = [k for k in range(len(names)) if k != self.neutral]
        values, vectors = torch.linalg.eigh(metric.to(torch.float64))
        root = vectors * values.clamp_min(0).sqrt()
        self.register_buffer("origin", origin.clone(), persistent=False)
        self.register_buffer("directions", rows[others] - origin, persistent=False)
        self.register_buffer("root", root.to(rows.dtype), persistent=False)

    def forward(self, expression: Float[Tensor, "*b expressions"]) -> Float[Tensor, "*b names"]:
        """The weights by name, computed in float64 and not differentiable.

        The weight of the neutral face is 1 minus the sum of the others, at least 0.
        """
        root = self.root.to(torch.float64)
        directions = self.directions.to(torch.float64) @ root
        target = (expression - self.origin).detach().to(torch.float64) @ root
        gram = directions @ directions.mT
        gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        n_samples = expression.shape[:-1].numel()
        flat = nonnegative_least_squares(gram, (target @ directions.mT).reshape(n_samples, len(gram)))
        weights = flat.reshape(*expression.shape[:-1], len(gram))
        if self.neutral is not None:
            rest = (1 - weights.sum(dim=-1, keepdim=True)).clamp_min(0)
            weights = torch.cat([weights[..., : self.neutral], rest, weights[..., self.neutral :]], dim=-1)
        return weights.to(expression.dtype)


def nonnegative_least_squares(gram: Float[Tensor, "n n"], target: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """argmin_w w' gram w / 2 - target' w with w >= 0, for a positive definite float64 `gram`.

    In every step the weights of a sample either reach the optimum of its passive set, which then gains one weight, or
    stop where a weight becomes 0, which then leaves the set. The number of steps is bounded; a sample that has not
    converged keeps its last, non-negative weights.
    """
    weights = torch.zeros_like(target)
    passive = torch.zeros_like(target, dtype=torch.bool)
    if target.numel() == 0:
        return weights
    tolerance = 1e-10 * target.abs().amax(dim=-1, keepdim=True)
    for step in range(_STEPS_PER_NAME * target.shape[-1]):
        weights, passive, feasible = _towards_optimum(gram, target, weights, passive)
        gradient = (target - weights @ gram).masked_fill(passive, -torch.inf)
        steepest, entering = gradient.max(dim=-1, keepdim=True)
        grows = feasible & (steepest > tolerance)
        if step % _STEPS_PER_CHECK == 0 and bool((feasible & ~grows).all()):
            break
        passive = passive.scatter(-1, entering, passive.gather(-1, entering) | grows)
    return weights


def _towards_optimum(
    gram: Float[Tensor, "n n"],
    target: Float[Tensor, "b n"],
    weights: Float[Tensor, "b n"],
    passive: Tensor,
) -> tuple[Float[Tensor, "b n"], Tensor, Tensor]:
    """One step towards the optimum of the passive set, as far as the weights stay non-negative.

    Returns the weights, the passive set without the weights that became 0, and whether the optimum was reached.
    """
    both = passive[:, :, None] & passive[:, None, :]
    masked = torch.where(both, gram, torch.diag_embed((~passive).to(gram.dtype)))
    factor, _ = torch.linalg.cholesky_ex(masked)
    optimum = torch.cholesky_solve((target * passive)[..., None], factor)[..., 0]
    blocking = passive & (optimum <= 0)
    reach = weights / (weights - optimum).clamp_min(torch.finfo(weights.dtype).tiny)
    reach = torch.where(blocking, reach, torch.inf)
    part = reach.amin(dim=-1, keepdim=True).clamp_max(1.0)
    passive = passive & ~(blocking & (reach <= part))
    moved = torch.where(passive, weights + part * (optimum - weights), 0.0)
    return moved.clamp_min(0), passive, ~blocking.any(dim=-1, keepdim=True)
