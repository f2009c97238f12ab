"""What the readers of data sets share: one form of error, one way to open a file, one guard of numbers."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.errors import DataFileError

__all__ = ["damaged", "file_size", "read_ascii", "require_range"]


def damaged(file: Path, field: str, expected: str, came: str) -> DataFileError:
    """The error to raise: it names the file, the field, what was expected and what came."""
    return DataFileError(f"{file}: {field}: expected {expected}; came {came}")


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
