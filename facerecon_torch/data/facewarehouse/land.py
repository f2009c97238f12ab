"""pose_k.land: 74 points of a photograph as text with CRLF: the count, then `x y` in [0, 1] a line.

x runs from the left, y from the BOTTOM: px = x W, py = (1 - y) H with W, H = 640, 480.
"""

import os
import re
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.data.damage import damaged, read_ascii, require_range
from facerecon_torch.data.facewarehouse.names import N_LANDMARKS
from facerecon_torch.files import replacing

__all__ = ["read_land", "save_land"]

_LIMIT = 64 * 1024
_MARGIN = 1.0  # image sides by which a point may lie outside the picture
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_DIGITS = (6, 9, 12, 17, 25, 32)


def read_land(path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> Float[Tensor, "74 2"]:
    """Points in float64 px, y down. Raises DataFileError for a wrong count, a line that is no `x y`, and points
    more than one image side outside the picture."""
    file = Path(path)
    lines = read_ascii(file, limit=_LIMIT).split("\n")
    if lines[0].strip() != str(N_LANDMARKS):
        raise damaged(file, "line 1", f"the count {N_LANDMARKS}", repr(lines[0][:40]))
    if lines[-1] != "":
        raise damaged(file, f"line {len(lines)}", "an end of line", f"the end of the file after {lines[-1][:40]!r}")
    rows = lines[1:-1]
    if len(rows) != N_LANDMARKS:
        raise damaged(file, "points", f"{N_LANDMARKS} lines", f"{len(rows)} lines")
    points = np.empty((N_LANDMARKS, 2))
    for k, row in enumerate(rows):
        x, y = _pair(file, k + 2, row)
        points[k] = float(x * width), float((1 - y) * height)
    scaled = points / np.array([width, height])
    require_range(file, "points", scaled, -_MARGIN, 1 + _MARGIN, unit="image sides")
    return torch.from_numpy(points)


def _pair(file: Path, number: int, row: str) -> tuple[Decimal, Decimal]:
    words = row.split()
    if len(words) != 2 or not all(_NUMBER.fullmatch(word) for word in words):
        raise damaged(file, f"line {number}", "two numbers", repr(row[:40]))
    return Decimal(words[0]), Decimal(words[1])


def save_land(points: Tensor, path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> Path:
    """Write 74 points in px, y down, with as few digits (six at least) as give the same float64 back.

    Returns the path. Raises ValueError for another shape, NaN and points far outside the picture.
    """
    require_shape("points", points, (N_LANDMARKS, 2))
    require_finite("points", points)
    values = points.detach().cpu().double()
    scaled = values / values.new_tensor([width, height])
    if float(scaled.min()) < -_MARGIN or float(scaled.max()) > 1 + _MARGIN:
        raise ValueError(
            f"points must lie within one image side of {width} x {height}; got {points.min()}..{points.max()}"
        )
    lines = [f"{_across(x, width)} {_upward(y, height)}" for x, y in values.tolist()]
    target = Path(path)
    with replacing(target) as aside:
        aside.write_text("\r\n".join([str(N_LANDMARKS), *lines, ""]), encoding="ascii", newline="")
    return target


def _across(x: float, width: int) -> str:
    texts = _candidates(Decimal(x), width, flipped=False)
    return next((text for text in texts if float(Decimal(text) * width) == x), texts[-1])


def _upward(y: float, height: int) -> str:
    texts = _candidates(Decimal(y), height, flipped=True)
    return next((text for text in texts if float((1 - Decimal(text)) * height) == y), texts[-1])


def _candidates(value: Decimal, side: int, *, flipped: bool) -> list[str]:
    """The share of `value` in the image side as text, with more and more digits."""
    with localcontext() as context:
        context.prec = 60
        share = value / side
        exact = 1 - share if flipped else share
        return [f"{exact:.{digits}f}" for digits in _DIGITS]
