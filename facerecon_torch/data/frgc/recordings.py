"""FRGC v2 as recordings SSSSSdNNN: a range grid and its texture. The data set has no landmarks."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.frgc.files import ABS_SUFFIXES, TEXTURE_SUFFIXES, read_abs, read_texture
from facerecon_torch.data.frgc.signature_set import read_signature_set
from facerecon_torch.data.recordings import RecordedScan, Recording
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.format_errors import format_error, shown
from facerecon_torch.landmarks.scheme import N_LANDMARKS

__all__ = [
    "RecordingName",
    "find_texture",
    "list_range_files",
    "parse_name",
    "DEFAULT_KINDS",
    "KINDS",
    "list_recordings",
    "read_recording",
]

_STEM = re.compile(r"(\d{5})d(\d{1,6})", re.ASCII)
KINDS = ("Spring2003range", "Fall2003range", "Spring2004range", "other")
"""The folders of the sessions; `other` is any other folder."""
DEFAULT_KINDS = KINDS
_LARGEST_FACTOR = 16


@dataclass(frozen=True, order=True)
class RecordingName:
    """The numbers of the person and the recording as digits, with leading zeros. Raises ValueError for other text."""

    subject: str
    recording: str

    def __post_init__(self) -> None:
        if not _STEM.fullmatch(self.stem):
            raise ValueError(f"a recording's name must have the form SSSSSdNNN, as in 02463d452; got {self.stem!r}")

    @property
    def stem(self) -> str:
        """The name of the recording's files without their suffixes."""
        return f"{self.subject}d{self.recording}"

    @property
    def next(self) -> "RecordingName":
        """The same person's recording with the next number."""
        return RecordingName(self.subject, str(int(self.recording) + 1).zfill(len(self.recording)))


def parse_name(path: str | Path) -> RecordingName:
    """The parts of the name of a range grid or texture, or of its stem. Raises DataFileError if it does not fit."""
    file = Path(path)
    stem = _stem(file, (*ABS_SUFFIXES, *TEXTURE_SUFFIXES))
    match = _STEM.fullmatch(stem)
    if match is None:
        raise format_error(file, "name", "SSSSSdNNN, as in 02463d452.abs.gz", shown(file.name))
    return RecordingName(match.group(1), match.group(2))


def find_texture(range_file: str | Path) -> Path:
    """The texture of a range grid: the one of the same name, else the one of the next number.

    In the published set the texture of a capture may have the number after that of its range grid. A texture with a
    range grid of its own number is not taken. Raises DataFileError if there is no texture.
    """
    file = Path(range_file)
    name = parse_name(file)
    same, after = (_existing(file.parent, n.stem, TEXTURE_SUFFIXES) for n in (name, name.next))
    if same is not None:
        return same
    taken = _existing(file.parent, name.next.stem, ABS_SUFFIXES)
    if after is not None and taken is None:
        return after
    got = f"only {after.name}, which belongs to {taken.name}" if after and taken else "neither"
    raise format_error(file, "texture", f"{name.stem}.ppm or {name.next.stem}.ppm (or .ppm.gz) beside it", got)


def list_range_files(root: str | Path) -> list[Path]:
    """The range grids below `root`, ordered by person and number, without hidden files.

    Raises DataFileError if there are none, for a name that does not fit, and for a recording with two files.
    """
    folder = Path(root)
    named = [p for p in folder.rglob("*") if p.name.lower().endswith(ABS_SUFFIXES) and p.is_file()]
    found = [p for p in named if not p.name.startswith(".")]
    if not found:
        got = "none" if folder.is_dir() else "no folder"
        raise format_error(folder, "folder", "range grids SSSSSdNNN.abs or .abs.gz in it or below it", got)
    files: dict[RecordingName, Path] = {}
    for file in sorted(found):
        name = parse_name(file)
        if name in files:
            raise format_error(file, "recording", "every recording once", f"the same one at {files[name]}")
        files[name] = file
    ordered = sorted(files, key=lambda name: (name.subject, int(name.recording), name.recording))
    return [files[name] for name in ordered]


