"""Files that may be compressed, as FRGC ships them: the suffix .gz decides."""

import gzip
from io import BufferedIOBase
from pathlib import Path

from facerecon_torch.images.write import replacing

__all__ = ["open_data", "write_data"]


def open_data(file: Path) -> BufferedIOBase:
    """The bytes of a file, decompressed while they are read; damage shows as OSError, EOFError or zlib.error."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rb")
    return open(file, "rb")


def write_data(file: Path, content: bytes) -> None:
    """Write aside and rename; compressed bytes depend on the content alone, not on the clock or the name."""
    with replacing(file) as aside:
        aside.write_bytes(gzip.compress(content, mtime=0) if file.suffix.lower() == ".gz" else content)
