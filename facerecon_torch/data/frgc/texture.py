"""FRGC v2 textures (.ppm, .ppm.gz): P6 whose header carries the scanner's settings as comments.

The pixels of the picture are the cells of the range grid.
"""

import os
import re
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facerecon_torch.checks import require_finite
from facerecon_torch.data.frgc.compressed import open_data, write_data
from facerecon_torch.formats.format_errors import format_error, reading, require_data_file, shown

__all__ = ["TEXTURE_SUFFIXES", "Texture", "read_texture", "write_texture"]

TEXTURE_SUFFIXES = (".ppm", ".ppm.gz")
_LARGEST_PICTURE = 1 << 26
_LONGEST_LINE = 1 << 12
_MOST_COMMENTS = 1 << 10
_NUMBER = re.compile(rb"\d{1,5}", re.ASCII)


@dataclass(frozen=True)
class Texture:
    """An image [3, rows, columns], RGB in [0, 1], and the comment lines of its header, without #.

    Raises TypeError or ValueError for other shapes and values, and for comments that are not one line of ASCII each.
    """

    image: Tensor
    comments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.image, Tensor):
            raise TypeError(f"image must be a tensor; got {type(self.image).__name__}")
        shape = tuple(self.image.shape)
        if len(shape) != 3 or shape[0] != 3 or not self.image.numel() or not self.image.is_floating_point():
            raise ValueError(f"image must be floats of shape (3, rows, columns); got {self.image.dtype} {shape}")
        require_finite("image", self.image)
        for comment in self.comments:
            if "\n" in comment or comment.endswith("\r") or len(comment) > _LONGEST_LINE - 8 or not comment.isascii():
                raise ValueError(f"a comment must be one short line of ASCII; got {comment!r}")


def read_texture(path: str | os.PathLike[str]) -> Texture:
    """The picture in float32, and the comments of its header.

    Raises DataFileError for a missing or cut-off file, another image format, more than 8 bits per channel, and bytes
    after the last pixel.
    """
    file = require_data_file(path, TEXTURE_SUFFIXES)
    with reading(file), open_data(file) as stream:
        (columns, rows), comments = _read_header(stream, file)
        wanted = rows * columns * 3
        content = stream.read(wanted)
        more = stream.read(1)
    if len(content) != wanted or more:
        got = "more" if more else f"{len(content)} bytes"
        raise format_error(file, "pixels", f"{wanted} bytes for {columns} x {rows} pixels", got)
    pixels = np.frombuffer(content, dtype=np.uint8).reshape(rows, columns, 3).astype(np.float32) / np.float32(255)
    return Texture(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), comments)


def write_texture(texture: Texture, path: str | os.PathLike[str]) -> Path:
    """The path of a .ppm file with 8 bits per channel (compressed if it ends in .gz); values are clamped to [0, 1].

    `read_texture` restores a texture that it read. Raises ValueError for another suffix and for more than 67 million
    pixels.
    """
    target = Path(path)
    rows, columns = texture.image.shape[1:]
    if not target.name.lower().endswith(TEXTURE_SUFFIXES):
        raise ValueError(f"path must end in .ppm or .ppm.gz; got {target}")
    if rows * columns > _LARGEST_PICTURE or max(rows, columns) > 99999 or len(texture.comments) > _MOST_COMMENTS:
        raise ValueError(f"a picture must have at most {_LARGEST_PICTURE} pixels; got {columns} x {rows}")
    head = ["P6", *(f"#{comment}" for comment in texture.comments), f"{columns} {rows}", "255"]
    pixels = (texture.image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    write_data(target, ("".join(line + "\n" for line in head).encode("ascii"), pixels.tobytes()))
    return target


def _read_header(stream: BufferedIOBase, file: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Columns and rows, and the comments of all lines up to the third number."""
    magic = stream.readline(_LONGEST_LINE)
    if magic.strip() != b"P6":
        raise format_error(file, "heading", "'P6'", shown(magic[:20]))
    comments: list[str] = []
    numbers: list[bytes] = []
    while len(numbers) < 3:
        line = stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") or len(comments) > _MOST_COMMENTS:
            raise format_error(file, "header", "width, height and the largest value", shown(line[:20]))
        values, mark, comment = line.partition(b"#")
        if mark:
            comments.append(_comment(comment, file))
        numbers += values.split()
    if len(numbers) != 3 or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise format_error(file, "header", "width, height and the largest value", shown(b" ".join(numbers)))
    columns, rows, largest = (int(number) for number in numbers)
    if largest != 255:
        raise format_error(file, "largest value", 255, largest)
    if not 1 <= rows * columns <= _LARGEST_PICTURE:
        raise format_error(file, "size", f"1 to {_LARGEST_PICTURE} pixels", f"{columns} x {rows}")
    return (columns, rows), tuple(comments)


def _comment(content: bytes, file: Path) -> str:
    try:
        return content.rstrip(b"\r\n").decode("ascii")
    except UnicodeDecodeError as error:
        raise format_error(file, "comment", "ASCII characters", shown(content)) from error
