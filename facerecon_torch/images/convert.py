"""Every form in which a program holds an image, as the tensor that the package works on."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facerecon_torch.images.open import MAX_MEGAPIXELS
from facerecon_torch.images.read import Pixels, decode_pixels, pixels_of, read_pixels, require_unit_range

__all__ = ["as_pixels"]

_CHANNELS = (1, 3, 4)
_ACCEPTED = (
    "a path, bytes, a binary file, a PIL image, an array [H, W] or [H, W, 1|3|4] of uint8, uint16 or floats in [0, 1], "
    "or a tensor [1|3|4, H, W] of uint8, uint16 or floats in [0, 1]"
)


def as_pixels(image: object, *, max_megapixels: float | int = MAX_MEGAPIXELS) -> Pixels:
    """The RGB tensor [3, H, W] of one image: uint8, or floats in [0, 1].

    Grey is repeated into three channels, transparency is laid over white, 16 bits become floats. The EXIF orientation
    of files and PIL images is applied. Tensors keep their device.

    Args:
        image: a path, bytes, an open binary file, a PIL image, a numpy array [H, W] or [H, W, 1|3|4], or a tensor
            [1|3|4, H, W].
        max_megapixels: larger files and PIL images are refused before they are decoded.

    Raises:
        TypeError: another type, or numbers that are neither uint8, uint16 nor floating point.
        ValueError: another shape, or floats outside [0, 1].
        ImageFileError: a file that is missing, too large or cannot be decoded.

    Example:
        >>> as_pixels("photo.jpg").shape
        torch.Size([3, 480, 640])
    """
    if isinstance(image, (str, os.PathLike)):
        return read_pixels(os.fspath(image), max_megapixels=max_megapixels)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_pixels(bytes(image), Path("<bytes>"), max_megapixels=max_megapixels)
    if isinstance(image, Image.Image):
        return pixels_of(image, Path("<PIL image>"), max_megapixels=max_megapixels)
    if isinstance(image, Tensor):
        return _rgb(image, f"a tensor of {str(image.dtype).removeprefix('torch.')} {list(image.shape)}")
    if isinstance(image, np.ndarray):
        return _rgb(_channels_first(image), f"an array of {image.dtype} {list(image.shape)}")
    if isinstance(image, io.TextIOBase):
        raise TypeError(f"image must be {_ACCEPTED}; got a file opened as text: open it with 'rb'")
    if callable(getattr(image, "read", None)):
        name = Path(str(getattr(image, "name", "<file>")))
        return decode_pixels(_content(image), name, max_megapixels=max_megapixels)
    raise TypeError(f"image must be {_ACCEPTED}; got {type(image).__name__}")


def _content(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise TypeError(f"an image file must be opened as binary; its read() gave {type(data).__name__}")
    return data


def _channels_first(array: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    if array.dtype.kind not in "fu" or array.dtype.itemsize > 8:
        raise TypeError(f"image must be {_ACCEPTED}; got an array of {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in _CHANNELS:
        raise ValueError(f"image must be {_ACCEPTED}; got an array of {array.dtype} {list(array.shape)}")
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    return torch.from_numpy(native.copy()).permute(2, 0, 1)


def _rgb(image: Tensor, came: str) -> Pixels:
    if image.ndim != 3 or image.shape[0] not in _CHANNELS or 0 in image.shape:
        raise ValueError(f"image must be {_ACCEPTED}; got {came}")
    if image.dtype == torch.uint16:
        image = image.to(torch.float32) / 65535
    elif image.dtype in (torch.float16, torch.bfloat16):
        image = image.to(torch.float32)
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise TypeError(f"image must be {_ACCEPTED}; got {came}")
        require_unit_range(image, came)
    if image.shape[0] == 4:
        image = _over_white(image)
    return image.expand(3, -1, -1)


def _over_white(image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        wide = image.to(torch.int32)
        colour, alpha = wide[:3], wide[3:]
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    return image[:3] * image[3:] + (1 - image[3:])
