"""One recording of a data set: a photograph and the scan that belongs to it, whichever files they come from.

A data set that can be prepared is a module with `list_recordings` and `read_recording`, named in DATA_SETS.
"""

import importlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from facerecon_torch.data.range_grid import LARGEST_COORDINATE, RangeGrid
from facerecon_torch.structures import Mesh

__all__ = ["DATA_SETS", "RecordedScan", "Recording", "RecordingSource", "choose_kinds", "open_data_set"]

DATA_SETS = {
    "bosphorus": "facerecon_torch.data.bosphorus.recordings",
    "facewarehouse": "facerecon_torch.data.facewarehouse.recordings",
    "frgc": "facerecon_torch.data.frgc.recordings",
}
_N_LANDMARKS = 66


@dataclass(frozen=True)
class Recording:
    """Where the files of one recording lie; nothing of them has been read, and one may be missing.

    `name` is the recording's own in the whole data set and fit to name a file; `kind` is its class in the data set's
    words and `code` what it shows within the class. `files` are all files to read beside `image`. Raises ValueError
    for a name that is none.
    """

    name: str
    subject: str
    kind: str
    code: str
    image: Path
    files: tuple[Path, ...]

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or set(self.name) & set("/\\\0"):
            raise ValueError(f"the name of a recording must be fit to name a file; got {self.name!r}")
        if not self.subject:
            raise ValueError(f"the recording {self.name} must have a subject; got {self.subject!r}")


@dataclass(frozen=True)
class RecordedScan:
    """What the files of one recording hold.

    `surface` is a range grid (rows of a picture) or a mesh, in mm in the scan's own frame: +x image right, +y up, +z
    to the sensor. `pixels` gives the place of each cell [rows, columns, 2] or vertex [V, 2] in `image` ([3, H, W], RGB
    in [0, 1]), in px, (0, 0) at the centre of the first pixel; NaN where it is not known. `labelled` [66, 3] are the
    data set's own landmarks in the scan's frame and the paper's order, NaN where there is none; `marks` [m, 3] are all
    that it labels, in its own order, for pictures. Raises TypeError and ValueError.
    """

    surface: RangeGrid | Mesh
    pixels: Tensor
    image: Tensor
    labelled: Tensor
    marks: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("pixels", "image", "labelled"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise TypeError(f"{name} must be a float tensor; got {getattr(value, 'dtype', type(value).__name__)}")
        places = self.surface.shape if isinstance(self.surface, RangeGrid) else self.surface.vertices.shape[:1]
        if self.pixels.shape != (*places, 2):
            raise ValueError(f"pixels must have the shape {(*places, 2)}; got {tuple(self.pixels.shape)}")
        if self.image.ndim != 3 or self.image.shape[0] != 3 or not self.image.numel():
            raise ValueError(f"image must have the shape (3, H, W); got {tuple(self.image.shape)}")
        if self.labelled.shape != (_N_LANDMARKS, 3):
            raise ValueError(f"labelled must have the shape ({_N_LANDMARKS}, 3); got {tuple(self.labelled.shape)}")
        if self.marks is not None and (self.marks.ndim != 2 or self.marks.shape[1] != 3):
            raise ValueError(f"marks must have the shape (m, 3); got {tuple(self.marks.shape)}")
        if isinstance(self.surface, Mesh) and not bool((self.surface.vertices.abs() <= LARGEST_COORDINATE).all()):
            raise ValueError(f"vertices must be finite and within {LARGEST_COORDINATE:g} mm of the origin")

    @property
    def points(self) -> Tensor:
        """The measured points or the vertices, [n, 3] in mm."""
        return self.surface.measured if isinstance(self.surface, RangeGrid) else self.surface.vertices

    @property
    def point_pixels(self) -> Tensor:
        """The place of each of `points` in the image, [n, 2] in px."""
        return self.pixels[self.surface.valid] if isinstance(self.surface, RangeGrid) else self.pixels

    @property
    def labelled_pixels(self) -> Tensor:
        """Where the labelled landmarks lie in the image, [66, 2] in px: the places of the nearest scan points. NaN for
        landmarks that are not labelled."""
        return self._places(self.labelled)

    @property
    def mark_pixels(self) -> Tensor:
        """Where all marks lie in the image, [m, 2] in px, likewise; without any, the labelled landmarks that are
        known."""
        known = torch.isfinite(self.labelled).all(dim=-1)
        return self._places(self.labelled[known] if self.marks is None else self.marks)

    def _places(self, wanted: Tensor) -> Tensor:
        known = torch.isfinite(wanted).all(dim=-1)
        places = self.pixels.new_full((len(wanted), 2), torch.nan)
        seen = torch.isfinite(self.point_pixels).all(dim=-1)
        if bool(known.any()) and bool(seen.any()):
            points, pixels = self.points[seen], self.point_pixels[seen]
            nearest = torch.cdist(wanted[known].to(points), points).argmin(dim=1)
            places[known] = pixels[nearest]
        return places


@runtime_checkable
class RecordingSource(Protocol):
    """The module of a data set that can be prepared."""

    KINDS: Sequence[str]
    """Every class of recordings that the data set knows."""
    DEFAULT_KINDS: Sequence[str]
    """Those that are taken where nobody names any."""

    def list_recordings(self, root: str | os.PathLike[str], **options: Any) -> list[Recording]:
        """Every recording below `root`, sorted by name; no file is read. Raises DataFileError, saying what was looked
        for and what was found, where `root` does not look like the data set, and where a subject is there twice."""

    def read_recording(self, recording: Recording) -> RecordedScan:
        """Raises DataFileError or ImageFileError, naming the file, where one is missing or damaged."""


def open_data_set(name: str) -> RecordingSource:
    """The module of a data set. Raises ValueError for one that is unknown."""
    if name not in DATA_SETS:
        raise ValueError(f"the data set must be one of {', '.join(DATA_SETS)}; got {name!r}")
    module: RecordingSource = importlib.import_module(DATA_SETS[name])  # type: ignore[assignment]
    return module


def choose_kinds(
    recordings: Sequence[Recording], source: RecordingSource, kinds: Collection[str] | None
) -> list[Recording]:
    """The recordings of the classes asked for, or of the data set's default ones.

    Raises ValueError for a class that the data set does not know, and where no recording is left.
    """
    wanted = tuple(source.DEFAULT_KINDS if kinds is None else kinds)
    unknown = sorted(set(wanted) - set(source.KINDS))
    if unknown or not wanted:
        raise ValueError(f"classes must be among {', '.join(source.KINDS)}; got {', '.join(unknown) or 'none'}")
    chosen = [recording for recording in recordings if recording.kind in wanted]
    if not chosen:
        there = sorted({recording.kind for recording in recordings})
        raise ValueError(f"there must be a recording of the classes {', '.join(wanted)}; got only {', '.join(there)}")
    return chosen
