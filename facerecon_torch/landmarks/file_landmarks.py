"""Landmarks that somebody else found: one file per picture, or one table for a whole folder."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.formats.face_document import PARAMETERS, part_files
from facerecon_torch.landmarks.detector import Box, require_image, require_selection, select_faces
from facerecon_torch.landmarks.point_files import (
    POINT_SUFFIXES,
    as_faces,
    file_convention,
    first_convention,
    read_content,
    read_points,
    require_stored,
    result_files,
)
from facerecon_torch.landmarks.point_tables import TABLE_SUFFIXES, read_table, stored_convention
from facerecon_torch.landmarks.points import require_origin
from facerecon_torch.landmarks.scheme import CONVENTIONS, is_present
from facerecon_torch.structures import Detection

__all__ = ["FileLandmarks"]

_SMALLEST_SPAN = 4.0  # px
_Rows = list[tuple[PurePosixPath, NDArray[np.float64]]]


class FileLandmarks:
    """Adapter with `detect` of LandmarkDetector, which here needs `paths`, the pictures' files.

    `source` is one of: None, the file of the same stem (.pts, .json, .npy, .csv or .parquet, in this order) lies beside
    the picture; a folder, it lies there; the output folder of `facerecon infer`,
    whose tables are read; a table with a column for the pictures'
    names (`point_tables.read_table`); one file for one picture. `origin` is what files call the centre of the first
    pixel, 0 or 1; None: 1 for .pts, 0 for the others. `convention` is what the points mean; None: what the source says
    (`stated_convention`). Scores are 1, boxes the bounding boxes of the points; `min_face`
    and `max_faces` are those of `select_faces`.
    """

    name = "file"
    convention = "ibug"
    licence = "landmarks read from a file have the licence of the file"

    @property
    def side_by_side(self) -> bool:
        """Whether several threads may ask: not where the first picture that is asked for gets the only file."""
        return self.source is None or self.source.is_dir() or self._table is not None

    @staticmethod
    def weight_files() -> list[Path]:
        """No file."""
        return []

    def __init__(
        self,
        *,
        source: str | Path | None = None,
        origin: int | None = None,
        convention: str | None = None,
        min_face: float = 0.0,
        max_faces: int | None = None,
    ) -> None:
        require_origin("origin", origin)
        require_selection(min_face, max_faces)
        self.min_face, self.max_faces = min_face, max_faces
        self.source = Path(source) if source is not None else None
        self.origin, self.convention = origin, convention or self.stated_convention(self.source)
        self._table: dict[str, _Rows] | None = None
        self._only_picture: Path | None = None
        if self.source is None:
            return
        if self.source.is_dir():
            self._table = self._read_results(self.source)
            return
        if self.source.suffix.lower() in TABLE_SUFFIXES:
            names, rows = read_table(self.source)
            require_stored(stored_convention(self.source), self.convention, self.source)
            if names is not None:
                self._table = {}
                _add_rows(self._table, names, rows)
        elif not self.source.is_file() or self.source.suffix.lower() not in POINT_SUFFIXES:
            raise LandmarkFileError(
                f"{self.source}: expected a folder, a table ({', '.join(TABLE_SUFFIXES)}) or a landmark file "
                f"({', '.join(POINT_SUFFIXES)}); got {'another' if self.source.is_file() else 'nothing'}"
            )

    @staticmethod
    def stated_convention(source: str | Path | None) -> str:
        """The convention of the points of a source: results of this package name it, a mesh is mediapipe's; all else,
        and files beside their pictures, are iBUG's. Of a folder of files the first one counts."""
        path = None if source is None else Path(source)
        stated = None
        if path is not None and path.is_dir():
            tables = part_files(path / PARAMETERS) or part_files(path)
            stated = stored_convention(tables[0]) if tables else first_convention(path)
        elif path is not None and path.is_file() and path.suffix.lower() in POINT_SUFFIXES:
            stated = file_convention(path)
        return stated if stated in CONVENTIONS else "ibug"

    def _read_results(self, folder: Path) -> dict[str, _Rows] | None:
        """The tables of `facerecon infer` in its output folder, or in its folder of tables; None where there are
        none."""
        parts = part_files(folder / PARAMETERS) or part_files(folder)
        if not parts:
            return None
        table: dict[str, _Rows] = {}
        for part in parts:
            names, rows = read_table(part)
            require_stored(stored_convention(part), self.convention, part)
            _add_rows(table, names or [], rows)
        return table

    def stamp(self, picture: Path) -> str:
        """Text that changes when the landmarks of a picture do; empty where there are none. No file is read."""
        try:
            if self._table is not None:
                return self.fingerprint(picture)
            file = self._file_of(picture)
            about = file.stat()
        except (LandmarkFileError, OSError):
            return ""
        return f"{self.origin} {file.name} {about.st_size} {about.st_mtime_ns}"

    def detect(self, images: Sequence[Tensor], *, paths: Sequence[Path | None] | None = None) -> list[list[Detection]]:
        """As LandmarkDetector says. Raises LandmarkFileError when there are no landmarks for one of `paths`, when they
        are damaged, when a face lies wholly outside the picture, or spans less than 4 px (shares of the picture, which
        a mesh alone may have)."""
        for image in images:
            require_image(image)
        named = [path for path in paths or () if path is not None]
        if len(named) != len(images):
            raise ValueError(f"detector file: paths must name all {len(images)} pictures; got {paths}")
        return [self._detections(Path(path), *image.shape[-2:]) for path, image in zip(named, images)]

    def _detections(self, path: Path, height: int, width: int) -> list[Detection]:
        faces, place = self._faces(path, (width, height))
        boxes = [_box(points) for points in faces]
        for points, box in zip(faces, boxes):
            _require_inside(points, box, width, height, place)
        found = [Detection(box=box, score=1.0, points=points) for points, box in zip(faces, boxes)]
        return select_faces(found, (height, width), min_face=self.min_face, max_faces=self.max_faces)

    def _faces(self, picture: Path, size: tuple[int, int]) -> tuple[Float[Tensor, "faces 68 2"], str]:
        """Points of a picture, and where they come from."""
        if self._table is not None:
            place = f"{self.source}, image {picture.name}"
            rows = _matching(self._table, picture, str(self.source))
            faces = as_faces(rows, place, origin=self.origin or 0, size=size, convention=self.convention)
            return faces, place
        files = list(result_files(self._file_of(picture), self.convention))
        parts = [read_points(file, origin=self.origin, size=size, convention=self.convention) for file in files]
        return torch.cat(parts), str(files[0])

    def fingerprint(self, picture: Path) -> str:
        """The source of a picture's landmarks, as text: the digest of its own files, or of its rows of the table.

        Raises LandmarkFileError where `detect` does.
        """
        digest = hashlib.sha256()
        if self._table is not None:
            for row in _matching(self._table, picture, str(self.source)):
                digest.update(row.tobytes())
        else:
            for file in result_files(self._file_of(picture), self.convention):
                digest.update(read_content(file))
        return f"origin={self.origin} {digest.hexdigest()}"

    def _file_of(self, picture: Path) -> Path:
        if self.source is not None and not self.source.is_dir():
            if self._only_picture not in (None, picture):
                raise LandmarkFileError(
                    f"{self.source}: expected one picture for one landmark file; got {self._only_picture} "
                    f"and {picture}. Give a folder or a table"
                )
            self._only_picture = picture
            return self.source
        folder = picture.parent if self.source is None else self.source
        wanted = [folder / (picture.stem + suffix) for suffix in POINT_SUFFIXES]
        for file in wanted:
            if os.path.exists(file):  # unlike Path.exists, False also for names that are too long
                return file
        raise LandmarkFileError(
            f"{picture}: expected its landmarks in {wanted[0]} (or {', '.join(POINT_SUFFIXES[1:])}); got no such file"
        )


