"""Ordinary JPEGs: what their header says, and decoding them straight into a tensor.

Ordinary is what cameras write: 8 bits, three components, sequential or progressive Huffman coding. Everything else, and
every file whose header is in doubt, is left to Pillow (images/read.py), which decodes the same pixels.
"""

import importlib.util
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

__all__ = ["JpegHeader", "decode_ordinary_jpeg", "jpeg_header", "turn_upright"]

_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}  # lossless, arithmetic, hierarchical
_SCAN, _APP1 = 0xDA, 0xE1
_ORIENTATION = 0x0112
_SHORT = 3  # TIFF's type of 16-bit numbers
_RGB = 3  # torchvision's ImageReadMode.RGB


@dataclass(frozen=True)
class JpegHeader:
    """Size as stored, px, and how the picture is to be turned upright (EXIF, 1: it is)."""

    height: int
    width: int
    baseline: bool
    orientation: int


def jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of an ordinary JPEG, or None: not a JPEG, not ordinary, or damaged."""
    try:
        return _walk(data)
    except (struct.error, IndexError):
        return None


def decode_ordinary_jpeg(data: bytes) -> UInt8[Tensor, "3 height width"] | None:
    """The upright RGB bytes of an ordinary JPEG; None where Pillow has to look at it."""
    header, decode = jpeg_header(data), _decoder()
    if header is None or decode is None:
        return None
    try:
        # bytearray, because torch warns of memory that it may not write to
        stored = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB, False)
    except RuntimeError:
        return None
    return turn_upright(stored, header.orientation)


@lru_cache(maxsize=1)
def _decoder() -> Callable[..., Any] | None:
    """torchvision's JPEG decoder without the rest of torchvision, whose import takes seconds; None where it is not
    found, and then Pillow decodes."""
    package = importlib.util.find_spec("torchvision")
    folders = (package and package.submodule_search_locations) or ()
    libraries = [path for folder in folders for path in Path(folder).glob("image*") if path.suffix in (".so", ".pyd")]
    for library in libraries:
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
            found: Callable[..., Any] = torch.ops.image.decode_jpeg
        except (OSError, AttributeError):
            continue
        return found
    return None


def turn_upright(stored: Shaped[Tensor, "c h w"], orientation: int) -> Shaped[Tensor, "c height width"]:
    """A view of a stored picture, turned as the EXIF orientation 1..8 asks."""
    if orientation >= 5:
        stored = stored.mT
    mirrored = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation)
    return stored if mirrored is None else stored.flip(mirrored)


def _walk(data: bytes) -> JpegHeader | None:
    """Segment by segment to the first scan."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    orientation, frame, at = 1, None, 2
    while True:
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker in (*_SEQUENTIAL, _PROGRESSIVE):
            frame = (marker, *struct.unpack_from(">BHHB", body))
        elif marker in _OTHER_FRAMES:
            return None
        elif marker == _APP1:
            turned = _orientation(body)
            if turned is None:
                return None
            orientation = turned if turned != 1 else orientation
        elif marker == _SCAN:
            break
        at += 2 + length
    return _ordinary(frame, orientation)


def _ordinary(frame: tuple[int, ...] | None, orientation: int) -> JpegHeader | None:
    if frame is None:
        return None
    marker, bits, height, width, components = frame
    if bits != 8 or components != 3 or height * width == 0:
        return None
    return JpegHeader(height, width, marker in _SEQUENTIAL[:1], orientation)


def _orientation(body: bytes) -> int | None:
    """The orientation that an APP1 segment holds, 1 where it holds none; None where that is not plain to see."""
    if body[:6] != b"Exif\0\0":
        return None if re.search(rb"Orientation", body) else 1
    tiff = body[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    found = 1
    for k in range(entries):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * k)
        if tag == _ORIENTATION:
            if kind != _SHORT or count != 1 or not 1 <= value <= 8:
                return None
            found = value
    return found
