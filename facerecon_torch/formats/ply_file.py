"""PLY files: vertices, their texture coordinates and polygons, in text or in little- or big-endian bytes.

Other elements and properties are skipped.

    ply | format ascii 1.0 | element NAME COUNT | property TYPE NAME | property list TYPE TYPE NAME | end_header | rows
"""

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.formats.format_errors import format_error, read_bounded, shown, strict_float

__all__ = ["read_ply"]

LARGEST = 1 << 30
_HEADER_LIMIT = 1 << 16
_HEADER_END = re.compile(rb"\n[ \t]*end_header\r?\n")
_CODES = {
    **dict.fromkeys(("char", "int8"), "b"),
    **dict.fromkeys(("uchar", "uint8"), "B"),
    **dict.fromkeys(("short", "int16"), "h"),
    **dict.fromkeys(("ushort", "uint16"), "H"),
    **dict.fromkeys(("int", "int32"), "i"),
    **dict.fromkeys(("uint", "uint32"), "I"),
    **dict.fromkeys(("float", "float32"), "f"),
    **dict.fromkeys(("double", "float64"), "d"),
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_CORNERS = ("vertex_indices", "vertex_index")
_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))


@dataclass(frozen=True)
class _Property:
    name: str
    code: str
    length_code: str = ""  # type of the length of a list; empty for a scalar


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)


def read_ply(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], list[list[int]]]:
    """Vertices [V, 3], texture coordinates [V, 2] or [0, 2], and the corners of every polygon.

    Raises:
        DataFileError: The header is damaged, the rows differ from those that it announces, or a polygon has fewer than
            three corners.
    """
    content = read_bounded(file, limit=LARGEST)
    order, elements, at = _header(file, content)
    body = _Text(file, _words(file, content[at:])) if order == "" else _Bytes(file, content, at, order)
    vertices, uv = np.zeros((0, 3)), np.zeros((0, 2))
    polygons: list[list[int]] = []
    for element in elements:
        if any(prop.length_code for prop in element.properties):
            rows = _rows(body, element)
            polygons = [[int(corner) for corner in row] for row in rows] if element.name == "face" else polygons
        else:
            table = body.table(element)
            vertices, uv = _positions(file, element, table) if element.name == "vertex" else (vertices, uv)
    body.end()
    if min((len(polygon) for polygon in polygons), default=3) < 3:
        raise format_error(file, "element face", "polygons of three or more corners", "one of fewer")
    return vertices, uv, polygons


def _header(file: Path, content: bytes) -> tuple[str, list[_Element], int]:
    end = _HEADER_END.search(content, 0, _HEADER_LIMIT)  # 3DDFA indents the lines of its headers
    lines = content[: end.start() if end else 0].decode("latin-1").replace("\r", "").split("\n")
    if end is None or lines[0] != "ply":
        raise format_error(file, "header", "ply .. end_header", shown(content[:20]))
    order: str | None = None
    elements: list[_Element] = []
    for words in map(str.split, lines[1:]):
        kind = words[0] if words else "comment"
        if kind == "format" and len(words) == 3 and words[1] in _ORDERS and words[2] == "1.0":
            order = _ORDERS[words[1]]
        elif kind == "element" and len(words) == 3 and words[2].isascii() and words[2].isdigit() and len(words[2]) < 10:
            elements.append(_Element(words[1], int(words[2])))
        elif kind == "property" and elements and (described := _property(words[1:])):
            elements[-1].properties.append(described)
        elif kind not in ("comment", "obj_info"):
            raise format_error(file, "header", "format, element, property or comment", shown(" ".join(words)))
    if order is None:
        raise format_error(file, "header", f"a line format with one of {sorted(_ORDERS)}", "none")
    return order, elements, end.end()


