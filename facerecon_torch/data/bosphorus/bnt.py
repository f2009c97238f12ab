"""Bosphorus range grids (.bnt): little-endian, without padding.

uint16 rows, uint16 columns, float64 background marker, uint16 length of the image's name, the name, uint32 count of
doubles (rows * columns * 5), then five planes of float64: x, y, z (mm), u, v. A file has 18 + length + 8 * count
bytes. Its first row is the bottom of the face; here the first row is the top.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.data.recordings import LARGEST_COORDINATE, RangeGrid
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import format_error, reading, require_data_file, shown

__all__ = ["BosphorusScan", "read_bnt", "write_bnt"]

_START = struct.Struct("<HHdH")
_COUNT = struct.Struct("<I")
_FIXED_BYTES = _START.size + _COUNT.size
_PLANES = ("x", "y", "z", "u", "v")
_BACKGROUND = -1e9
_TEXTURE_RANGE = (-1.0, 2.0)  # real u and v lie in (0, 1)


@dataclass(frozen=True)
class BosphorusScan:
    """A range grid, the name of its picture and the place of each cell in it.

    `texture` [rows, columns, 2] holds u (from the left) and v (from the top) as fractions of the picture's width and
    height, also for cells that were not measured. `background` is the number in mm that marks these cells in the file.
    Raises TypeError or ValueError for shapes and values that do not fit.
    """

    grid: RangeGrid
    texture: Tensor
    image_name: str
    background: float = _BACKGROUND

    def __post_init__(self) -> None:
        if not isinstance(self.texture, Tensor):
            raise TypeError(f"texture must be a tensor; got {type(self.texture).__name__}")
        if self.texture.shape != (*self.grid.shape, 2) or not self.texture.is_floating_point():
            got = f"{self.texture.dtype} {tuple(self.texture.shape)}"
            raise ValueError(f"texture must be floats of shape {(*self.grid.shape, 2)}; got {got}")
        low, high = _TEXTURE_RANGE
        if not bool(((self.texture >= low) & (self.texture <= high)).all()):
            raise ValueError(f"texture coordinates must lie in [{low:g}, {high:g}]")
        if not _is_file_name(self.image_name):
            raise ValueError(f"image_name must be a plain ASCII file name; got {self.image_name!r}")
        if not np.isfinite(self.background) or bool((self.grid.measured == self.background).any()):
            raise ValueError(f"background must be finite and differ from every coordinate; got {self.background}")

    def pixels(self, height: int, width: int) -> Tensor:
        """The pixel of each cell, [rows, columns, 2]; (0, 0) is the centre of the first pixel.

        u * width and v * height count pixels from 1.
        """
        return self.texture * self.texture.new_tensor([width, height]) - 1


def read_bnt(path: str | os.PathLike[str]) -> BosphorusScan:
    """The scan in float64; the first row is the top.

    Raises:
        DataFileError: The file is missing, its sizes contradict each other, its image name is no file name, or a
            measured point (10 m) or texture coordinate ([-1, 2]) is not finite or out of range.
    """
    file = require_data_file(path, (".bnt",))
    with reading(file), open(file, "rb") as stream:
        rows, columns, background, name = _read_header(stream, file)
        x, y, z, u, v = (_read_plane(stream, file, plane, (rows, columns)) for plane in _PLANES)
    hole = (x == background) | (y == background) | (z == background)
    if hole.all():
        raise format_error(file, "z", "at least one measured point", f"only the background {background:g}")
    for plane, values in zip(_PLANES, (x, y, z)):
        _require_range(file, plane, values[~hole], (-LARGEST_COORDINATE, LARGEST_COORDINATE))
    for plane, values in zip("uv", (u, v)):
        _require_range(file, plane, values, _TEXTURE_RANGE)
    points = np.where(hole[..., None], 0.0, np.stack([x, y, z], axis=-1))
    grid = RangeGrid(torch.from_numpy(points), torch.from_numpy(~hole))
    return BosphorusScan(grid, torch.from_numpy(np.stack([u, v], axis=-1)), name, background)


def write_bnt(scan: BosphorusScan, path: str | os.PathLike[str]) -> Path:
    """The path of a .bnt file; `read_bnt` restores the same scan.

    Raises ValueError for another suffix and for more than 65535 rows or columns.
    """
    target = Path(path)
    rows, columns = scan.grid.shape
    if target.suffix.lower() != ".bnt":
        raise ValueError(f"path must end in .bnt; got {target}")
    if max(rows, columns) > 0xFFFF or rows * columns * len(_PLANES) > 0xFFFFFFFF:
        raise ValueError(f"a .bnt file holds at most 65535 rows and columns and 2^32 numbers; got {rows} x {columns}")
    name = scan.image_name.encode("ascii")
    points = scan.grid.points.detach().double()
    points = points.where(scan.grid.valid[..., None], points.new_tensor(scan.background))
    cells = torch.cat([points, scan.texture.detach().to(points)], dim=-1).flip(0).cpu().numpy()
    with replacing(target) as aside, open(aside, "wb") as stream:
        stream.write(_START.pack(rows, columns, scan.background, len(name)) + name)
        stream.write(_COUNT.pack(rows * columns * len(_PLANES)))
        for plane in range(len(_PLANES)):
            stream.write(cells[..., plane].astype("<f8").tobytes())
    return target


def _read_header(stream: BinaryIO, file: Path) -> tuple[int, int, float, str]:
    """Rows, columns, background and image name. All sizes are checked before the planes are read."""
    size = os.fstat(stream.fileno()).st_size
    if size < _FIXED_BYTES:
        raise format_error(file, "size", f"at least {_FIXED_BYTES} bytes", f"{size} bytes")
    rows, columns, background, length = _START.unpack(stream.read(_START.size))
    if not (rows and columns):
        raise format_error(file, "nrows, ncols", "at least 1 row and 1 column", f"{rows} x {columns}")
    wanted = _FIXED_BYTES + length + 8 * rows * columns * len(_PLANES)
    if size != wanted:
        got = f"{size} bytes"
        raise format_error(file, "size", f"{wanted} bytes for {rows} x {columns} cells and a name of {length}", got)
    if not np.isfinite(background):
        raise format_error(file, "zmin", "a finite background marker", background)
    name = stream.read(length).decode("latin-1")
    if not _is_file_name(name):
        raise format_error(file, "image name", "a plain ASCII file name", shown(name))
    (count,) = _COUNT.unpack(stream.read(_COUNT.size))
    if count != rows * columns * len(_PLANES):
        raise format_error(file, "count of numbers", f"{rows} x {columns} x 5 = {rows * columns * 5}", count)
    return rows, columns, background, name


def _read_plane(stream: BinaryIO, file: Path, plane: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    wanted = 8 * shape[0] * shape[1]
    content = stream.read(wanted)
    if len(content) != wanted:
        raise format_error(file, plane, f"{wanted} bytes", f"{len(content)} bytes")
    upward = np.frombuffer(content, dtype="<f8").reshape(shape)
    return np.ascontiguousarray(upward[::-1], dtype=np.float64)


def _require_range(file: Path, plane: str, values: NDArray[np.float64], limits: tuple[float, float]) -> None:
    good = (values >= limits[0]) & (values <= limits[1])  # this form refuses NaN too
    if not good.all():
        got = f"{int((~good).sum())} others, the first {values[~good][0]:g}"
        raise format_error(file, plane, f"numbers in [{limits[0]:g}, {limits[1]:g}]", got)


def _is_file_name(name: str) -> bool:
    return 0 < len(name) <= 255 and name.isascii() and name.isprintable() and not set(name) & set("/\\")