def _add_rows(table: dict[str, _Rows], names: Sequence[str], rows: Sequence[NDArray[np.float64]]) -> None:
    for name, face in zip(names, rows):
        entry = PurePosixPath(name.strip().replace("\\", "/"))
        table.setdefault(entry.name, []).append((entry, face))


def _matching(table: dict[str, _Rows], picture: Path, source: str) -> list[NDArray[np.float64]]:
    """Rows of a picture: the column's path must be a tail of the picture's path, or the other way round; the
    longest such path wins. A name without suffix stands for any suffix."""
    full = picture.resolve()
    for parts in (full.parts, (*full.parts[:-1], full.stem)):
        fitting = [(entry, face) for entry, face in table.get(parts[-1], []) if _same_tail(entry.parts, parts)]
        if fitting:
            longest = max((entry for entry, _ in fitting), key=lambda entry: len(entry.parts))
            return [face for entry, face in fitting if entry == longest]
    raise LandmarkFileError(f"{source}: expected a row for the image {picture}; got none")


def _same_tail(entry: tuple[str, ...], picture: tuple[str, ...]) -> bool:
    count = min(len(entry), len(picture))
    return entry[-count:] == picture[-count:]


def _require_inside(points: Float[Tensor, "68 2"], box: Box, width: int, height: int, origin: str) -> None:
    x0, y0, x1, y1 = box
    if not (x0 > -0.5 and y0 > -0.5 and x1 < width - 0.5 and y1 < height - 0.5):
        size = points.new_tensor([width, height])
        inside = ((points > -0.5) & (points < size - 0.5)).all(dim=-1)
        if not bool(inside.any()):
            raise LandmarkFileError(
                f"{origin}: expected landmarks inside the {width} x {height} picture; got none: "
                f"x {x0:.6g}..{x1:.6g}, y {y0:.6g}..{y1:.6g}"
            )
    span = max(x1 - x0, y1 - y0)
    if span < _SMALLEST_SPAN:
        raise LandmarkFileError(
            f"{origin}: expected landmarks in px; got points that span {span:.3g} px (shares of the picture's size?)"
        )


def _box(points: Float[Tensor, "68 2"]) -> Box:
    (x0, y0), (x1, y1) = (corner.tolist() for corner in points[is_present(points)].aminmax(dim=0))
    return x0, y0, x1, y1
