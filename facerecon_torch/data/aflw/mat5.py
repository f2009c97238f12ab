"""MATLAB 5 files: a walk over their variables that trusts no count. scipy's reader, faced with damaged tags, can
end the process.

    128 bytes of header | elements: uint32 type, uint32 bytes, payload (up to 4 bytes: the count in the type's upper
    half and the payload in place of it); a compressed element unpacks to one other; a matrix is four elements, each
    padded to 8 bytes: flags, dimensions, name, values (column-major, in any numeric type that holds them)
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.data.damage import damaged, file_size

__all__ = ["MatVariable", "iter_variables"]

_HEADER = 128
_LIMIT = 16 * 1024 * 1024
_COMPRESSED, _MATRIX, _INT8, _INT32, _UINT32 = 15, 14, 1, 5, 6
_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_NUMERIC = range(6, 16)  # classes double, single, int8 .. uint64
_COMPLEX = 0x0800


@dataclass(frozen=True, slots=True)
class MatVariable:
    """One variable; `values` is None where it is no real numeric matrix."""

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.generic] | None


@dataclass
class _Cursor:
    """A place in some bytes; `where` names them in errors."""

    file: Path
    where: str
    content: bytes
    at: int = 0

    def element(self, *, padded: bool) -> tuple[int, bytes]:
        """Type and payload of the next element, both inside the bytes that are there."""
        kind, count, start = self._tag()
        end = start + count
        if end > len(self.content):
            expected = f"{count} bytes at {start} (element of type {kind})"
            raise damaged(self.file, self.where, expected, f"{max(len(self.content) - start, 0)} bytes")
        small = start == self.at + 4
        self.at = start + 4 if small else end + (-count % 8 if padded else 0)
        return kind, self.content[start:end]

    def _tag(self) -> tuple[int, int, int]:
        if len(self.content) - self.at < 8:
            raise damaged(self.file, self.where, "an element's tag of 8 bytes", f"{len(self.content) - self.at} bytes")
        first, count = struct.unpack_from("<II", self.content, self.at)
        if first >> 16 == 0:
            return first, count, self.at + 8
        if first >> 16 > 4:
            raise damaged(self.file, self.where, "at most 4 bytes in a short element", str(first >> 16))
        return first & 0xFFFF, first >> 16, self.at + 4


def iter_variables(file: Path) -> Iterator[MatVariable]:
    """The variables one after the other. Raises DataFileError for a file that is not little-endian MATLAB 5, for
    counts that do not agree, and for more than 16 MiB, packed or unpacked."""
    cursor = _Cursor(file, "content", _content(file), _HEADER)
    while cursor.at < len(cursor.content):
        kind, payload = cursor.element(padded=False)
        if kind == _COMPRESSED:
            kind, payload = _Cursor(file, "compressed variable", _unpacked(file, payload)).element(padded=True)
        if kind != _MATRIX:
            raise damaged(file, "content", "variables (element type 14 or 15)", f"type {kind} before byte {cursor.at}")
        yield _variable(file, payload)


def _content(file: Path) -> bytes:
    size = file_size(file)
    if not _HEADER < size <= _LIMIT:
        raise damaged(file, "size", f"{_HEADER + 1} to {_LIMIT} bytes", f"{size} bytes")
    content = file.read_bytes()
    if content[:6] != b"MATLAB" or content[124:128] != b"\x00\x01IM":
        came = f"{content[:6]!r} .. {content[124:128]!r}"
        raise damaged(file, "header", "a little-endian MATLAB 5 file (b'MATLAB' .. version 0x0100, b'IM')", came)
    return content


def _unpacked(file: Path, payload: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(payload, _LIMIT)
    except zlib.error as error:
        raise damaged(file, "compressed variable", "zlib data", str(error)) from error
    if not stream.eof:  # also says that the checksum was there and right
        raise damaged(file, "compressed variable", f"a whole stream of up to {_LIMIT} bytes", "a longer or a cut one")
    return content


def _variable(file: Path, payload: bytes) -> MatVariable:
    cursor = _Cursor(file, "variable", payload)
    flags = _numbers(cursor, "flags", _UINT32)
    sizes = _numbers(cursor, "dimensions", _INT32)
    kind, name = cursor.element(padded=True)
    if kind != _INT8 or not name.isascii() or len(flags) != 2 or len(sizes) < 2 or min(sizes) < 0:
        came = f"flags {flags}, dimensions {sizes[:4]}, name of type {kind}"
        raise damaged(file, "variable", "two flags, two or more dimensions and an ASCII name", came)
    shape, label = tuple(sizes), name.decode("ascii")
    if flags[0] & 0xFF not in _NUMERIC or flags[0] & _COMPLEX:
        return MatVariable(label, shape, None)
    return MatVariable(label, shape, _matrix(cursor, label, shape))


def _numbers(cursor: _Cursor, field: str, wanted: int) -> list[int]:
    kind, payload = cursor.element(padded=True)
    if kind != wanted or len(payload) % 4 or len(payload) > 32:
        expected = f"whole numbers of type {wanted} in up to 32 bytes"
        raise damaged(cursor.file, field, expected, f"type {kind}, {len(payload)} bytes")
    return [int(value) for value in np.frombuffer(payload, "<u4" if wanted == _UINT32 else "<i4")]


def _matrix(cursor: _Cursor, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    kind, payload = cursor.element(padded=True)
    if kind not in _TYPES:
        raise damaged(cursor.file, name, f"values of a type in {sorted(_TYPES)}", f"type {kind}")
    dtype, count = np.dtype(_TYPES[kind]), 1
    for size in shape:
        count *= size
    if len(payload) != count * dtype.itemsize:
        expected = f"{count * dtype.itemsize} bytes ({dtype} of shape {shape})"
        raise damaged(cursor.file, name, expected, f"{len(payload)} bytes")
    return np.frombuffer(payload, dtype).reshape(shape, order="F")
