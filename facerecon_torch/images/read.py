"""File -> RGB tensor in [0, 1]: the only place that decodes photographs. (FRGC textures, whose comments matter, have
their own reader.)"""

import logging
import os
import stat
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.jpeg import decode_ordinary_jpeg, jpeg_header, turn_upright
from facerecon_torch.images.open import (
    MAX_MEGAPIXELS,
    heic_is_readable,
    is_heic,
    largest_file,
    open_image,
    require_content,
    require_pixels,
)
from facerecon_torch.runtime.memory import is_out_of_memory

__all__ = [
    "IMAGE_SUFFIXES",
    "Pixels",
    "decode_pixels",
    "image_size",
    "in_bytes",
    "in_unit_range",
    "pixels_of",
    "read_bytes",
    "read_image",
    "read_pixels",
    "require_unit_range",
]

Pixels: TypeAlias = UInt8[Tensor, "*b 3 height width"] | Float[Tensor, "*b 3 height width"]

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
_EXPECTED = "expected an image file (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)"
_BAND_PIXELS = 2**21  # converted at a time
_ORIENTATION, _BITS_PER_SAMPLE, _SAMPLE_FORMAT = 0x0112, 258, 339  # tags of EXIF and TIFF
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


def read_image(
    path: str | os.PathLike[str], *, max_megapixels: float | int = MAX_MEGAPIXELS
) -> Float[Tensor, "3 height width"]:
    """Decode one file to float32 RGB in [0, 1], upright (the EXIF orientation is applied).

    Grey is repeated into three channels; palettes are looked up; transparency is laid over white (a cut-out portrait
    then has the background of a passport photograph); grey of 16 bits keeps all of them; CMYK is converted without its
    colour profile; of an animation or of several pages the first is taken, said once per process.

    Args:
        path: JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, JPEG 2000, AVIF, or with pillow-heif HEIC, told by its content.
        max_megapixels: larger images are refused before they are decoded.

    Raises:
        ImageFileError: a file that is missing, empty, truncated or not an image, a folder, a pipe or device, an image
            beyond `max_megapixels`, or one that does not fit the memory.

    Example:
        >>> read_image("photo.jpg").shape
        torch.Size([3, 480, 640])
    """
    return in_unit_range(read_pixels(path, max_megapixels=max_megapixels)).contiguous()


def read_pixels(path: str | os.PathLike[str], *, max_megapixels: float | int = MAX_MEGAPIXELS) -> Pixels:
    """The image of `read_image` as it is stored: uint8 where the file has 8 bits a channel, else float32 in [0, 1].

    It takes a quarter of the memory, or less where only a part of the image is then needed as floats. The answer may be
    a view whose channels lie together. Arguments and errors are those of `read_image`.

    Example:
        >>> in_unit_range(read_pixels("photo.jpg")[:, 100:200, 100:200])
    """
    file = Path(path)
    return decode_pixels(read_bytes(file, max_megapixels=max_megapixels), file, max_megapixels=max_megapixels)


def read_bytes(file: Path, *, max_megapixels: float | int = MAX_MEGAPIXELS) -> bytes:
    """The content of an image file. Raises ImageFileError as `read_image` does."""
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            came = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe, socket or device"
            raise ImageFileError(f"{file}: {_EXPECTED}; got {came}")
        if about.st_size > largest_file(max_megapixels):
            raise ImageFileError(
                f"{file}: {_EXPECTED}; got {about.st_size / 1e6:.0f} MB, more than {max_megapixels:g} megapixels "
                "(images.max_megapixels) can need"
            )
        data = file.read_bytes()
    except FileNotFoundError as error:
        came = "a link to nothing" if file.is_symlink() else "nothing: there is no such file"
        raise ImageFileError(f"{file}: {_EXPECTED}; got {came}") from error
    except PermissionError as error:
        came = "a file that may not be read (permission denied)"
        raise ImageFileError(f"{file}: {_EXPECTED}; got {came}") from error
    except (OSError, MemoryError, ValueError) as error:
        if isinstance(error, ImageFileError):
            raise
        came = f"a file that cannot be read ({type(error).__name__}: {error})"
        raise ImageFileError(f"{file}: {_EXPECTED}; got {came}") from error
    if not data:
        raise ImageFileError(f"{file}: {_EXPECTED}; got a file of zero bytes")
    return data


