"""How readers of data sets report damage, and the reading steps that need the same care in every layout."""

import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.errors import DataFileError

__all__ = [
    "damaged",
    "file_size",
    "read_ascii",
    "read_lines",
    "reading",
    "require_data_file",
    "require_range",
    "shown",
    "strict_float",
]

_LARGEST_TEXT = 1 << 20
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?", re.ASCII)


def damaged(file: Path, field: str, expected: object, got: object) -> DataFileError:
    """The error for one field of a file: what was expected there and what came."""
    return DataFileError(f"{file}: {field}: expected {expected}; got {got}")


def shown(value: object) -> str:
    """A value of a damaged file for a message, cut to a length that a terminal can show."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require_data_file(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """`path`, if it is an existing file whose name ends in one of `suffixes` (any case); else DataFileError."""
    file = Path(path)
    if not file.name.lower().endswith(suffixes):
        raise damaged(file, "name", f"a name that ends in {' or '.join(suffixes)}", shown(file.name))
    if not file.is_file():
        raise damaged(file, "file", "an existing file", "a folder" if file.is_dir() else "nothing")
    return file


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what the system or a decompressor says about a file into DataFileError."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(file, "file", "a readable file", f"{type(error).__name__}: {error}") from error


def read_lines(file: Path) -> list[str]:
    """Lines of a small text file without the white space around them; LF and CRLF.

    Raises DataFileError for a file of more than 1 MiB, of bytes that are not ASCII, or without a line break at its
    end: a number in the last line may then have lost digits.
    """
    with reading(file), open(file, "rb") as stream:
        content = stream.read(_LARGEST_TEXT + 1)
    if len(content) > _LARGEST_TEXT:
        raise damaged(file, "size", f"a text of at most {_LARGEST_TEXT} bytes", "a larger file")
    if not content.endswith(b"\n"):
        raise damaged(file, "end of file", "a line break", shown(content[-20:]))
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged(file, "text", "ASCII characters", f"byte {error.start} = {content[error.start]:#04x}") from error
    return [line.strip() for line in text.split("\n")]


def strict_float(text: str) -> float:
    """A plain decimal number; NaN stands for anything else (`nan`, `inf`, `1_0`, words, numbers beyond float64)."""
    value = float(text) if _FLOAT.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def file_size(file: Path) -> int:
    """Bytes of an existing file. Raises DataFileError for a folder or where nothing is."""
    if not file.is_file():
        raise damaged(file, "file", "an existing file", "a folder" if file.is_dir() else "nothing")
    return file.stat().st_size


def read_ascii(file: Path, *, limit: int) -> str:
    """Text of a file of at most `limit` bytes, its line ends turned into \\n. Raises DataFileError."""
    size = file_size(file)
    if not 0 < size <= limit:
        raise damaged(file, "size", f"1 to {limit} bytes of text", f"{size} bytes")
    content = file.read_bytes()
    try:
        return content.decode("ascii").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise damaged(file, f"byte {error.start}", "ASCII text", f"the byte {content[error.start]}") from error


def require_range(file: Path, field: str, values: NDArray[np.floating], low: float, high: float, *, unit: str) -> None:
    """Raise DataFileError unless every value is a number in [low, high]; NaN is none."""
    inside = (values >= low) & (values <= high)
    if not bool(inside.all()):
        first = float(values[~inside].flat[0])
        raise damaged(
            file, field, f"numbers in {low:g}..{high:g} {unit}".rstrip(), f"{int((~inside).sum())} others ({first:g})"
        )
