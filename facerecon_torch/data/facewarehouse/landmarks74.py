"""pose_k.land: 74 points of a photograph, and their relation to the 68 iBUG points.

The file is text with CRLF: the count, then a line `x y` in [0, 1] for each point. x runs from the left, y from the
BOTTOM: px = x W, py = (1 - y) H with W, H = 640, 480.

Rows, with left and right as in the picture: contour 0..14, right brow 15..20, left brow 21..26, left eye 27..30 and
66..69, right eye 31..34 and 70..73, nose 35..45 and its tip 65, outer lips 46..57, inner lips 58..63, middle of the
mouth 64. They run from image left to image right over the top of the face, as iBUG's do, except that the right brow
starts at its outer end. Points are the same where two point sets of the mesh by different people share a vertex: both
ends of the brows, corners of the eyes, lips and chin. The other points differ in number and have no partner.
"""

import os
import re
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import format_error, read_ascii, require_range

__all__ = ["IBUG_OF_LAND", "N_LAND", "from_ibug68", "read_land", "save_land", "to_ibug68"]

N_LAND = 74
_LIMIT = 64 * 1024
_MARGIN = 1.0  # image sides by which a point may lie outside the picture
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_DIGITS = (6, 9, 12, 17, 25, 32)
_EXACT = Context(prec=60)

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


def read_land(path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> Float[Tensor, "74 2"]:
    """The points in float64 px, y down.

    Args:
        path: A .land file.
        height: Height of its photograph in px.
        width: Width of its photograph in px.

    Raises:
        DataFileError: The count is wrong, a line is not `x y`, or a point lies more than one image side outside the
            picture.
    """
    file = Path(path)
    points = np.array([(float(x * width), float((1 - y) * height)) for x, y in _read_pairs(file)])
    sides = points / np.array([width, height])
    require_range(file, "points", sides, -_MARGIN, 1 + _MARGIN, unit="image sides")
    return torch.from_numpy(points)


def save_land(points: Tensor, path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> Path:
    """The path of a .land file with 74 points in px, y down; `read_land` returns the same float64 values.

    Raises ValueError for another shape, NaN and points more than one image side outside the picture.
    """
    require_shape("points", points, (N_LAND, 2))
    require_finite("points", points)
    values = points.detach().cpu().double()
    sides = values / values.new_tensor([width, height])
    if float(sides.min()) < -_MARGIN or float(sides.max()) > 1 + _MARGIN:
        raise ValueError(
            f"points must lie within one image side of {width} x {height}; got {points.min()}..{points.max()}"
        )
    lines = [f"{_across(x, width)} {_upward(y, height)}" for x, y in values.tolist()]
    with replacing(path) as aside:
        aside.write_text("\r\n".join([str(len(lines)), *lines, ""]), encoding="ascii", newline="")
    return Path(path)


def to_ibug68(points: Float[Tensor, "*b 74 c"]) -> Float[Tensor, "*b 68 c"]:
    """The points in iBUG order, NaN for the iBUG points that a .land file does not have."""
    full = points.new_full((*points.shape[:-2], 68, points.shape[-1]), torch.nan)
    full[..., list(IBUG_OF_LAND.values()), :] = points[..., list(IBUG_OF_LAND), :]
    return full


def from_ibug68(points: Float[Tensor, "*b 68 c"]) -> Float[Tensor, "*b 74 c"]:
    """The 74 points for iBUG points; points without a partner are interpolated between their neighbours."""
    return _weights().to(points) @ points


@lru_cache(maxsize=1)
def _weights() -> Float[Tensor, "74 68"]:
    weights = torch.zeros(N_LAND, 68, dtype=torch.float64)
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


def _read_pairs(file: Path) -> list[tuple[Decimal, Decimal]]:
    lines = read_ascii(file, limit=_LIMIT).split("\n")
    if lines[0].strip() != str(N_LAND):
        raise format_error(file, "line 1", f"the count {N_LAND}", repr(lines[0][:40]))
    if lines[-1] != "":
        raise format_error(
            file, f"line {len(lines)}", "an end of line", f"the end of the file after {lines[-1][:40]!r}"
        )
    rows = lines[1:-1]
    if len(rows) != N_LAND:
        raise format_error(file, "points", f"{N_LAND} lines", f"{len(rows)} lines")
    return [_pair(file, number, row) for number, row in enumerate(rows, start=2)]


def _pair(file: Path, number: int, row: str) -> tuple[Decimal, Decimal]:
    words = row.split()
    if len(words) != 2 or not all(_NUMBER.fullmatch(word) for word in words):
        raise format_error(file, f"line {number}", "two numbers", repr(row[:40]))
    return Decimal(words[0]), Decimal(words[1])


def _across(x: float, width: int) -> str:
    with localcontext(_EXACT):
        share = Decimal(x) / width
    return _shortest(share, lambda value: float(value * width) == x)


def _upward(y: float, height: int) -> str:
    with localcontext(_EXACT):
        share = 1 - Decimal(y) / height
    return _shortest(share, lambda value: float((1 - value) * height) == y)


def _shortest(value: Decimal, restores: Callable[[Decimal], bool]) -> str:
    """The number with the fewest digits (six at least) whose text still `restores` the coordinate."""
    texts = [f"{value:.{digits}f}" for digits in _DIGITS]
    return next((text for text in texts if restores(Decimal(text))), texts[-1])
