"""MATLAB 5 files: their variables one by one, with every count checked.

SciPy's reader can crash the process on damaged tags, so it is not used.

    128 bytes of header | elements: uint32 type, uint32 bytes, payload (up to 4 bytes: the count in the type's upper
    half and the payload in place of it); a compressed element unpacks to one other; a matrix is elements padded to 8
    bytes: flags, dimensions, name, then by its class
        numeric: the values, column-major, in any numeric type that holds them
        cell:    one matrix per cell, column-major
        struct:  bytes per field name, the names, then one matrix per field for each struct of the array
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.formats.format_errors import format_error, read_bounded

__all__ = ["MatVariable", "iter_variables"]

_HEADER = 128
_LIMIT = 16 * 1024 * 1024
_DEFLATE = 1032  # at most so many bytes come out of one
_DEEPEST = 8  # structs in cells in structs
_COMPRESSED, _MATRIX, _INT8, _INT32, _UINT32 = 15, 14, 1, 5, 6
_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CELL, _STRUCT = 1, 2
_NUMERIC = range(6, 16)  # classes double, single, int8 .. uint64
_COMPLEX = 0x0800


@dataclass(frozen=True, slots=True)
class MatVariable:
    """One variable, or one member of a cell array or struct; a member of a struct has the name of its field.

    `values` is None unless the variable is a real numeric matrix. `cells` are the members of a cell array in
    column-major order. `fields` maps each field of a struct array to its value in every struct.
    """

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.generic] | None
    cells: "tuple[MatVariable, ...]" = ()
    fields: "dict[str, tuple[MatVariable, ...]]" = field(default_factory=dict)


@dataclass
class _Cursor:
    """A position in a block of bytes; `where` names the block in errors."""

    file: Path
    where: str
    content: memoryview
    at: int = 0

    def element(self, *, padded: bool) -> tuple[int, memoryview]:
        """The type and payload of the next element. Raises DataFileError where the bytes end before the payload."""
        kind, count, start = self._tag()
        end = start + count
        if end > len(self.content):
            expected = f"{count} bytes at {start} (element of type {kind})"
            raise format_error(self.file, self.where, expected, f"{max(len(self.content) - start, 0)} bytes")
        small = start == self.at + 4
        self.at = start + 4 if small else end + (-count % 8 if padded else 0)
        return kind, self.content[start:end]

    def _tag(self) -> tuple[int, int, int]:
        if len(self.content) - self.at < 8:
            left = max(len(self.content) - self.at, 0)
            raise format_error(self.file, self.where, "an element's tag of 8 bytes", f"{left} bytes")
        first, count = struct.unpack_from("<II", self.content, self.at)
        if first >> 16 == 0:
            return first, count, self.at + 8
        if first >> 16 > 4:
            raise format_error(self.file, self.where, "at most 4 bytes in a short element", str(first >> 16))
        return first & 0xFFFF, first >> 16, self.at + 4


def iter_variables(file: Path, *, limit: int = _LIMIT) -> Iterator[MatVariable]:
    """The variables of the file, in order.

    Args:
        file: A little-endian MATLAB 5 file.
        limit: Largest size in bytes, of the file and of each unpacked variable.

    Raises:
        DataFileError: The file has another format, contradictory counts, or exceeds `limit`.
    """
    cursor = _Cursor(file, "content", memoryview(_content(file, limit)), _HEADER)
    while cursor.at < len(cursor.content):
        kind, payload = cursor.element(padded=False)
        if kind == _COMPRESSED:
            unpacked = memoryview(_unpacked(file, payload, limit))
            kind, payload = _Cursor(file, "compressed variable", unpacked).element(padded=True)
        if kind != _MATRIX:
            raise format_error(
                file, "content", "variables (element type 14 or 15)", f"type {kind} before byte {cursor.at}"
            )
        yield _variable(file, payload)


def _content(file: Path, limit: int) -> bytes:
    content = read_bounded(file, least=_HEADER + 1, limit=limit)
    if content[:6] != b"MATLAB" or content[124:128] != b"\x00\x01IM":
        actual = f"{content[:6]!r} .. {content[124:128]!r}"
        if content[:10] == b"MATLAB 7.3":
            actual = "MATLAB 7.3 (HDF5): save it again in MATLAB with save(..., '-v7')"
        raise format_error(file, "header", "a little-endian MATLAB 5 file (b'MATLAB' .. version 0x0100, b'IM')", actual)
    return content


def _unpacked(file: Path, payload: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(payload, min(limit, _DEFLATE * len(payload) + 1024))
    except zlib.error as error:
        raise format_error(file, "compressed variable", "zlib data", str(error)) from error
    if not stream.eof:  # also says that the checksum was there and right
        raise format_error(
            file, "compressed variable", f"a whole stream of up to {limit} bytes", "a longer or a cut one"
        )
    return content


def _variable(file: Path, payload: memoryview, member: str = "", depth: int = 0) -> MatVariable:
    if member and len(payload) == 0:  # how an empty member may be written
        return MatVariable(member, (0, 0), None)
    cursor = _Cursor(file, member or "variable", payload)
    flags = _numbers(cursor, "flags", _UINT32)
    sizes = _numbers(cursor, "dimensions", _INT32)
    kind, name = cursor.element(padded=True)
    if kind != _INT8 or not bytes(name).isascii() or len(flags) != 2 or len(sizes) < 2 or min(sizes) < 0:
        actual = f"flags {flags}, dimensions {sizes[:4]}, name of type {kind}"
        raise format_error(file, cursor.where, "two flags, two or more dimensions and an ASCII name", actual)
    shape, label, form = tuple(sizes), member or bytes(name).decode("ascii"), flags[0] & 0xFF
    if depth > _DEEPEST:
        raise format_error(file, label, f"at most {_DEEPEST} arrays inside each other", "more")
    if form == _CELL:
        return MatVariable(label, shape, None, cells=_members(cursor, [label] * _count(cursor, label, shape, 1), depth))
    if form == _STRUCT:
        return MatVariable(label, shape, None, fields=_fields(cursor, label, shape, depth))
    if form not in _NUMERIC or flags[0] & _COMPLEX:
        return MatVariable(label, shape, None)
    return MatVariable(label, shape, _matrix(cursor, label, shape))


def _numbers(cursor: _Cursor, name: str, wanted: int) -> list[int]:
    kind, payload = cursor.element(padded=True)
    if kind != wanted or len(payload) % 4 or len(payload) > 32:
        expected = f"whole numbers of type {wanted} in up to 32 bytes"
        raise format_error(cursor.file, name, expected, f"type {kind}, {len(payload)} bytes")
    return [int(value) for value in np.frombuffer(payload, "<u4" if wanted == _UINT32 else "<i4")]


def _count(cursor: _Cursor, name: str, shape: tuple[int, ...], per_entry: int) -> int:
    """The number of members of a cell or struct array, at most one for every 8 remaining bytes."""
    count = per_entry
    for size in shape:
        count *= size
    left = len(cursor.content) - cursor.at
    if 8 * count > left:
        raise format_error(cursor.file, name, f"{count} members of at least 8 bytes (shape {shape})", f"{left} bytes")
    return count


def _members(cursor: _Cursor, labels: list[str], depth: int) -> tuple[MatVariable, ...]:
    members = []
    for label in labels:
        kind, payload = cursor.element(padded=True)
        if kind != _MATRIX:
            raise format_error(cursor.file, label, "a matrix (element type 14)", f"type {kind}")
        members.append(_variable(cursor.file, payload, label, depth + 1))
    return tuple(members)


def _fields(cursor: _Cursor, name: str, shape: tuple[int, ...], depth: int) -> dict[str, tuple[MatVariable, ...]]:
    width = _numbers(cursor, f"{name}: bytes per field name", _INT32)
    kind, joined = cursor.element(padded=True)
    if kind != _INT8 or len(width) != 1 or width[0] < 1 or len(joined) % width[0] or not bytes(joined).isascii():
        expected = "one positive number of bytes per field, and ASCII names of that length"
        raise format_error(cursor.file, name, expected, f"{width}, {len(joined)} bytes of type {kind}")
    parts = [bytes(joined[k : k + width[0]]) for k in range(0, len(joined), width[0])]
    labels = [part.partition(b"\0")[0].decode("ascii") for part in parts]
    if len(set(labels)) != len(labels) or "" in labels:
        raise format_error(cursor.file, name, "field names that differ from each other", repr(labels[:12]))
    if not labels:
        return {}
    structs = _count(cursor, name, shape, len(labels)) // len(labels)
    members = _members(cursor, [f"{name}.{label}" for label in labels] * structs, depth)
    return {label: members[k :: len(labels)] for k, label in enumerate(labels)}


def _matrix(cursor: _Cursor, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    kind, payload = cursor.element(padded=True)
    if kind not in _TYPES:
        raise format_error(cursor.file, name, f"values of a type in {sorted(_TYPES)}", f"type {kind}")
    dtype, count = np.dtype(_TYPES[kind]), 1
    for size in shape:
        count *= size
    if len(payload) != count * dtype.itemsize:
        expected = f"{count * dtype.itemsize} bytes ({dtype} of shape {shape})"
        raise format_error(cursor.file, name, expected, f"{len(payload)} bytes")
    return np.frombuffer(payload, dtype).reshape(shape, order="F")
