"""name.land73: 73 points of a photograph, in px, as text: the count, then `x y` a line, y from the BOTTOM.

The form in which LFW, GTAV and FaceWarehouse pictures were labelled anew for face tracking. Its points are those of a
.land file in the same order without the middle of the mouth (row 64): px = x, py = H - y.
"""

import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.facewarehouse.land import checked_points, read_pairs, require_near, save_pairs, shorten
from facerecon_torch.data.facewarehouse.names import LANDMARK_GROUPS, N_LANDMARKS

__all__ = ["LAND_OF_LAND73", "read_land73", "save_land73"]

LAND_OF_LAND73: tuple[int, ...] = tuple(k for k in range(N_LANDMARKS) if k not in LANDMARK_GROUPS["mouth_centre"])
"""Row of a .land file that each row of a .land73 stands for."""


def read_land73(path: str | os.PathLike[str], *, height: int, width: int) -> Float[Tensor, "73 2"]:
    """Points in float64 px of a picture of `height` x `width`, y down.

    Raises DataFileError for a wrong count, a line that is no `x y`, and points more than one image side outside the
    picture.
    """
    file = Path(path)
    points = np.array([(float(x), float(height - y)) for x, y in read_pairs(file, len(LAND_OF_LAND73))])
    require_near(file, points, height=height, width=width)
    return torch.from_numpy(points)


def save_land73(points: Tensor, path: str | os.PathLike[str], *, height: int, width: int) -> Path:
    """Write 73 points in px, y down, with as few digits (six at least) as give the same float64 back.

    Returns the path. Raises ValueError for another shape, NaN and points far outside the picture.
    """
    rows = checked_points(points, len(LAND_OF_LAND73), height=height, width=width)
    return save_pairs([f"{_plain(x)} {_from_bottom(y, height)}" for x, y in rows], path)


def _plain(x: float) -> str:
    return shorten(Decimal(x), lambda value: float(value) == x)


def _from_bottom(y: float, height: int) -> str:
    return shorten(height - Decimal(y), lambda value: float(height - value) == y)
