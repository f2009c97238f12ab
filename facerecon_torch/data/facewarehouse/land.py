"""pose_k.land: 74 points of a photograph as text with CRLF: the count, then `x y` in [0, 1] a line.

x runs from the left, y from the BOTTOM: px = x W, py = (1 - y) H with W, H = 640, 480.
"""

import os
import re
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.data.facewarehouse.names import N_LANDMARKS
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import damaged, read_ascii, require_range

__all__ = ["checked_points", "read_land", "read_pairs", "require_near", "save_land", "save_pairs", "shorten"]

_LIMIT = 64 * 1024
_MARGIN = 1.0  # image sides by which a point may lie outside the picture
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_DIGITS = (6, 9, 12, 17, 25, 32)
_EXACT = Context(prec=60)


def read_land(path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> Float[Tensor, "74 2"]:
    """Points in float64 px, y down. Raises DataFileError for a wrong count, a line that is no `x y`, and points
    more than one image side outside the picture."""
    file = Path(path)
    pairs = read_pairs(file, N_LANDMARKS)
    points = np.array([(float(x * width), float((1 - y) * height)) for x, y in pairs])
    require_near(file, points, height=height, width=width)
    return torch.from_numpy(points)


def read_pairs(file: Path, count: int) -> list[tuple[Decimal, Decimal]]:
    """The numbers of a text of `count` and so many lines `x y`. Raises DataFileError."""
    lines = read_ascii(file, limit=_LIMIT).split("\n")
    if lines[0].strip() != str(count):
        raise damaged(file, "line 1", f"the count {count}", repr(lines[0][:40]))
    if lines[-1] != "":
        raise damaged(file, f"line {len(lines)}", "an end of line", f"the end of the file after {lines[-1][:40]!r}")
    rows = lines[1:-1]
    if len(rows) != count:
        raise damaged(file, "points", f"{count} lines", f"{len(rows)} lines")
    return [_pair(file, k + 2, row) for k, row in enumerate(rows)]


def require_near(file: Path, points: NDArray[np.float64], *, height: int, width: int) -> None:
    """Raise DataFileError for points (px) more than one image side outside the picture."""
    require_range(file, "points", points / np.array([width, height]), -_MARGIN, 1 + _MARGIN, unit="image sides")


def _pair(file: Path, number: int, row: str) -> tuple[Decimal, Decimal]:
    words = row.split()
    if len(words) != 2 or not all(_NUMBER.fullmatch(word) for word in words):
        raise damaged(file, f"line {number}", "two numbers", repr(row[:40]))
    return Decimal(words[0]), Decimal(words[1])


def save_land(points: Tensor, path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> Path:
    """Write 74 points in px, y down, with as few digits (six at least) as give the same float64 back.

    Returns the path. Raises ValueError for another shape, NaN and points far outside the picture.
    """
    values = checked_points(points, N_LANDMARKS, height=height, width=width)
    return save_pairs([f"{_across(x, width)} {_upward(y, height)}" for x, y in values], path)


def checked_points(points: Tensor, count: int, *, height: int, width: int) -> list[list[float]]:
    """`points` [count, 2] in px as numbers. Raises ValueError for another shape, NaN and points far outside."""
    require_shape("points", points, (count, 2))
    require_finite("points", points)
    values = points.detach().cpu().double()
    scaled = values / values.new_tensor([width, height])
    if float(scaled.min()) < -_MARGIN or float(scaled.max()) > 1 + _MARGIN:
        raise ValueError(
            f"points must lie within one image side of {width} x {height}; got {points.min()}..{points.max()}"
        )
    return [[float(x), float(y)] for x, y in values]


def save_pairs(lines: list[str], path: str | os.PathLike[str]) -> Path:
    """Write the count of lines and the lines, with CRLF; returns the path."""
    target = Path(path)
    with replacing(target) as aside:
        aside.write_text("\r\n".join([str(len(lines)), *lines, ""]), encoding="ascii", newline="")
    return target


def _across(x: float, width: int) -> str:
    with localcontext(_EXACT):
        share = Decimal(x) / width
    return shorten(share, lambda value: float(value * width) == x)


def _upward(y: float, height: int) -> str:
    with localcontext(_EXACT):
        share = 1 - Decimal(y) / height
    return shorten(share, lambda value: float((1 - value) * height) == y)


def shorten(value: Decimal, gives_back: Callable[[Decimal], bool]) -> str:
    """The number with the fewest of several counts of digits that still `gives_back` what is to be stored."""
    texts = [f"{value:.{digits}f}" for digits in _DIGITS]
    return next((text for text in texts if gives_back(Decimal(text))), texts[-1])
