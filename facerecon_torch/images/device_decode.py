"""Many JPEGs decoded together on a CUDA device; whatever that cannot do is decoded on the CPU, file by file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import UInt8
from torch import Tensor

from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.jpeg import jpeg_header, turn_upright
from facerecon_torch.images.open import MAX_MEGAPIXELS
from facerecon_torch.images.read import Pixels, decode_pixels

__all__ = ["BatchDecoder", "decode_batch", "nvjpeg"]

BatchDecoder: TypeAlias = Callable[[list[Tensor]], list[Tensor]]  # contents, uint8 -> pictures as stored, uint8


def decode_batch(
    files: Sequence[tuple[Path, bytes]], decode: BatchDecoder, *, max_megapixels: float | int = MAX_MEGAPIXELS
) -> list[UInt8[Tensor, "3 height width"] | Pixels | ImageFileError]:
    """The upright picture of every file, or why there is none, in order.

    `decode` gets the ordinary baseline JPEGs in one list (`nvjpeg` is one such decoder). A list that it refuses is
    halved until the culprits stand alone; those, and all other files, are decoded on the CPU, which has the last word
    and the message. The device's decoder rounds otherwise than the CPU's: the pictures differ by a few of 255 levels.
    """
    headers = [jpeg_header(data) for _, data in files]
    most = max_megapixels * 1e6
    suited = [k for k, h in enumerate(headers) if h is not None and h.baseline and h.height * h.width <= most]
    contents = [torch.frombuffer(bytearray(files[k][1]), dtype=torch.uint8) for k in suited]
    found = dict(zip(suited, _bisected(contents, decode)))
    answers: list[Tensor | ImageFileError] = []
    for k, (path, data) in enumerate(files):
        stored, header = found.get(k), headers[k]
        if stored is not None and header is not None and stored.shape == (3, header.height, header.width):
            answers.append(turn_upright(stored, header.orientation))
        else:
            answers.append(_on_the_cpu(data, path, max_megapixels))
    return answers


def nvjpeg(device: torch.device) -> BatchDecoder:
    """torchvision's decoder on a CUDA device, which uses nvJPEG or the device's own JPEG engine."""
    from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]

    def decode(contents: list[Tensor]) -> list[Tensor]:
        # The decoder has a stream of its own and must not meet memory that queued kernels still use.
        torch.cuda.current_stream(device).synchronize()
        pictures: list[Tensor] = decode_jpeg(contents, mode=ImageReadMode.RGB, device=device)
        return pictures

    return decode


def _bisected(contents: list[Tensor], decode: BatchDecoder) -> list[Tensor | None]:
    """The decoded image of every file; None for files that fail to decode alone."""
    if not contents:
        return []
    try:
        return list(decode(contents))
    except RuntimeError:  # also when memory runs out: a half needs less of it
        if len(contents) == 1:
            return [None]
    middle = len(contents) // 2
    return _bisected(contents[:middle], decode) + _bisected(contents[middle:], decode)


def _on_the_cpu(data: bytes, path: Path, max_megapixels: float | int) -> Pixels | ImageFileError:
    try:
        return decode_pixels(data, path, max_megapixels=max_megapixels)
    except ImageFileError as error:
        return error
