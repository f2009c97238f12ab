"""NPY files and NPZ files (a zip of `NAME.npy` members), read without pickles; every count is checked before memory is
allocated."""

import io
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from facerecon_torch.formats.format_errors import format_error, read_bounded, require_size

__all__ = ["read_npy", "read_npz"]

LARGEST = 1 << 33
_DEFLATE = 1032  # at most so many bytes come out of one
_SUFFIX = ".npy"
_KINDS = "fiubU"  # no objects, which would be a pickle; no records, dates or bytes
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError, RuntimeError, ValueError)


def read_npz(path: str | os.PathLike[str], *, limit: int = LARGEST) -> dict[str, NDArray[Any]]:
    """The arrays of numbers or text by name, read-only; arrays of other types are left out.

    Args:
        path: The file.
        limit: Largest size in bytes, of the file and of its unpacked members together.

    Raises:
        DataFileError: The file is not a complete zip of npy files, or exceeds `limit`.
    """
    file = Path(path)
    limit = min(limit, _DEFLATE * require_size(file, limit=limit))
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > limit:
                raise format_error(file, "size", f"at most {limit} bytes unpacked", "more")
            contents = {member.filename: archive.read(member) for member in members}
    except _UNREADABLE as error:
        raise format_error(file, "file", "a whole .npz file", f"{type(error).__name__}: {error}") from error
    for name, content in contents.items():
        if not name.endswith(_SUFFIX):
            raise format_error(file, "members", f"names that end in {_SUFFIX}", repr(name))
        array = _array(file, name, content)
        if array is not None:
            arrays[name.removesuffix(_SUFFIX)] = array
    return arrays


def read_npy(path: str | os.PathLike[str], *, limit: int = LARGEST) -> NDArray[Any]:
    """The array of numbers or text in a file, read-only.

    Args:
        path: The file.
        limit: Largest size in bytes.

    Raises:
        DataFileError: The file is no complete npy file, holds something else, or exceeds `limit`.
    """
    file = Path(path)
    array = _array(file, "content", read_bounded(file, limit=limit))
    if array is None:
        raise format_error(file, "content", "an array of numbers or text", "an array of another type")
    return array


def _array(file: Path, name: str, content: bytes) -> NDArray[Any] | None:
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, column_major, dtype = read(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError, EOFError, struct.error) as error:
        raise format_error(file, name, "a header of an npy file (version 1 or 2)", type(error).__name__) from error
    if dtype.kind not in _KINDS:
        return None
    count = dtype.itemsize
    for size in shape:
        count *= size
    left = len(content) - stream.tell()
    if count != left or min(shape, default=0) < 0 or dtype.itemsize == 0:
        raise format_error(file, name, f"{count} bytes ({dtype} of shape {shape})", f"{left} bytes")
    values = np.frombuffer(content, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if column_major else "C")