def _property(words: list[str]) -> _Property | None:
    if len(words) == 2 and words[0] in _CODES:
        return _Property(words[1], _CODES[words[0]])
    if len(words) == 4 and words[0] == "list" and words[1] in _CODES and words[2] in _CODES:
        described = _Property(words[3], _CODES[words[2]], _CODES[words[1]])
        corners = described.name in _CORNERS
        integral = described.length_code not in "fd" and not (corners and described.code in "fd")
        return described if integral else None
    return None


def _positions(
    file: Path, element: _Element, table: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = [prop.name for prop in element.properties]
    if any(names.count(axis) != 1 for axis in "xyz"):
        raise format_error(file, "element vertex", "one property each of x, y and z", shown(names))
    pair = next((pair for pair in _UV if all(name in names for name in pair)), ())
    uv = table[:, [names.index(name) for name in pair]] if pair else np.zeros((0, 2))
    return table[:, [names.index(axis) for axis in "xyz"]], uv


def _rows(body: "_Text | _Bytes", element: _Element) -> list[list[float | int]]:
    """The corners of every row; its other properties are read and dropped."""
    rows = []
    for _ in range(element.count):
        corners: list[float | int] = []
        for prop in element.properties:
            length = int(body.take(element.name, prop.length_code, 1)[0]) if prop.length_code else 1
            values = body.take(element.name, prop.code, length)
            corners = values if prop.name in _CORNERS else corners
        rows.append(corners)
    return rows


def _words(file: Path, content: bytes) -> list[str]:
    try:
        return content.decode("ascii").split()
    except UnicodeDecodeError as error:
        raise format_error(file, "rows", "ASCII text", f"the byte {content[error.start]:#04x}") from error


@dataclass
class _Text:
    """The rows of a text file, as words."""

    file: Path
    words: list[str]
    at: int = 0

    def take(self, name: str, code: str, count: int) -> list[float | int]:
        """The next `count` numbers; a code of integers requires integral numbers."""
        if not 0 <= count <= len(self.words) - self.at:
            raise format_error(self.file, f"element {name}", f"{count} numbers", f"{len(self.words) - self.at}")
        values = [strict_float(word) for word in self.words[self.at : self.at + count]]
        if any(value != value or (code not in "fd" and value != int(value)) for value in values):
            words = shown(self.words[self.at : self.at + count])
            raise format_error(self.file, f"element {name}", "plain numbers of the type in the header", words)
        self.at += count
        return values

    def table(self, element: _Element) -> NDArray[np.float64]:
        width = len(element.properties)
        return np.array(self.take(element.name, "d", element.count * width)).reshape(-1, max(width, 1))

    def end(self) -> None:
        if self.at != len(self.words):
            raise format_error(self.file, "end of file", f"{self.at} numbers", f"{len(self.words)}")


@dataclass
class _Bytes:
    """The rows of a binary file."""

    file: Path
    content: bytes
    at: int
    order: str

    def _advance(self, name: str, size: int) -> int:
        """The offset of the next `size` bytes."""
        start, left = self.at, len(self.content) - self.at
        if not 0 <= size <= left:
            raise format_error(self.file, f"element {name}", f"{size} bytes at {start}", f"{left} bytes")
        self.at += size
        return start

    def take(self, name: str, code: str, count: int) -> list[float | int]:
        """The next `count` numbers."""
        start = self._advance(name, count * struct.calcsize(self.order + code))
        return list(struct.unpack_from(f"{self.order}{count}{code}", self.content, start))

    def table(self, element: _Element) -> NDArray[np.float64]:
        row = np.dtype([(str(k), self.order + prop.code) for k, prop in enumerate(element.properties)])
        start = self._advance(element.name, row.itemsize * element.count)
        if not element.properties:
            return np.zeros((0, 1))
        rows = np.frombuffer(self.content, row, element.count, start)
        return np.stack([rows[name].astype(np.float64) for name in row.names or ()], axis=1)

    def end(self) -> None:
        if self.at != len(self.content):
            raise format_error(self.file, "end of file", f"{self.at} bytes", f"{len(self.content)} bytes")
