"""Errors of file formats, and the reading steps that every format shares: bounded sizes, plain text, plain numbers."""

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
    "file_size",
    "format_error",
    "read_ascii",
    "read_bounded",
    "read_lines",
    "reading",
    "require_data_file",
    "require_range",
    "require_size",
    "shown",
    "strict_float",
]

_LARGEST_TEXT = 1 << 20
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?", re.ASCII)


def format_error(file: Path, field: str, expected: object, got: object) -> DataFileError:
    """The error for one field of a file, with the expected and the actual content."""
    return DataFileError(f"{file}: {field}: expected {expected}; got {got}")


def shown(value: object) -> str:
    """The value as text of at most 60 characters, for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def file_size(file: Path) -> int:
    """The size of an existing file in bytes. Raises DataFileError for a folder and for a missing file."""
    if not file.is_file():
        raise format_error(file, "file", "an existing file", "a folder" if file.is_dir() else "nothing")
    return file.stat().st_size


def require_data_file(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """The path of an existing file whose name ends in one of `suffixes` (any case). Raises DataFileError."""
    file = Path(path)
    if not file.name.lower().endswith(suffixes):
        raise format_error(file, "name", f"a name that ends in {' or '.join(suffixes)}", shown(file.name))
    file_size(file)
    return file


def require_size(file: Path, *, limit: int, least: int = 1) -> int:
    """The size of a file of `least` to `limit` bytes. Raises DataFileError for other sizes and a missing file."""
    size = file_size(file)
    if not least <= size <= limit:
        raise format_error(file, "size", f"{least} to {limit} bytes", f"{size} bytes")
    return size


def read_bounded(file: Path, *, limit: int, least: int = 1) -> bytes:
    """The content of a file of `least` to `limit` bytes; the size is checked before anything is read.

    Args:
        file: The file to read.
        limit: Largest size in bytes.
        least: Smallest size in bytes.

    Raises:
        DataFileError: The file is missing, a folder, unreadable or of another size.
    """
    size = require_size(file, limit=limit, least=least)
    with reading(file), open(file, "rb") as stream:
        content = stream.read(size + 1)  # Python allocates what is asked for, before it reads
    if len(content) != size:
        raise format_error(file, "size", f"{size} bytes", "a file that changed while it was read")
    return content


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """A context that turns errors of the system and of decompressors into DataFileError for `file`."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise format_error(file, "file", "a readable file", f"{type(error).__name__}: {error}") from error


def read_ascii(file: Path, *, limit: int) -> str:
    """The text of an ASCII file of at most `limit` bytes, with line ends as \\n. Raises DataFileError."""
    content = read_bounded(file, limit=limit)
    try:
        return content.decode("ascii").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise format_error(
            file, f"byte {error.start}", "ASCII text", f"the byte {content[error.start]:#04x}"
        ) from error


def read_lines(file: Path) -> list[str]:
    """The lines of an ASCII file of at most 1 MiB, without surrounding white space.

    The last line must end in a line break: without one, its last number may have lost digits. Raises DataFileError.
    """
    text = read_ascii(file, limit=_LARGEST_TEXT)
    if not text.endswith("\n"):
        raise format_error(file, "end of file", "a line break", shown(text[-20:]))
    return [line.strip() for line in text.split("\n")]


def strict_float(text: str) -> float:
    """The value of a plain decimal number; NaN for all other text (`nan`, `inf`, `1_0`, words, overflow)."""
    value = float(text) if _FLOAT.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def require_range(
    file: Path, field: str, values: NDArray[np.floating], low: float, high: float, *, unit: str = ""
) -> None:
    """Raise DataFileError unless every value lies in [low, high]; NaN does not."""
    inside = (values >= low) & (values <= high)
    if not bool(inside.all()):
        first = float(values[~inside].flat[0])
        expected = f"numbers in {low:g}..{high:g} {unit}".rstrip()
        raise format_error(file, field, expected, f"{int((~inside).sum())} others ({first:g})")
