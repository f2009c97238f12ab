"""Which closed form and which factorisation a ridge problem gets: by operations, and by the memory that there is."""

from typing import Literal

import torch

from facerecon_torch.regression.selection import Factorisation
from facerecon_torch.runtime.memory import free_bytes

__all__ = ["FormName", "choose_factorisation", "choose_form"]

FormName = Literal["primal", "dual"]

ROOM = 0.8  # of the free memory: the rest is for chunks and for the caller
# The time of an eigendecomposition of n x n in matrix products of as many operations: 13 n^3 on two CPU cores (measured
# at n = 1,260 to 4,200); CUDA's is no faster than that of a CPU, beside products a hundred times as fast.
EIGEN_COST = {"cpu": 13.0, "cuda": 1000.0}
WALKED = 6  # penalties that a walk along a path tries


def _room(memory: int | None, device: torch.device) -> float:
    return ROOM * free_bytes(device) if memory is None else float(memory)


def choose_form(
    n: int,
    d: int,
    form: Literal["auto", "primal", "dual"],
    *,
    blocks: int = 1,
    memory: int | None = None,
    device: torch.device | None = None,
) -> FormName:
    """The smaller system, dual where n < d, unless its matrices do not fit and the other form's do.

    Float64 bytes at least: 8 n^2 (blocks + 3) for the dual form (a Gram matrix for each block, their sum, its factor
    and its inverse), 8 d^2 for the primal (all in one matrix). `memory` is a budget in bytes (None: 80 % of what is
    free on `device`).
    """
    if form not in ("auto", "primal", "dual"):
        raise ValueError(f"form must be auto, primal or dual; got {form!r}")
    if form != "auto":
        return form
    room = _room(memory, device or torch.device("cpu"))
    dual_fits, primal_fits = 8.0 * n * n * (blocks + 3) <= room, 8.0 * d * d <= room
    if dual_fits != primal_fits:
        return "dual" if dual_fits else "primal"
    return "dual" if n < d else "primal"


def choose_factorisation(
    form: FormName, n: int, d: int, penalties: int, *, device: torch.device, memory: int | None = None
) -> Factorisation:
    """One eigendecomposition for all penalties, or a Cholesky factor for each.

    Operations: eigen E m^3 with m = n (dual) or d (primal) and E as in `EIGEN_COST`, and in the primal form 2 n d^2 to
    turn the rows; Cholesky and inverse n^3 for each penalty in the dual form, at half the rate of products, and
    d^3 / 3 + n d^2 in the primal, where not more than `WALKED` penalties are tried. As a walk may miss what the whole
    path shows, Cholesky must cost less than half there. Float64 bytes: eigen 32 m^2 (matrix, vectors and twice as much
    for the decomposition to work in), and 4 d^2 for the turn in float32.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    size = n if form == "dual" else d
    if 36.0 * size * size > _room(memory, device):
        return "cholesky"
    if form == "dual":
        return "cholesky" if 2.0 * penalties < EIGEN_COST[kind] else "eigen"
    eigen = EIGEN_COST[kind] * float(d) ** 3 + 2.0 * n * d * d
    cholesky = min(penalties, WALKED) * (float(d) ** 3 / 3 + float(n) * d * d)
    return "cholesky" if cholesky < (eigen if penalties == 1 else eigen / 2) else "eigen"
