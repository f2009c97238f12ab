"""How one stage of a cascade is fitted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from facerecon_torch.regression.selection import Factorisation

__all__ = ["DEFAULT_RHOS", "StageSpec"]

# rho = 1 is the mean eigenvalue over all D directions, of which a wide problem fills only n: the useful range moves
# with D / n, so the path covers tall and wide problems; one factorisation serves it all.
DEFAULT_RHOS = tuple(10.0 ** (step / 2) for step in range(-6, 11))


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """How a stage is fitted; every (rho, block weights) pair is tried and the least out-of-group error wins.

    rhos: lambda = rho tr(G) / D with G the Gram matrix of the scaled features; inf is the mean alone, or, without a
    bias, the exact zero update. One number fixes it.
    block_sizes: columns of each feature block in order (None: one block).
    block_weights_grid: relative weights of the blocks (None: all 1).
    scale_blocks: divide each block by its RMS norm over the training samples (about the mean if there is a bias).
    factorisation: one eigendecomposition for all penalties, or a Cholesky factor for each; auto by operations and
    memory. In the primal form Cholesky takes a pass over the rows for each penalty, so the rhos are walked from the
    middle (or from `start_rho` of `fit_stage`) towards less error until both neighbours of the best are known: the
    winner of the whole path wherever the error has one minimum along it.
    memory: bytes that the matrices may take (None: 80 % of what is free).
    """

    rhos: Sequence[float | int] | float | int = DEFAULT_RHOS
    block_sizes: Sequence[int] | None = None
    block_weights_grid: Sequence[Sequence[float | int]] | None = None
    bias: bool = True
    scale_blocks: bool = True
    form: Literal["auto", "primal", "dual"] = "auto"
    product_dtype: torch.dtype | None = None
    factorisation: Literal["auto"] | Factorisation = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        rhos = (self.rhos,) if isinstance(self.rhos, (int, float)) else tuple(self.rhos)
        if not rhos or not all(rho > 0 for rho in rhos):
            raise ValueError(f"rhos must be positive numbers, at least one; got {rhos}")
        object.__setattr__(self, "rhos", tuple(float(rho) for rho in rhos))
        if self.block_weights_grid is None:
            return
        grid = tuple(tuple(float(w) for w in weights) for weights in self.block_weights_grid)
        if not grid or any(not 0 <= w < math.inf for weights in grid for w in weights):
            raise ValueError(f"block_weights_grid must hold finite weights of at least 0; got {grid}")
        object.__setattr__(self, "block_weights_grid", grid)

    def candidates(self, blocks: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """(block weights, rhos) to try, the strongest penalty first."""
        grid = self.block_weights_grid or ((1.0,) * blocks,)
        if any(len(weights) != blocks for weights in grid):
            raise ValueError(f"every entry of block_weights_grid must have {blocks} weights; got {grid}")
        rhos = tuple(sorted(self.rhos, reverse=True))  # type: ignore[arg-type]
        return [(tuple(weights), rhos) for weights in grid]
