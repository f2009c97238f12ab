"""FRGC v2 range grids (.abs) and textures (.ppm), compressed if their name ends in .gz.

Range grids are text, LF or CRLF: `480 rows`, `640 columns`, `pixels (flag X Y Z):`, then four lines with one number a
cell, from the top row on, left to right: flags (1 = measured), X, Y, Z in mm. Cells without a measurement hold -999999.

Textures are P6 whose header carries the scanner's settings as comments. Their pixels are the cells of the range grid.
"""

import gzip
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite
from facerecon_torch.data.recordings import LARGEST_COORDINATE, RangeGrid
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import format_error, reading, require_data_file, shown

__all__ = [
    "open_data",
    "write_data",
    "ABS_SUFFIXES",
    "read_abs",
    "write_abs",
    "TEXTURE_SUFFIXES",
    "Texture",
    "read_texture",
    "write_texture",
]

_COMPRESSION_LEVEL = 6  # a quarter of the time of 9 for a file 4 % larger
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
TEXTURE_SUFFIXES = (".ppm", ".ppm.gz")
_LARGEST_PICTURE = 1 << 26
_LONGEST_LINE = 1 << 12
_MOST_COMMENTS = 1 << 10
_NUMBER = re.compile(rb"\d{1,5}", re.ASCII)


def open_data(file: Path) -> BufferedIOBase:
    """The decompressed bytes of a file as a stream; damage raises OSError, EOFError or zlib.error on reading."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rb")
    return open(file, "rb")


def write_data(file: Path, parts: Iterable[bytes]) -> None:
    """Write the parts aside and rename the file. Compressed bytes do not depend on the time or the name."""
    with replacing(file) as aside, open(aside, "wb") as plain, ExitStack() as stack:
        stream: BufferedIOBase = plain
        if file.suffix.lower() == ".gz":
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION_LEVEL, fileobj=plain, mtime=0)
            stream = stack.enter_context(packed)
        for part in parts:
            stream.write(part)


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


@dataclass(frozen=True)
class Texture:
    """An image [3, rows, columns], RGB in [0, 1], and the comment lines of its header, without #.

    Raises TypeError or ValueError for other shapes and values, and for comments that are not one line of ASCII each.
    """

    image: Tensor
    comments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.image, Tensor):
            raise TypeError(f"image must be a tensor; got {type(self.image).__name__}")
        shape = tuple(self.image.shape)
        if len(shape) != 3 or shape[0] != 3 or not self.image.numel() or not self.image.is_floating_point():
            raise ValueError(f"image must be floats of shape (3, rows, columns); got {self.image.dtype} {shape}")
        require_finite("image", self.image)
        for comment in self.comments:
            if "\n" in comment or comment.endswith("\r") or len(comment) > _LONGEST_LINE - 8 or not comment.isascii():
                raise ValueError(f"a comment must be one short line of ASCII; got {comment!r}")


def read_texture(path: str | os.PathLike[str]) -> Texture:
    """The picture in float32, and the comments of its header.

    Raises DataFileError for a missing or cut-off file, another image format, more than 8 bits per channel, and bytes
    after the last pixel.
    """
    file = require_data_file(path, TEXTURE_SUFFIXES)
    with reading(file), open_data(file) as stream:
        (columns, rows), comments = _read_texture_header(stream, file)
        wanted = rows * columns * 3
        content = stream.read(wanted)
        more = stream.read(1)
    if len(content) != wanted or more:
        got = "more" if more else f"{len(content)} bytes"
        raise format_error(file, "pixels", f"{wanted} bytes for {columns} x {rows} pixels", got)
    pixels = np.frombuffer(content, dtype=np.uint8).reshape(rows, columns, 3).astype(np.float32) / np.float32(255)
    return Texture(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), comments)


def write_texture(texture: Texture, path: str | os.PathLike[str]) -> Path:
    """The path of a .ppm file with 8 bits per channel (compressed if it ends in .gz); values are clamped to [0, 1].

    `read_texture` restores a texture that it read. Raises ValueError for another suffix and for more than 67 million
    pixels.
    """
    target = Path(path)
    rows, columns = texture.image.shape[1:]
    if not target.name.lower().endswith(TEXTURE_SUFFIXES):
        raise ValueError(f"path must end in .ppm or .ppm.gz; got {target}")
    if rows * columns > _LARGEST_PICTURE or max(rows, columns) > 99999 or len(texture.comments) > _MOST_COMMENTS:
        raise ValueError(f"a picture must have at most {_LARGEST_PICTURE} pixels; got {columns} x {rows}")
    head = ["P6", *(f"#{comment}" for comment in texture.comments), f"{columns} {rows}", "255"]
    pixels = (texture.image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    write_data(target, ("".join(line + "\n" for line in head).encode("ascii"), pixels.tobytes()))
    return target


def _read_texture_header(stream: BufferedIOBase, file: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Columns and rows, and the comments of all lines up to the third number."""
    magic = stream.readline(_LONGEST_LINE)
    if magic.strip() != b"P6":
        raise format_error(file, "heading", "'P6'", shown(magic[:20]))
    comments: list[str] = []
    numbers: list[bytes] = []
    while len(numbers) < 3:
        line = stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") or len(comments) > _MOST_COMMENTS:
            raise format_error(file, "header", "width, height and the largest value", shown(line[:20]))
        values, mark, comment = line.partition(b"#")
        if mark:
            comments.append(_comment(comment, file))
        numbers += values.split()
    if len(numbers) != 3 or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise format_error(file, "header", "width, height and the largest value", shown(b" ".join(numbers)))
    columns, rows, largest = (int(number) for number in numbers)
    if largest != 255:
        raise format_error(file, "largest value", 255, largest)
    if not 1 <= rows * columns <= _LARGEST_PICTURE:
        raise format_error(file, "size", f"1 to {_LARGEST_PICTURE} pixels", f"{columns} x {rows}")
    return (columns, rows), tuple(comments)


def _comment(content: bytes, file: Path) -> str:
    try:
        return content.rstrip(b"\r\n").decode("ascii")
    except UnicodeDecodeError as error:
        raise format_error(file, "comment", "ASCII characters", shown(content)) from error
