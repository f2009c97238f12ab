"""The 74 points of a .land file and the 68 of iBUG: which of them are the same, and how the others lie between them.

Rows of both run from image left to image right over the top of the face, except that the right brow of a .land file
is counted from its outer end. Where two point sets of the mesh by different people share a vertex (both ends of the
brows, corners of the eyes, lips, chin) the points are the same; others differ in number (contour 15 and 17, brows
6 and 5, eyes 8 and 6) and have no partner.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.facewarehouse.names import N_LANDMARKS

__all__ = ["IBUG_OF_LAND", "from_ibug68", "to_ibug68"]

# fmt: off
IBUG_OF_LAND: dict[int, int] = {
    7: 8,  # chin
    21: 17, 22: 19, 23: 20, 24: 21, 18: 22, 17: 23, 16: 24, 15: 26,  # upper edges of the brows
    27: 36, 66: 37, 69: 38, 29: 39, 68: 40, 67: 41,  # eye at image left: outer corner, over the top, under it
    33: 42, 70: 43, 73: 44, 31: 45, 72: 46, 71: 47,
    65: 30, 38: 31, 39: 33, 40: 35,  # tip, base of the wings, middle of the base
    **{46 + k: 48 + k for k in range(12)},  # outer lips
    63: 61, 62: 62, 61: 63, 60: 65, 59: 66, 58: 67,  # inner lips
}
"""Row of a .land file -> iBUG point, for the points that are the same."""

_BETWEEN: dict[int, dict[int, float]] = {
    25: {20: 0.7, 38: 0.3}, 26: {18: 0.7, 37: 0.3}, 19: {23: 0.7, 43: 0.3}, 20: {25: 0.7, 44: 0.3},  # brows below
    28: {37: 0.5, 38: 0.5}, 30: {40: 0.5, 41: 0.5}, 32: {43: 0.5, 44: 0.5}, 34: {46: 0.5, 47: 0.5},  # lids
    35: {27: 0.6, 39: 0.4}, 36: {28: 0.7, 39: 0.3}, 37: {30: 0.5, 31: 0.5},  # side of the nose at image left
    43: {27: 0.6, 42: 0.4}, 42: {28: 0.7, 42: 0.3}, 41: {30: 0.5, 35: 0.5},
    44: {32: 1.0}, 45: {34: 1.0}, 64: {62: 0.5, 66: 0.5},  # nostrils, middle of the mouth
}


# fmt: on


@lru_cache(maxsize=1)
def _weights() -> Float[Tensor, "74 68"]:
    weights = torch.zeros(N_LANDMARKS, 68, dtype=torch.float64)
    for row, mixture in _BETWEEN.items():
        for point, share in mixture.items():
            weights[row, point] = share
    for row in range(15):  # 15 points at equal steps along 17
        place = row * 16 / 14
        low = min(int(place), 15)
        weights[row, low], weights[row, low + 1] = 1 - (place - low), place - low
    for row, point in IBUG_OF_LAND.items():
        weights[row] = 0
        weights[row, point] = 1
    return weights


def to_ibug68(points: Float[Tensor, "*b 74 c"]) -> Float[Tensor, "*b 68 c"]:
    """Points of a .land file in iBUG's order, NaN for those that it does not have."""
    full = points.new_full((*points.shape[:-2], 68, points.shape[-1]), torch.nan)
    full[..., list(IBUG_OF_LAND.values()), :] = points[..., list(IBUG_OF_LAND), :]
    return full


def from_ibug68(points: Float[Tensor, "*b 68 c"]) -> Float[Tensor, "*b 74 c"]:
    """The points of a .land file for known iBUG points; those without a partner are put between their neighbours."""
    return _weights().to(points) @ points
