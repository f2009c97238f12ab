"""Recordings of a data set: a photograph and its scan, independent of the file formats they come from.

A scan is a mesh or a range grid: a grid of 3D points, not all of them measured. A data set that can be prepared is a
module with `list_recordings` and `read_recording`, listed in DATA_SETS.
"""

import importlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from facerecon_torch.model.topology import N_LANDMARKS
from facerecon_torch.structures import Mesh

__all__ = [
    "LARGEST_COORDINATE",
    "RangeGrid",
    "DATA_SETS",
    "RecordedScan",
    "Recording",
    "RecordingSource",
    "choose_kinds",
    "open_data_set",
]

LARGEST_COORDINATE = 1e4
"""mm; face scanners measure no points ten metres away, but damaged bytes often decode to such numbers."""
DATA_SETS = {
    "bosphorus": "facerecon_torch.data.bosphorus.recordings",
    "facewarehouse": "facerecon_torch.data.facewarehouse.recordings",
    "frgc": "facerecon_torch.data.frgc.recordings",
}


@dataclass(frozen=True)
class RangeGrid:
    """A grid of range points in the sensor's frame, of which at least one is measured.

    Rows are ordered as in an image: the first is the top, so y falls with the row and x grows with the column. Cells
    that were not measured are set to (0, 0, 0), never NaN: mask them before any bounding box or search.

    Args:
        points: [rows, columns, 3] in mm, +x to image right, +y up, +z towards the viewer.
        valid: [rows, columns], bool; False where nothing was measured.

    Raises:
        TypeError: no tensors.
        ValueError: wrong shapes or dtypes, no measured point, or one that is too far from the origin.
    """

    points: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        if not (isinstance(self.points, Tensor) and isinstance(self.valid, Tensor)):
            raise TypeError(f"points and valid must be tensors; got {type(self.points)} and {type(self.valid)}")
        if self.points.ndim != 3 or self.points.shape[2] != 3 or not self.points.is_floating_point():
            raise ValueError(
                f"points must be floats of shape (rows, columns, 3); got {self.points.dtype} {tuple(self.points.shape)}"
            )
        if self.valid.shape != self.points.shape[:2] or self.valid.dtype != torch.bool:
            raise ValueError(
                f"valid must be bool of shape {tuple(self.points.shape[:2])}; "
                f"got {self.valid.dtype} {tuple(self.valid.shape)}"
            )
        measured = self.points[self.valid]
        if not len(measured):
            raise ValueError("valid must hold at least one measured point; got none")
        if not bool((measured.abs() <= LARGEST_COORDINATE).all()):  # this form refuses NaN too
            raise ValueError(f"measured points must lie within {LARGEST_COORDINATE:g} mm of the origin")
        object.__setattr__(self, "points", self.points.where(self.valid[..., None], 0))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.points.shape[0], self.points.shape[1]

    @property
    def measured(self) -> Tensor:
        """Valid points, [n, 3], row by row from the top."""
        return self.points[self.valid]


