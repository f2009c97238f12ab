"""File -> RGB tensor in [0, 1]: the only place that decodes photographs. (FRGC textures, whose comments matter, have
their own reader.)"""

import logging
import os
import re
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from facerecon_torch.errors import ImageFileError

__all__ = ["IMAGE_SUFFIXES", "list_images", "read_image"]

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
    file = Path(path)
    _require_readable(file)
    try:
        with Image.open(file) as opened:
            if getattr(opened, "is_animated", False) and opened.format != "MPO":
                _say_first_frame(opened.format or "this format")
            opened.load()
            values = _rgb_values(_upright(opened, file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(f"{file}: expected a picture small enough to decode; came {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders answer damaged bytes with almost any type of exception
        raise ImageFileError(f"{file}: {_EXPECTED}; came {_description(file, error)}") from error
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


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


def _require_readable(file: Path) -> None:
    if file.is_dir():
        raise ImageFileError(f"{file}: {_EXPECTED}; came a folder")
    if not file.exists():
        raise ImageFileError(f"{file}: {_EXPECTED}; came nothing: there is no such file")
    if file.is_file() and file.stat().st_size == 0:
        raise ImageFileError(f"{file}: {_EXPECTED}; came a file of zero bytes")


def _description(file: Path, error: Exception) -> str:
    """What a file that would not decode looks like."""
    if isinstance(error, PermissionError):
        return "a file that may not be read (permission denied)"
    with open(file, "rb") as stream:
        head = stream.read(12)
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "an HEIC file: convert it to JPEG or PNG"
    if isinstance(error, UnidentifiedImageError):
        return f"{file.stat().st_size} bytes that begin with {head!r}"
    return f"a damaged, truncated or unsupported file ({type(error).__name__}: {error})"


@lru_cache(maxsize=1)
def _say_first_frame(kind: str) -> None:
    _log.warning("a %s file holds several frames; the first one is used, here and in all later files", kind)


def _upright(image: Image.Image, file: Path) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error) as error:
        _log.warning("%s: its EXIF data are damaged (%s); the picture is used as stored", file, error)
        return image


def _rgb_values(image: Image.Image) -> NDArray[np.float32]:
    """Height x width x 3 in [0, 1] from any mode of Pillow."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_deep_grey(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, seen)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)


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
