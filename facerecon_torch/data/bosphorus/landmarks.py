"""Bosphorus landmark files: .lm2 (px of the .png) and .lm3 (mm, frame of the .bnt), up to 24 points by name.

Left and right are those of the picture. A file lists visible points only, so points are identified by name; the two
files of one scan may list different points.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.data.recordings import LARGEST_COORDINATE
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import format_error, read_lines, require_data_file, shown, strict_float

__all__ = ["IBUG_OF_NAME", "NAMES", "NamedLandmarks", "read_landmarks", "write_landmarks"]

IBUG_OF_NAME = {
    "Outer left eyebrow": 17,
    "Middle left eyebrow": 19,
    "Inner left eyebrow": 21,
    "Inner right eyebrow": 22,
    "Middle right eyebrow": 24,
    "Outer right eyebrow": 26,
    "Outer left eye corner": 36,
    "Inner left eye corner": 39,
    "Inner right eye corner": 42,
    "Outer right eye corner": 45,
    "Nose tip": 30,
    "Left nose peak": 31,
    "Right nose peak": 35,
    "Left mouth corner": 48,
    "Upper lip outer middle": 51,
    "Right mouth corner": 54,
    "Upper lip inner middle": 62,
    "Lower lip inner middle": 66,
    "Lower lip outer middle": 57,
    "Chin middle": 8,
}
"""Name -> iBUG point. Nose saddles and ear lobes have none. `Chin middle` is the front of the chin, somewhat above
point 8; the nose peaks are the wings of the nose."""
NAMES = (
    *tuple(IBUG_OF_NAME)[:10],
    "Nose saddle left",
    "Nose saddle right",
    "Left nose peak",
    "Nose tip",
    "Right nose peak",
    *tuple(IBUG_OF_NAME)[13:],
    "Left ear lobe",
    "Right ear lobe",
)
"""All names in the order of a file. Ear lobes are visible on rotated heads only."""

_VARIANTS = {"ear lobe left": "Left ear lobe", "ear lobe right": "Right ear lobe"}
_BY_SPELLING = {**{name.lower(): name for name in NAMES}, **_VARIANTS}
_LARGEST_PIXEL = 1e5
_COUNT = re.compile(r"(\d{1,3})\s+landmarks\s*:?", re.ASCII)


@dataclass(frozen=True)
class NamedLandmarks:
    """The points of one file: [n, 2] in px ((0, 0) at the upper left, y down) or [n, 3] in mm, with names of NAMES.

    Raises TypeError or ValueError for unknown or repeated names, other shapes and points that are not finite.
    """

    names: tuple[str, ...]
    points: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.points, Tensor):
            raise TypeError(f"points must be a tensor; got {type(self.points).__name__}")
        unknown = [name for name in self.names if name not in NAMES]
        if unknown or not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names must be different ones of NAMES, at least one; got {self.names}")
        shape = tuple(self.points.shape)
        if shape not in {(len(self.names), 2), (len(self.names), 3)} or not self.points.is_floating_point():
            raise ValueError(f"points must be floats of shape ({len(self.names)}, 2 or 3); got {shape}")
        largest = _LARGEST_PIXEL if shape[1] == 2 else LARGEST_COORDINATE
        if not bool((self.points.abs() <= largest).all()):  # this form refuses NaN too
            raise ValueError(f"points must be finite and within {largest:g}")

    def select(self, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Points [n, 2 or 3] in the order of `names`, 0 for missing names, and a mask [n] of the present ones."""
        row = {name: i for i, name in enumerate(self.names)}
        known = [name in row for name in names]
        points = self.points.new_zeros(len(names), self.points.shape[1])
        points[known] = self.points[[row[name] for name in names if name in row]]
        return points, torch.tensor(known, device=self.points.device)

    def ibug68(self) -> tuple[Tensor, Tensor]:
        """Points [68, 2 or 3] in iBUG order, 0 for missing ones, and a mask [68] of the present ones, at most 20."""
        selected, known = self.select(tuple(IBUG_OF_NAME))
        places = torch.tensor(list(IBUG_OF_NAME.values()), device=selected.device)
        points, present = selected.new_zeros(68, selected.shape[1]), known.new_zeros(68)
        points[places], present[places] = selected, known
        return points, present