@dataclass(frozen=True)
class Recording:
    """Paths of one recording; no file has been read, and files may be missing.

    Args:
        name: unique in the data set, and a valid file name.
        subject: name of the person.
        kind: class in the data set's own words.
        code: expression or pose within the class.
        image: the photograph.
        files: all other files to read.

    Raises:
        ValueError: a name that cannot name a file, or no subject.
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
    """The contents of one recording's files.

    Args:
        surface: a range grid or a mesh, in mm in the scan's own frame: +x image right, +y up, +z to the sensor.
        pixels: place of each cell [rows, columns, 2] or vertex [V, 2] in `image`, in px, (0, 0) at the centre of the
            first pixel; NaN where it is not known.
        image: [3, H, W], RGB in [0, 1].
        labelled: [66, 3], the data set's own landmarks in the scan's frame and the paper's order; NaN where missing.
        marks: [m, 3], all points that the data set labels, in its own order, for pictures.

    Raises:
        TypeError: a tensor that is not float.
        ValueError: a wrong shape, or a vertex that is not finite or too far from the origin.
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
        if self.labelled.shape != (N_LANDMARKS, 3):
            raise ValueError(f"labelled must have the shape ({N_LANDMARKS}, 3); got {tuple(self.labelled.shape)}")
        if self.marks is not None and (self.marks.ndim != 2 or self.marks.shape[1] != 3):
            raise ValueError(f"marks must have the shape (m, 3); got {tuple(self.marks.shape)}")
        if isinstance(self.surface, Mesh) and not bool((self.surface.vertices.abs() <= LARGEST_COORDINATE).all()):
            raise ValueError(f"vertices must be finite and within {LARGEST_COORDINATE:g} mm of the origin")

    @property
    def points(self) -> Tensor:
        """Measured points or vertices, [n, 3] in mm."""
        return self.surface.measured if isinstance(self.surface, RangeGrid) else self.surface.vertices

    @property
    def point_pixels(self) -> Tensor:
        """Places of `points` in the image, [n, 2] in px."""
        return self.pixels[self.surface.valid] if isinstance(self.surface, RangeGrid) else self.pixels

    @property
    def labelled_pixels(self) -> Tensor:
        """Places of the labelled landmarks in the image, [66, 2] in px, those of the nearest scan points. NaN for
        landmarks that are not labelled."""
        return self._pixels_of(self.labelled)

    @property
    def mark_pixels(self) -> Tensor:
        """Places of all marks in the image, [m, 2] in px; without marks, those of the landmarks that are labelled."""
        is_labelled = torch.isfinite(self.labelled).all(dim=-1)
        return self._pixels_of(self.labelled[is_labelled] if self.marks is None else self.marks)

    def _pixels_of(self, targets: Tensor) -> Tensor:
        finite = torch.isfinite(targets).all(dim=-1)
        places = self.pixels.new_full((len(targets), 2), torch.nan)
        in_image = torch.isfinite(self.point_pixels).all(dim=-1)
        if bool(finite.any()) and bool(in_image.any()):
            points, pixels = self.points[in_image], self.point_pixels[in_image]
            nearest = torch.cdist(targets[finite].to(points), points).argmin(dim=1)
            places[finite] = pixels[nearest]
        return places


@runtime_checkable
class RecordingSource(Protocol):
    """The module of a data set that can be prepared."""

    KINDS: Sequence[str]
    """Every class of the data set."""
    DEFAULT_KINDS: Sequence[str]
    """Classes that are prepared by default."""

    def list_recordings(self, root: str | os.PathLike[str], **options: Any) -> list[Recording]:
        """Every recording below `root`, sorted by name; no file is read. Raises DataFileError where `root` does not
        look like the data set, and where a subject is there twice."""

    def read_recording(self, recording: Recording) -> RecordedScan:
        """The contents of the recording's files. Raises DataFileError or ImageFileError for a file that is missing or
        damaged."""


def open_data_set(name: str) -> RecordingSource:
    """The module of a data set.

    Args:
        name: one of DATA_SETS.

    Raises:
        ValueError: another name.

    Example:
        >>> source = open_data_set("bosphorus")
        >>> scan = source.read_recording(source.list_recordings("BosphorusDB")[0])
    """
    if name not in DATA_SETS:
        raise ValueError(f"the data set must be one of {', '.join(DATA_SETS)}; got {name!r}")
    module: RecordingSource = importlib.import_module(DATA_SETS[name])  # type: ignore[assignment]
    return module


def choose_kinds(
    recordings: Sequence[Recording], source: RecordingSource, kinds: Collection[str] | None
) -> list[Recording]:
    """The recordings of the classes `kinds`, or of the data set's default classes.

    Raises ValueError for a class that the data set does not have, and where no recording is left.
    """
    classes = tuple(source.DEFAULT_KINDS if kinds is None else kinds)
    unknown = sorted(set(classes) - set(source.KINDS))
    if unknown or not classes:
        raise ValueError(f"classes must be among {', '.join(source.KINDS)}; got {', '.join(unknown) or 'none'}")
    chosen = [recording for recording in recordings if recording.kind in classes]
    if not chosen:
        existing = sorted({recording.kind for recording in recordings})
        raise ValueError(
            f"there must be a recording of the classes {', '.join(classes)}; got only {', '.join(existing)}"
        )
    return chosen
