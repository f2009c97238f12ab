"""Rows of a manifest (.csv, .parquet), streamed: a path per row, and beside it an id, a subject, a box, landmarks.

Paths are relative to the manifest's folder. Columns, capitals and underscores aside: the path in `path`, `image`,
`file`, ... as in tables of landmarks; `id`; `subject` or `person`; a box in `box` (a list) or in `box_x0`, `box_y0`,
`box_x1`, `box_y1`; landmarks in x0..x67 and y0..y67, or in a list `points`, `landmarks` or `landmarks_2d` (.parquet).
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from facerecon_torch.errors import DataFileError, LandmarkFileError
from facerecon_torch.landmarks.detector import Box
from facerecon_torch.landmarks.point_files import require_stored
from facerecon_torch.landmarks.point_tables import choose_columns, plain_name, stored_convention, table_schema

__all__ = [
    "MANIFEST_SUFFIXES",
    "ManifestRow",
    "has_subjects",
    "manifest_rows",
    "require_landmarks_of",
    "require_manifest",
]

MANIFEST_SUFFIXES = (".csv", ".parquet")
_IDS, _SUBJECTS = ("id",), ("subject", "person")
_SIDES = ("boxx0", "boxy0", "boxx1", "boxy1")
_ROWS = 4096  # read at a time
_READING = (pa.ArrowException, OSError, ValueError, MemoryError)


@dataclass(frozen=True)
class ManifestRow:
    """One row: an image and what is known about the face in it."""

    path: str
    id: str | None
    subject: str | None
    box: Box | None
    points: Sequence[float] | None


@dataclass(frozen=True)
class _Columns:
    path: str
    id: str | None
    subject: str | None
    box: tuple[str, ...]
    coordinates: tuple[str, ...]
    points: str | None

    @property
    def names(self) -> list[str]:
        single = (self.path, self.id, self.subject, *self.box, *self.coordinates, self.points)
        return [name for name in single if name is not None]


def require_manifest(file: Path) -> None:
    """Raise DataFileError unless a manifest can be read and has a column of paths."""
    _columns(file)


def require_landmarks_of(file: Path, convention: str) -> None:
    """Raise DataFileError for a manifest whose landmarks are results of this package of another convention."""
    columns = _columns(file)
    if columns.coordinates or columns.points is not None:
        try:
            require_stored(stored_convention(file), convention, file)
        except LandmarkFileError as error:
            raise DataFileError(str(error)) from error


def has_subjects(file: Path) -> bool:
    """Whether a manifest has a column of subjects. Raises DataFileError as `require_manifest`."""
    return _columns(file).subject is not None


def manifest_rows(file: Path) -> Iterator[ManifestRow]:
    """The rows of a manifest, some thousands in memory at a time. Raises DataFileError for damage."""
    columns = _columns(file)
    try:
        for batch in _batches(file, columns):
            for row in batch.to_pylist():
                yield _row(file, columns, row)
    except _READING as error:
        raise DataFileError(f"{file}: expected a manifest; got a file that cannot be read: {error}") from error


def _columns(file: Path) -> _Columns:
    is_csv = file.suffix.lower() == ".csv"
    try:
        schema = table_schema(file)
        names = schema.names  # decoded here
    except _READING as error:
        raise DataFileError(f"{file}: expected a manifest; got a file that cannot be read: {error}") from error
    plain = {plain_name(name): name for name in names}
    sides = tuple(plain[side] for side in _SIDES if side in plain)
    if len(sides) not in (0, 4):
        raise DataFileError(f"{file}: expected box_x0, box_y0, box_x1 and box_y1; got {', '.join(sides)} alone")
    box = sides or ((plain["box"],) if "box" in plain else ())
    try:
        chosen = choose_columns(names, file, with_lists=not is_csv, points_needed=False)
    except LandmarkFileError as error:
        raise DataFileError(str(error)) from error
    if chosen.image is None:
        raise DataFileError(f"{file}: expected a column `path` (or image, file, ...); got {', '.join(names[:8])}")
    first = {kind: next((plain[n] for n in known if n in plain), None) for kind, known in
             (("id", _IDS), ("subject", _SUBJECTS))}  # fmt: skip
    columns = _Columns(chosen.image, first["id"], first["subject"], box, chosen.coordinates, chosen.points)
    if not is_csv:  # the columns of a .csv file are converted to these types
        _require_types(schema, columns, file)
    return columns


def _require_types(schema: pa.Schema, columns: _Columns, file: Path) -> None:
    """Raise DataFileError unless boxes and landmarks of a .parquet file are numbers, in lists where one column holds
    them."""
    depths = dict.fromkeys((*columns.box, *columns.coordinates), 0)
    if len(columns.box) == 1:
        depths[columns.box[0]] = 1
    if columns.points is not None:
        depths[columns.points] = 2
    told = ("numbers", "a list of 4 numbers", "a list of points [x, y]")
    for name, depth in depths.items():
        if not _is_nested(schema.field(name).type, depth):
            raise DataFileError(f"{file}: expected {told[depth]} in the column {name}; got {schema.field(name).type}")


def _is_nested(kind: pa.DataType, depth: int) -> bool:
    """Whether a type is numbers in lists so many deep, or that of a column without any value."""
    while depth and (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        kind, depth = kind.value_type, depth - 1
    return pa.types.is_null(kind) or (depth == 0 and (pa.types.is_floating(kind) or pa.types.is_integer(kind)))


def _batches(file: Path, columns: _Columns) -> Iterator[pa.RecordBatch]:
    if file.suffix.lower() != ".csv":
        with pa.parquet.ParquetFile(file) as opened:
            for group in range(opened.num_row_groups):  # one reader for all keeps 7 bytes of every row that it gave
                yield from opened.iter_batches(
                    batch_size=_ROWS, columns=columns.names, use_threads=False, row_groups=[group]
                )
        return
    text = {name: pa.string() for name in (columns.path, columns.id, columns.subject) if name is not None}
    numbers = {name: pa.float64() for name in (*columns.box, *columns.coordinates)}
    options = pa.csv.ConvertOptions(column_types=text | numbers, include_columns=columns.names)
    reading = pa.csv.ReadOptions(block_size=2**20, use_threads=False)
    with pa.csv.open_csv(file, read_options=reading, convert_options=options) as opened:
        yield from opened


def _row(file: Path, columns: _Columns, row: Mapping[str, Any]) -> ManifestRow:
    path, box, points = row[columns.path], None, None
    if len(columns.box) == 1:
        box = row[columns.box[0]]
    elif columns.box:
        box = [row[name] for name in columns.box]
    if box is not None and (len(box) != 4 or not all(_is_number(value) for value in box)):
        box = None
    if columns.points is not None and row[columns.points] is not None:
        points = [math.nan if v is None else float(v) for v in chain.from_iterable(row[columns.points])]
    elif columns.coordinates:
        values = [row[name] for name in columns.coordinates]
        points = None if all(v is None for v in values) else [math.nan if v is None else float(v) for v in values]
    name = "" if path is None else str(path)
    return ManifestRow(
        path=os.path.join(file.parent, name) if name else os.path.join(file.parent, "(no path)"),
        id=_text(row, columns.id),
        subject=_text(row, columns.subject),
        box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        points=points,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _text(row: Mapping[str, Any], name: str | None) -> str | None:
    return None if name is None or row[name] is None else str(row[name])