def decode_pixels(data: bytes, file: Path, *, max_megapixels: float | int = MAX_MEGAPIXELS) -> Pixels:
    """`read_pixels` of the content of `file`, whose name is for messages. Raises ImageFileError."""
    try:
        header = jpeg_header(data)
        if header is not None:
            require_pixels(header.width, header.height, file, max_megapixels)
            require_content(header.width, header.height, file, len(data), None)
            ordinary = decode_ordinary_jpeg(data)
            if ordinary is not None:
                return ordinary
        with open_image(data) as opened:
            require_pixels(*opened.size, file, max_megapixels)
            require_content(*opened.size, file, len(data), opened.format)
            if getattr(opened, "is_animated", False) and opened.format != "MPO":
                _say_first_frame(opened.format or "this format")
            return pixels_of(opened, file, max_megapixels=max_megapixels)
    except ImageFileError:
        raise
    except Exception as error:  # decoders answer damaged bytes with almost any type of exception
        raise ImageFileError(f"{file}: {_EXPECTED}; got {_description(data, error)}") from error


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) that the header of an image file claims, px; (0, 0) where it cannot be read."""
    header = jpeg_header(data)
    if header is not None:
        return header.height, header.width
    try:
        with open_image(data) as opened:
            return opened.height, opened.width
    except Exception:  # decoding says what is wrong
        return 0, 0


def pixels_of(image: Image.Image, file: Path, *, max_megapixels: float | int = MAX_MEGAPIXELS) -> Pixels:
    """The pixels of an opened PIL image, upright; `file` is for messages. Raises ImageFileError where the image is too
    large, ValueError where its values have no known range."""
    require_pixels(*image.size, file, max_megapixels)
    image.load()
    values = torch.from_numpy(_values(image)).permute(2, 0, 1)
    return turn_upright(values, _orientation(image, file)).expand(3, -1, -1)


def in_unit_range(pixels: Pixels) -> Float[Tensor, "*b channels height width"]:
    """The pixels as floats in [0, 1]: bytes become float32, k -> k / 255; floats stay as they are.

    Example:
        >>> in_unit_range(read_pixels("photo.jpg")).max()
    """
    if pixels.dtype != torch.uint8:
        return pixels
    wide = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    # By a tensor: CUDA divides by a number with its rounded inverse. Made there: one from here would wait for the copy.
    return wide.div_(torch.full((), 255.0, dtype=wide.dtype, device=wide.device))


def in_bytes(
    pixels: UInt8[Tensor, "*b channels height width"] | Float[Tensor, "*b channels height width"],
) -> UInt8[Tensor, "*b channels height width"]:
    """The pixels as bytes: floats in [0, 1] are rounded, after values that drawing left outside are cut off."""
    return pixels if pixels.dtype == torch.uint8 else (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def require_unit_range(images: Tensor | Sequence[Tensor], came: str) -> None:
    """Raise ValueError unless all floats of images on one device lie in [0, 1]; `came` describes them for the message.
    Bytes are in range."""
    listed = [images] if isinstance(images, Tensor) else images
    bounds = [torch.stack(i.detach().aminmax()).double() for i in listed if i.is_floating_point() and i.numel()]
    if not bounds:
        return
    lows, highs = torch.stack(bounds).unbind(1)
    low, high = torch.stack([lows.amin(), highs.amax()]).tolist()  # one wait for the device
    if not (low >= 0 and high <= 1):  # this form refuses NaN too
        hint = "; divide it by 255, or give uint8" if 1 < high <= 255 and low >= 0 else ""
        raise ValueError(f"image must lie in [0, 1]; {came} runs from {low:g} to {high:g}{hint}")


def _description(data: bytes, error: Exception) -> str:
    """A description of bytes that cannot be decoded, for the error message."""
    head = data[:12]
    if is_heic(data):
        advice = (
            "it is damaged" if heic_is_readable() else "install facerecon-torch[heic], or convert it to JPEG or PNG"
        )
        return f"an HEIC file: {advice}"
    if is_out_of_memory(error):
        height, width = image_size(data)
        return f"{width} x {height} pixels, for which the memory is too small"
    if isinstance(error, UnidentifiedImageError):
        return f"{len(data)} bytes that begin with {head!r}"
    return f"a damaged, truncated or unsupported file ({type(error).__name__}: {error})"


@lru_cache(maxsize=1)
def _say_first_frame(kind: str) -> None:
    _log.warning("a %s file holds several frames; the first one is used, here and in all later files", kind)


def _orientation(image: Image.Image, file: Path) -> int:
    """The EXIF orientation 1..8; 1 where there is none, or a damaged one."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error) as error:
        _log.warning("%s: its EXIF data are damaged (%s); the picture is used as stored", file, error)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _values(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Height x width x 3 bytes from any mode of Pillow, or height x width x 1 floats in [0, 1] for deep grey.

    Made in bands of rows, so that what conversions need beside the image and the answer is little.
    """
    width, height = image.size
    deep = image.mode.startswith("I") or image.mode == "F"
    top_value = _deepest(image) if deep else 0.0
    values = np.empty((height, width, 1), np.float32) if deep else np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        part = values[top : top + rows]
        part[...] = _deep_grey(np.asarray(band), top_value)[..., None] if deep else _rgb_band(band)
    return values


def _rgb_band(band: Image.Image) -> NDArray[np.uint8]:
    if band.mode in _ALPHA_MODES or "transparency" in band.info:
        seen = band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", seen.size, (255, 255, 255, 255)), seen)
    return np.asarray(band if band.mode == "RGB" else band.convert("RGB"))


def _deepest(image: Image.Image) -> float:
    """The value of white in grey of more than 8 bits. Raises ValueError for whole numbers of 32 bits, whose white
    nothing tells."""
    if image.mode == "F":
        return 1.0
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    if bits > 16 or tags.get(_SAMPLE_FORMAT, (1,))[0] != 1:
        raise ValueError(f"grey values must be unsigned numbers of at most 16 bits; got {bits} bits, mode {image.mode}")
    return 2.0**bits - 1


def _deep_grey(values: NDArray[np.generic], white: float) -> NDArray[np.float32]:
    grey = values.astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= white):  # this form refuses NaN too
        raise ValueError(f"grey values must be numbers in [0, {white:g}]; got {low:g}..{high:g}")
    return (grey / white).astype(np.float32)
