"""Files that may be compressed, as FRGC ships them: the suffix .gz decides."""

import gzip
from collections.abc import Iterable
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path

from facerecon_torch.files import replacing

__all__ = ["open_data", "write_data"]

_LEVEL = 6  # a quarter of the time of 9 for a file 4 % larger


def open_data(file: Path) -> BufferedIOBase:
    """The bytes of a file, decompressed while they are read; damage shows as OSError, EOFError or zlib.error."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rb")
    return open(file, "rb")


def write_data(file: Path, parts: Iterable[bytes]) -> None:
    """Write part after part aside, then rename; compressed bytes depend on the content, not on the clock or name."""
    with replacing(file) as aside, open(aside, "wb") as plain, ExitStack() as stack:
        stream: BufferedIOBase = plain
        if file.suffix.lower() == ".gz":
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=plain, mtime=0)
            stream = stack.enter_context(packed)
        for part in parts:
            stream.write(part)
