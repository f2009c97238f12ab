"""FRGC v2 range grids (.abs, .abs.gz): text, LF or CRLF.

`480 rows`, `640 columns`, `pixels (flag X Y Z):`, then four lines with one number a cell, from the top row on, left
to right: flags (1 = measured), X, Y, Z in mm. Cells without a measurement hold -999999.
"""

import os
import re
from io import BufferedIOBase
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from facerecon_torch.data.frgc.compressed import open_data, write_data
from facerecon_torch.data.range_grid import LARGEST_COORDINATE, RangeGrid
from facerecon_torch.formats.format_errors import format_error, reading, require_data_file, shown

__all__ = ["ABS_SUFFIXES", "read_abs", "write_abs"]

ABS_SUFFIXES = (".abs", ".abs.gz")
_MARKER = -999999.0
_LARGEST_GRID = 1 << 22
_BYTES_PER_NUMBER = 32
_HEADER = (
    ("rows", "'480 rows'", re.compile(rb"(\d{1,5})\s+rows", re.ASCII)),
    ("columns", "'640 columns'", re.compile(rb"(\d{1,5})\s+columns", re.ASCII)),
    ("heading of the pixels", "'pixels (flag X Y Z):'", re.compile(rb"pixels\s+(\(flag X Y Z\)):", re.ASCII)),
)
_NUMERIC = b"0123456789+-.eE \t\r\n"


def read_abs(path: str | os.PathLike[str]) -> RangeGrid:
    """The grid in float64. A cell is measured if its flag is 1 and its coordinates are not all -999999.

    Raises:
        DataFileError: The file is missing or cut off, its header or a count is wrong, a flag is neither 0 nor 1, a word
            is no number, a measured point is more than 10 m away, or no cell is measured.
    """
    file = require_data_file(path, ABS_SUFFIXES)
    with reading(file), open_data(file) as stream:
        rows, columns = _read_header(stream, file)
        flags, x, y, z = (_read_numbers(stream, file, field, rows * columns) for field in ("flag", *"XYZ"))
        rest = stream.read(1 << 10)
        if rest.strip():
            raise format_error(file, "end of file", "nothing after the line of Z", shown(rest.strip()[:40]))
        if stream.read(1):
            raise format_error(file, "end of file", "nothing after the line of Z", "more than 1024 blanks")
    return _grid(file, flags, np.stack([x, y, z], axis=-1), (rows, columns))


def write_abs(grid: RangeGrid, path: str | os.PathLike[str], *, newline: str = "\r\n") -> Path:
    """The path of a range file (compressed if it ends in .gz); `read_abs` restores the same grid.

    Raises ValueError for another suffix or line break and for more than 4 million cells.
    """
    target = Path(path)
    rows, columns = grid.shape
    if not target.name.lower().endswith(ABS_SUFFIXES):
        raise ValueError(f"path must end in .abs or .abs.gz; got {target}")
    if newline not in ("\n", "\r\n"):
        raise ValueError(f"newline must be LF or CRLF; got {newline!r}")
    if rows * columns > _LARGEST_GRID or max(rows, columns) > 99999:
        raise ValueError(f"a grid must have at most {_LARGEST_GRID} cells; got {rows} x {columns}")
    cells = grid.points.detach().double().reshape(-1, 3).cpu().numpy()
    valid = grid.valid.flatten().cpu().numpy()
    flags = np.where(valid, "1", "0").tolist()
    header = (f"{rows} rows", f"{columns} columns", "pixels (flag X Y Z):")
    numbers = (" ".join(words) + " " for words in chain([flags], (_words(axis, valid) for axis in cells.T)))
    write_data(target, ((line + newline).encode("ascii") for line in chain(header, numbers)))
    return target


def _read_header(stream: BufferedIOBase, file: Path) -> tuple[int, int]:
    values = []
    for field, expected, pattern in _HEADER:
        line = stream.readline(256)
        match = pattern.fullmatch(line.strip())
        if match is None or not line.endswith(b"\n"):
            raise format_error(file, field, expected, shown(line))
        values.append(match.group(1))
    rows, columns = int(values[0]), int(values[1])
    if not 1 <= rows * columns <= _LARGEST_GRID:
        raise format_error(file, "rows, columns", f"1 to {_LARGEST_GRID} cells", f"{rows} x {columns}")
    return rows, columns


def _read_numbers(stream: BufferedIOBase, file: Path, field: str, count: int) -> NDArray[np.float64]:
    """The `count` numbers of one line. White space must follow the last one: without it, digits may be missing."""
    limit = count * _BYTES_PER_NUMBER + 64
    line = stream.readline(limit + 1)
    if len(line) > limit:
        raise format_error(file, field, f"a line of at most {limit} bytes for {count} numbers", "a longer one")
    if strange := line.translate(None, _NUMERIC):
        raise format_error(file, field, "plain decimal numbers", shown(strange[:20]))
    words = line.split()
    if len(words) != count:
        raise format_error(file, field, f"{count} numbers in a line", len(words))
    if not line[-1:].isspace():
        raise format_error(file, field, "white space after the last number", f"the end of the file after {words[-1]!r}")
    try:
        return np.array(words, dtype=np.bytes_).astype(np.float64)
    except ValueError as error:
        raise format_error(file, field, "plain decimal numbers", error) from error


def _grid(file: Path, flags: NDArray[np.float64], points: NDArray[np.float64], shape: tuple[int, int]) -> RangeGrid:
    odd = flags[(flags != 0) & (flags != 1)]
    if odd.size:
        raise format_error(file, "flag", "0 or 1", f"{odd.size} others, the first {odd[0]:g}")
    valid = (flags == 1) & ~(points == _MARKER).all(axis=1)
    if not valid.any():
        raise format_error(file, "flag", "at least one measured point", "none")
    far = ~(np.abs(points) <= LARGEST_COORDINATE) & valid[:, None]  # this form finds NaN too
    if far.any():
        row, axis = (int(index) for index in np.argwhere(far)[0])
        got = f"{int(far.any(axis=1).sum())} others, the first {points[row, axis]:g}"
        raise format_error(file, "XYZ"[axis], f"measured points within {LARGEST_COORDINATE:g} mm", got)
    points[~valid] = 0
    return RangeGrid(torch.from_numpy(points.reshape(*shape, 3)), torch.from_numpy(valid.reshape(shape)))


def _words(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> list[str]:
    """The numbers as text, with the marker for cells that were not measured."""
    words = [f"{_MARKER:.6f}"] * len(values)
    for place, word in zip(np.flatnonzero(valid).tolist(), _decimals(values[valid])):
        words[place] = word
    return words


def _decimals(values: NDArray[np.float64]) -> list[str]:
    numbers = values.tolist()
    words = [f"{value:.6f}" for value in numbers]
    return [word if float(word) == value else repr(value) for word, value in zip(words, numbers)]