def _stem(file: Path, suffixes: Sequence[str]) -> str:
    lower = file.name.lower()
    ending = max((s for s in suffixes if lower.endswith(s)), key=len, default="")
    return file.name[: len(file.name) - len(ending)]


def _existing(folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    return next((p for suffix in suffixes if (p := folder / f"{stem}{suffix}").is_file()), None)


def list_recordings(
    root: str | os.PathLike[str], *, signatures: Iterable[str | os.PathLike[str]] = ()
) -> list[Recording]:
    """The range files below `root`, ordered by name.

    The texture of a range file is named by a signature set. Without a set it is the texture of the same name, else that
    of the next number; `read_recording` raises if there is none.

    Args:
        root: The data set's folder.
        signatures: Files of signature sets.

    Raises:
        DataFileError: There is no range file, a name does not fit, a recording has two files, or a set is damaged.
    """
    folder = Path(root)
    files = list_range_files(folder)
    named = _named_textures(signatures)
    return sorted((_recording(folder, file, named) for file in files), key=lambda recording: recording.name)


def read_recording(recording: Recording) -> RecordedScan:
    """The grid and texture of a recording; the texture may have an integer multiple of the grid's resolution.

    Raises DataFileError for a missing or damaged file and for sizes that do not fit.
    """
    (file,) = recording.files
    grid = read_abs(file)
    if not recording.image.is_file():
        find_texture(file)  # raises with the names that were tried
        raise format_error(recording.image, "file", f"the texture of {file.name}", "nothing")
    image = read_texture(recording.image).image
    labelled = torch.full((N_LANDMARKS, 3), torch.nan, dtype=grid.points.dtype)
    return RecordedScan(grid, _pixels(recording.image, grid.shape, image).to(grid.points), image, labelled)


def _recording(root: Path, file: Path, named: dict[str, str]) -> Recording:
    name = parse_name(file)
    kind = file.parent.name if file.parent.name in KINDS else "other"
    return Recording(name.stem, name.subject, kind, name.recording, _texture(root, file, named), (file,))


def _texture(root: Path, file: Path, named: dict[str, str]) -> Path:
    stem = parse_name(file).stem
    if stem in named:
        given = named[stem]
        places = (file.with_name(given.rpartition("/")[2]), root / given)
        both = [place.with_name(place.name + ending) for place in places for ending in ("", ".gz")]
        return next((place for place in both if place.is_file()), places[0])
    try:
        return find_texture(file)
    except DataFileError:
        return file.with_name(f"{stem}{TEXTURE_SUFFIXES[0]}")


def _named_textures(signatures: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Stem of a range file -> name of its texture, from all sets."""
    named: dict[str, str] = {}
    for path in signatures:
        for one in read_signature_set(path):
            ranges = [name for name in one.files if name.lower().endswith(ABS_SUFFIXES)]
            textures = [name for name in one.files if name.lower().endswith(TEXTURE_SUFFIXES)]
            if len(ranges) != 1 or len(textures) != 1:
                continue  # not a recording of a face in 3D
            stem = parse_name(ranges[0].rpartition("/")[2]).stem
            if named.setdefault(stem, textures[0]) != textures[0]:
                got = f"{shown(named[stem])} and {shown(textures[0])}"
                raise format_error(Path(path), f"texture of {stem}", "the same one everywhere", got)
            if ".." in textures[0].split("/") or textures[0].startswith("/"):
                raise format_error(
                    Path(path), f"texture of {stem}", "a name below the data set's folder", shown(textures[0])
                )
    return named


def _pixels(texture: Path, shape: tuple[int, int], image: Tensor) -> Float[Tensor, "rows columns 2"]:
    """The pixels of the cells: the middle of all pixels of each cell."""
    rows, columns = shape
    height, width = image.shape[1:]
    factor = height // rows
    if not 1 <= factor <= _LARGEST_FACTOR or (height, width) != (rows * factor, columns * factor):
        raise format_error(texture, "rows, columns", f"{rows} x {columns}, or a multiple", f"{height} x {width}")
    x, y = (factor * torch.arange(n, dtype=torch.float64) + (factor - 1) / 2 for n in (columns, rows))
    return torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
