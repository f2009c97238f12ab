"""One FRGC v2 recording: a range grid with the texture that lies on it pixel by pixel."""

from dataclasses import dataclass
from pathlib import Path

from facerecon_torch.data.frgc.abs_file import read_abs
from facerecon_torch.data.frgc.names import RecordingName, find_texture, parse_name
from facerecon_torch.data.frgc.texture import Texture, read_texture
from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.formats.format_errors import damaged

__all__ = ["Recording", "read_recording"]


@dataclass(frozen=True)
class Recording:
    """Grid and texture have the same rows and columns: pixel (x, y) shows `grid.points[y, x]`."""

    name: RecordingName
    grid: RangeGrid
    texture: Texture


def read_recording(range_file: str | Path) -> Recording:
    """The recording of a .abs or .abs.gz file. Raises DataFileError as its parts do, and where their sizes differ."""
    file = Path(range_file)
    name, grid = parse_name(file), read_abs(file)
    texture_file = find_texture(file)
    texture = read_texture(texture_file)
    size = tuple(texture.image.shape[1:])
    if size != grid.shape:
        raise damaged(texture_file, "rows, columns", f"{grid.shape} as in {file.name}", size)
    return Recording(name, grid, texture)
