"""Expression weights beta as sparse weights of named expressions in [0, 1].

With u_0 the row of the neutral face, d_k = u_k - u_0 of the others and |.|_M a distance between expressions,

    min_w |beta - u_0 - sum_k w_k d_k|^2_M / 2 + ridge sum_k |d_k|^2_M w_k^2 / 2 + penalty sum_k w_k,   0 <= w_k <= 1,

names the expressions. They are then weighted by the same problem without penalty, over the named alone, so that the
penalty takes nothing off the weights it keeps (the relaxed lasso). A weight of 1 is the named expression; expressions
are added to each other.

Of exact beta, M is the mean squared vertex displacement in mm^2 on the mean identity and the penalty a hundredth of the
mean |d_k|^2_M. Of the estimates of a cascade both come from its errors (`expression_error.py`): beta - u_0 and d_k are
then seen as the cascade sees them, M is the inverse covariance of its errors, and the penalty is exceeded by errors
alone in half of the faces.
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facerecon_torch.model.expression_error import ExpressionError

__all__ = ["NEUTRAL", "NamedExpressions", "bounded_least_squares"]

NEUTRAL = "neutral"

RIDGE = 0.003  # of each expression's squared size: the solution is unique where there are more names than factors
PENALTY = 0.01  # of the mean squared size of the expressions, for exact beta
_LEAST = 1e-3  # weight from which an expression is named
_SMALLEST = 1e-30  # size of an expression, so that one without a displacement has the weight 0
_STEPS = 300  # the weights are then within 1e-3 of the solution (tests/model/test_named_weights.py)
_STEP_SIZE = 0.3  # penalty of the splitting, of the diagonal 1 of the scaled problem
_RELAXATION = 1.6


class NamedExpressions(nn.Module):
    """The weights of named expressions for beta.

    Args:
        rows: beta of every named expression.
        names: one for each row; weights are relative to the row "neutral", or to zero without one.
        metric: mean squared vertex displacement, mm^2, as a quadratic form of beta.
    """

    origin: Tensor
    directions: Tensor
    root: Tensor  # M = root root'
    penalty: Tensor

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
        directions = rows[others] - origin
        values, vectors = torch.linalg.eigh(metric.to(torch.float64))
        root = vectors * values.clamp_min(0).sqrt()
        squares = (directions.to(torch.float64) @ root).square().sum(dim=-1)
        self._set(origin, directions, root, PENALTY * squares.sum() / max(1, len(others)))

    def _set(self, *tables: Tensor) -> None:
        for name, value in zip(("origin", "directions", "root", "penalty"), tables, strict=True):
            self.register_buffer(name, value.detach().clone().to(tables[0]), persistent=False)

    def of_estimates(self, error: ExpressionError) -> "NamedExpressions":
        """The same names for estimates of beta with this error.

        Raises:
            ValueError: the error is that of a beta of another length.
        """
        if error.offset.shape != self.origin.shape:
            raise ValueError(
                f"the expression error must be of {len(self.origin)} entries of beta; got {len(error.offset)}"
            )
        named, like = deepcopy(self), self.origin
        origin, directions = like.double().cpu() + error.offset, self.directions.double().cpu() @ error.gain
        named._set(*(table.to(like) for table in (origin, directions, error.whitening(), error.penalty)))
        return named

    def forward(self, expression: Float[Tensor, "*b expressions"]) -> Float[Tensor, "*b names"]:
        """The weights by name, computed in float64 and not differentiable.

        The weight of the neutral face is 1 minus the sum of the others, at least 0.
        """
        root = self.root.to(torch.float64)
        directions = self.directions.to(torch.float64) @ root
        size = directions.square().sum(dim=-1).sqrt().clamp_min(_SMALLEST)
        scaled = directions / size[:, None]
        relative = (expression - self.origin).detach().to(torch.float64)
        target = relative.reshape(expression.shape[:-1].numel(), len(root)) @ root @ scaled.mT
        gram = scaled @ scaled.mT + RIDGE * torch.eye(len(size), dtype=size.dtype, device=size.device)
        upper = size.expand_as(target)
        named = bounded_least_squares(gram, target - self.penalty.to(torch.float64) / size, upper) > _LEAST * size
        flat = bounded_least_squares(gram, target, torch.where(named, upper, 0.0)) / size
        weights = flat.reshape(*expression.shape[:-1], len(size))
        if self.neutral is not None:
            rest = (1 - weights.sum(dim=-1, keepdim=True)).clamp_min(0)
            weights = torch.cat([weights[..., : self.neutral], rest, weights[..., self.neutral :]], dim=-1)
        return weights.to(expression.dtype)


def bounded_least_squares(
    gram: Float[Tensor, "n n"], target: Float[Tensor, "b n"], upper: Float[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """argmin_w w' gram w / 2 - target' w with 0 <= w <= upper, for a positive definite `gram` with a diagonal near 1.

    A fixed number of steps of the alternating direction method of multipliers, over-relaxed: one factorisation for all
    samples, one matrix product a step, and no wait for the device. `moved` is the sum of the weights and the dual
    variables, of which the weights are the part within the bounds.
    """
    shifted = gram + _STEP_SIZE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse, _ = torch.linalg.inv_ex(shifted)  # without a look at whether it succeeded
    start, pull = target @ inverse, -_STEP_SIZE * inverse
    lower = weights = moved = torch.zeros_like(target)
    for _ in range(_STEPS):
        free = torch.addmm(start, torch.sub(moved, weights, alpha=2), pull)
        moved = torch.add(moved, free.sub_(weights), alpha=_RELAXATION)
        weights = torch.clamp(moved, lower, upper)
    return weights
