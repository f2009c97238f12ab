"""File -> RGB tensor in [0, 1]: the only place that decodes photographs. (FRGC textures, whose comments matter, have
their own reader.)"""

import logging
import os
import re
import struct
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.jpeg import decode_ordinary_jpeg

__all__ = [
    "IMAGE_SUFFIXES",
    "Pixels",
    "decode_pixels",
    "in_unit_range",
    "list_images",
    "pixels_of",
    "read_bytes",
    "read_image",
    "read_pixels",
]

Pixels: TypeAlias = UInt8[Tensor, "*b 3 height width"] | Float[Tensor, "*b 3 height width"]

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
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
_HEIC_SUFFIXES = frozenset({".heic", ".heif"})
_EXPECTED = "expected an image file (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)"
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


def read_image(path: str | os.PathLike[str]) -> Float[Tensor, "3 height width"]:
    """Decode one file to float32 RGB in [0, 1], upright (the EXIF orientation is applied).

    Grey is repeated into three channels; palettes are looked up; transparency is laid over white (a cut-out
    portrait then has the background of a passport photograph); grey of 16 bits keeps all of them; CMYK is
    converted without its colour profile; of an animation or of several pages the first is taken, said once
    per process. Raises ImageFileError (what was expected, what came) for a file that is missing, empty,
    truncated or not an image, for a folder, and for a picture of more than about 179 million pixels.
    """
    return in_unit_range(read_pixels(path)).contiguous()


def read_pixels(path: str | os.PathLike[str]) -> Pixels:
    """What `read_image` reads, as it is stored: uint8 where the file has 8 bits a channel, else float32 in [0, 1].

    A quarter of the memory, or less where only a part of the picture is then needed as floats (`in_unit_range`). The
    answer may be a view whose channels lie together.
    """
    file = Path(path)
    return decode_pixels(read_bytes(file), file)


def read_bytes(file: Path) -> bytes:
    """The content of an image file. Raises ImageFileError as `read_image` does."""
    if file.is_dir():
        raise ImageFileError(f"{file}: {_EXPECTED}; came a folder")
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"{file}: {_EXPECTED}; came nothing: there is no such file") from error
    except PermissionError as error:
        came = "a file that may not be read (permission denied)"
        raise ImageFileError(f"{file}: {_EXPECTED}; came {came}") from error
    except OSError as error:
        came = f"a file that cannot be read ({type(error).__name__}: {error})"
        raise ImageFileError(f"{file}: {_EXPECTED}; came {came}") from error
    if not data:
        raise ImageFileError(f"{file}: {_EXPECTED}; came a file of zero bytes")
    return data


def decode_pixels(data: bytes, file: Path) -> Pixels:
    """`read_pixels` of the content of `file`, whose name is for messages. Raises ImageFileError."""
    ordinary = decode_ordinary_jpeg(data)
    if ordinary is not None:
        return ordinary
    try:
        with Image.open(BytesIO(data)) as opened:
            if getattr(opened, "is_animated", False) and opened.format != "MPO":
                _say_first_frame(opened.format or "this format")
            pixels = pixels_of(opened, file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(f"{file}: expected a picture small enough to decode; came {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders answer damaged bytes with almost any type of exception
        raise ImageFileError(f"{file}: {_EXPECTED}; came {_description(data, error)}") from error
    return pixels


def pixels_of(image: Image.Image, file: Path) -> Pixels:
    """The pixels of an opened PIL image, upright; `file` is for messages. The image may be changed."""
    image.load()
    return torch.from_numpy(_rgb_values(_upright(image, file))).permute(2, 0, 1)


def in_unit_range(pixels: Pixels) -> Float[Tensor, "*b channels height width"]:
    """Bytes as float32 in [0, 1], k -> k / 255; floats as they are."""
    if pixels.dtype != torch.uint8:
        return pixels
    wide = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    # By a tensor: CUDA divides by a number with its rounded inverse. Made there: one from here would wait for the copy.
    return wide.div_(torch.full((), 255.0, dtype=wide.dtype, device=wide.device))


def list_images(folder: str | os.PathLike[str], *, recursive: bool = False) -> list[Path]:
    """Image files of a folder by suffix (any case), in natural order: img2 before img10, capitals not first.

    Hidden files are left out. Raises ImageFileError when `folder` is not a folder; an empty list is an
    answer.
    """
    root = Path(folder)
    if not root.is_dir():
        came = "a file" if root.is_file() else "nothing"
        raise ImageFileError(f"{root}: expected a folder of images; came {came}")
    found = [p for p in (root.rglob("*") if recursive else root.iterdir()) if _is_visible(p.relative_to(root))]
    heic = sum(p.suffix.lower() in _HEIC_SUFFIXES for p in found)
    if heic:
        _log.warning("%s: %d HEIC files are left out; convert them to JPEG or PNG", root, heic)
    images = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(images, key=lambda p: (_natural(p.relative_to(root)), str(p)))


def _is_visible(relative: Path) -> bool:
    return not any(part.startswith(".") for part in relative.parts)


def _natural(path: Path) -> list[list[tuple[int, int, str]]]:
    """Sort key by path part: runs of digits compare as numbers, everything else without case."""
    return [
        [(0, int(run), "") if run.isdecimal() else (1, 0, run) for run in re.findall(r"\d+|\D+", part.casefold())]
        for part in path.parts
    ]


def _description(data: bytes, error: Exception) -> str:
    """What bytes that would not decode look like."""
    head = data[:12]
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "an HEIC file: convert it to JPEG or PNG"
    if isinstance(error, UnidentifiedImageError):
        return f"{len(data)} bytes that begin with {head!r}"
    return f"a damaged, truncated or unsupported file ({type(error).__name__}: {error})"


@lru_cache(maxsize=1)
def _say_first_frame(kind: str) -> None:
    _log.warning("a %s file holds several frames; the first one is used, here and in all later files", kind)


def _upright(image: Image.Image, file: Path) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error) as error:
        _log.warning("%s: its EXIF data are damaged (%s); the picture is used as stored", file, error)
        return image


def _rgb_values(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Height x width x 3 from any mode of Pillow: bytes, or floats in [0, 1] for deep grey."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_deep_grey(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, seen)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _deep_grey(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Grey of more than 8 bits: whole numbers fill 16 bits, floats lie in [0, 1] or [0, 255]."""
    grey = values.astype(np.float64)
    whole = np.issubdtype(values.dtype, np.integer)
    low, high = float(grey.min()), float(grey.max())
    limit = 65535.0 if whole else (1.0 if high <= 1 else 255.0)
    if not (low >= 0 and high <= limit):  # this form refuses NaN too
        wanted = "whole numbers in 0..65535" if whole else "numbers in [0, 1] or [0, 255]"
        raise ValueError(f"grey values must be {wanted}; got {low:g}..{high:g}")
    return (grey / limit).astype(np.float32)
