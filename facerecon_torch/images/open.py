"""Image files opened by Pillow: which decoders may run, and how large an image may be, told before it is decoded."""

import math
import struct
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from facerecon_torch.errors import ImageFileError

__all__ = [
    "MAX_MEGAPIXELS",
    "heic_is_readable",
    "is_heic",
    "largest_file",
    "open_image",
    "require_content",
    "require_megapixels",
    "require_pixels",
]

MAX_MEGAPIXELS = 200.0
# No others: Pillow's decoder of EPS starts Ghostscript, and rare ones are rarely tested. MPO is opened as JPEG.
_DECODERS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BYTES_PER_PIXEL = 8  # of the largest uncompressed files: four channels of 16 bits
# What a byte of a file can hold at most: codes of JPEG (Huffman) take a bit for a block of 64, deflate and LZW repeat
# rows. WebP, AVIF and JPEG 2000 have no such limit.
_PIXELS_PER_BYTE = {"PPM": 8, "BMP": 1000, "PNG": 10_000, "GIF": 10_000, "TIFF": 10_000, "JPEG": 10_000}
_PIXELS_PER_BYTE_OF_HUFFMAN = 512
_HEADER_BYTES = 64 * 2**20  # room for profiles, previews and comments


def open_image(data: bytes) -> Image.Image:
    """The image in a file's content, its header read and its pixels not.

    Unlike `Image.open` it neither warns of large images nor refuses them: `require_pixels` does, by the package's own
    bound. Raises UnidentifiedImageError for other formats, and what Pillow raises for damage.
    """
    stream = BytesIO(data)
    for name in (*_DECODERS, "HEIF") if is_heic(data) and heic_is_readable() else _DECODERS:
        if name not in Image.OPEN:
            Image.init()
        factory, accepts = Image.OPEN.get(name, (None, None))
        if factory is None or (accepts is not None and accepts(data[:16]) is not True):
            continue
        try:
            stream.seek(0)
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # as in Image.open: the format is another one
            continue
    raise UnidentifiedImageError("no image in a supported format")


def is_heic(data: bytes) -> bool:
    """Whether a file's content begins as HEIC does."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


@lru_cache(maxsize=1)
def heic_is_readable() -> bool:
    """Whether pillow-heif (the extra `heic`) is installed; Pillow then opens HEIC."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def require_megapixels(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a positive finite number; `name` is how the user spells it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):  # type: ignore[operator]
        raise ValueError(f"{name} must be a positive number of megapixels; got {value!r}")


def require_pixels(width: int, height: int, file: Path, max_megapixels: float | int) -> None:
    """Raise ImageFileError where an image has more pixels than the bound allows."""
    if width * height > max_megapixels * 1e6:
        raise ImageFileError(
            f"{file}: expected an image of at most {max_megapixels:g} megapixels (images.max_megapixels); "
            f"got {width} x {height}, {width * height / 1e6:.0f} megapixels"
        )


def require_content(width: int, height: int, file: Path, length: int, kind: str | None) -> None:
    """Raise ImageFileError where a file of `length` bytes is too short for the pixels that its header claims.

    `kind` is Pillow's name of the format; None: a JPEG with Huffman codes.
    """
    most = _PIXELS_PER_BYTE_OF_HUFFMAN if kind is None else _PIXELS_PER_BYTE.get(kind, math.inf)
    if width * height > most * length:
        raise ImageFileError(
            f"{file}: expected the {width} x {height} pixels that its header claims; got {length} bytes, which cannot "
            "hold them"
        )


def largest_file(max_megapixels: float | int) -> int:
    """Bytes that no file of an image within the bound needs to exceed."""
    return int(max_megapixels * 1e6) * _BYTES_PER_PIXEL + _HEADER_BYTES