def read_landmarks(path: str | os.PathLike[str]) -> NamedLandmarks:
    """The points of a .lm2 or .lm3 file in float64, in the file's order.

    Blank lines, CRLF, both spellings of the count (with and without a colon) and of the ear lobes are accepted.

    Raises:
        DataFileError: The file is missing, a heading, count or name is wrong, a name is repeated, or a coordinate is
            not a plain finite number.
    """
    file = require_data_file(path, (".lm2", ".lm3"))
    flat = file.suffix.lower() == ".lm2"
    lines = _content(read_lines(file))
    _expect(next(lines, None), "# 2D Landmark File" if flat else "# 3D Landmark File", file, "heading")
    count = _read_count(next(lines, None), file)
    rest = list(lines)
    if flat:
        wanted = 2 * count + 2
        if len(rest) != wanted:
            raise format_error(file, "lines", f"{wanted} after the count of {count}", len(rest))
        _expect(rest[0], "Labels:", file, "heading of the labels")
        _expect(rest[count + 1], "2D Image coordinates:", file, "heading of the coordinates")
        labels, numbers = rest[1 : count + 1], rest[count + 2 :]
    else:
        if len(rest) != 2 * count:
            raise format_error(file, "lines", f"{2 * count} after the count of {count}", len(rest))
        labels, numbers = rest[0::2], rest[1::2]
    names = tuple(_name(label, file) for label in labels)
    if len(set(names)) != count:
        twice = next(name for name in names if names.count(name) > 1)
        raise format_error(file, "label", "every name once", f"{twice!r} again")
    points = [_point(line, name, 2 if flat else 3, file) for line, name in zip(numbers, names)]
    return NamedLandmarks(names, torch.tensor(points, dtype=torch.float64))


def write_landmarks(landmarks: NamedLandmarks, path: str | os.PathLike[str], *, newline: str = "\n") -> Path:
    """The path of a .lm2 file (2 coordinates) or .lm3 file (3 coordinates); `read_landmarks` restores the same values.

    Raises ValueError for another suffix or line break.
    """
    target = Path(path)
    flat = landmarks.points.shape[1] == 2
    if target.suffix.lower() != (".lm2" if flat else ".lm3"):
        raise ValueError(f"path must end in {'.lm2' if flat else '.lm3'} for {landmarks.points.shape[1]} coordinates")
    if newline not in ("\n", "\r\n"):
        raise ValueError(f"newline must be LF or CRLF; got {newline!r}")
    count = len(landmarks.names)
    points = [" ".join(_shortest(x) for x in point) for point in landmarks.points.detach().double().tolist()]
    if flat:
        head = ["# 2D Landmark File", "", f"{count} landmarks", "", "Labels:"]
        lines = [*head, *landmarks.names, "", "2D Image coordinates:", *points]
    else:
        pairs = [line for pair in zip(landmarks.names, points) for line in pair]
        lines = ["# 3D Landmark File", "", f"{count} landmarks:", *pairs]
    with replacing(target) as aside:
        aside.write_bytes("".join(line + newline for line in lines).encode("ascii"))
    return target


def _content(lines: list[str]) -> Iterator[str]:
    """The lines that are not blank, without the block after the heading from a line that starts with * to the next
    blank line."""
    if len(lines) > 1 and lines[1].startswith("*"):
        end = lines.index("") if "" in lines else len(lines)
        lines = [lines[0], *lines[end:]]
    return (line for line in lines if line)


def _expect(line: str | None, heading: str, file: Path, field: str) -> None:
    if line is None or line.rstrip(":").split() != heading.rstrip(":").split():
        raise format_error(file, field, repr(heading), "the end of the file" if line is None else shown(line))


def _read_count(line: str | None, file: Path) -> int:
    match = _COUNT.fullmatch(line or "")
    if match is None or not 1 <= int(match.group(1)) <= len(NAMES):
        expected = f"'N landmarks' with N in 1..{len(NAMES)}"
        raise format_error(file, "count of landmarks", expected, "the end of the file" if line is None else shown(line))
    return int(match.group(1))


def _name(label: str, file: Path) -> str:
    name = _BY_SPELLING.get(" ".join(label.lower().split()))
    if name is None:
        raise format_error(file, "label", "one of the 24 names of landmarks", shown(label))
    return name


def _point(line: str, name: str, dimensions: int, file: Path) -> list[float]:
    values = [strict_float(word) for word in line.split()]
    largest = _LARGEST_PIXEL if dimensions == 2 else LARGEST_COORDINATE
    if len(values) != dimensions or not all(abs(value) <= largest for value in values):
        raise format_error(file, name, f"{dimensions} finite numbers within {largest:g}", shown(line))
    return values


def _shortest(value: float) -> str:
    """The number as C's %g prints it if that is exact, else with all digits that it needs."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
