"""Tables of landmarks (.csv, .parquet): a row per face, with a column per coordinate or one column of lists.

Coordinates are columns x0 .. x67, y0 .. y67, in any order, also written x_0 (OpenFace) or counted from 1. A list of
points stands in `points`, `landmarks` or `landmarks_2d` of a .parquet file, as `facerecon infer` writes it.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.formats.face_document import CONVENTION_KEY
from facerecon_torch.landmarks.points import LAYOUTS, is_layout

__all__ = [
    "LIST_NAMES",
    "TABLE_SUFFIXES",
    "PointColumns",
    "choose_columns",
    "count_of_columns",
    "plain_name",
    "read_table",
    "stored_convention",
    "table_schema",
]

TABLE_SUFFIXES = (".csv", ".parquet")
LIST_NAMES = ("points", "landmarks", "landmarks_2d")
"""Names of the entries of JSON files, and of the columns of tables, that hold a list of points."""
_IMAGE_NAMES = (
    *("image", "image_file", "image_id", "image_name", "image_path", "img", "img_name", "img_path"),
    *("file", "filename", "file_path", "path", "photo", "picture"),
)
_EXPECTED = "the columns x0..x67 and y0..y67 (also x_0 or counted from 1)"
_READING = (pa.ArrowException, OSError, ValueError, MemoryError, csv.Error)


@dataclass(frozen=True)
class PointColumns:
    """The names of the columns that are read: of the picture, and of its points in either way."""

    image: str | None
    coordinates: tuple[str, ...]  # x and y of the points in turn
    points: str | None

    @property
    def names(self) -> list[str]:
        return [name for name in (self.image, *self.coordinates, self.points) if name is not None]


def read_table(file: Path) -> tuple[list[str] | None, list[NDArray[np.float64]]]:
    """The picture's name of every row, and its points [n, 2] in the file's own frame. The names are None where no
    column holds them: then all rows are faces of one picture.

    Empty cells become NaN. Raises LandmarkFileError for a missing or damaged file, and where columns are missing or
    ambiguous.
    """
    if not file.is_file():
        raise LandmarkFileError(
            f"{file}: expected a table of landmarks; got {'a folder' if file.is_dir() else 'nothing'}"
        )
    is_csv = file.suffix.lower() == ".csv"
    columns = _columns(file)
    if columns.image is None:
        _require_no_names(file)
    try:
        table = _read_csv(file, columns) if is_csv else pa.parquet.read_table(file, columns=columns.names)
    except _READING as error:
        raise _unreadable(file, error) from error
    try:
        images = None if columns.image is None else [str(name) for name in table.column(columns.image).to_pylist()]
        return images, _points(table, columns)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise LandmarkFileError(
            f"{file}: expected names and numbers in the columns of landmarks; got {error}"
        ) from error


def table_schema(file: Path) -> pa.Schema:
    """The names and types of a table's columns; of a .csv file the types are those of its first MB. Raises what pyarrow
    raises."""
    if file.suffix.lower() != ".csv":
        return pa.parquet.read_schema(file)
    with pa.csv.open_csv(file, read_options=pa.csv.ReadOptions(block_size=2**20)) as opened:
        return opened.schema


def _columns(file: Path) -> PointColumns:
    is_csv = file.suffix.lower() == ".csv"
    try:
        names = _csv_names(file) if is_csv else pa.parquet.read_schema(file).names
    except _READING as error:
        raise _unreadable(file, error) from error
    return choose_columns(names, file, with_lists=not is_csv)


def count_of_columns(file: Path) -> int:
    """The number of points that a table has in columns of coordinates; 0 where it has them in lists. Raises
    LandmarkFileError as `read_table`."""
    return len(_columns(file).coordinates) // 2


def _require_no_names(file: Path) -> None:
    """Raise LandmarkFileError for a table with a column of text beside the points: its rows may be of several pictures,
    whose names no known column holds."""
    try:
        schema = table_schema(file)
    except _READING as error:
        raise _unreadable(file, error) from error
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if texts:
        raise LandmarkFileError(
            f"{file}: expected a column with the picture's name ({', '.join(_IMAGE_NAMES)}), or, for the faces of one "
            f"picture, no text; got text in {_listed(texts)}"
        )


def stored_convention(file: Path) -> str | None:
    """The convention of the landmarks in a table of this package; None where it does not say so. Raises
    LandmarkFileError where the file cannot be read."""
    if file.suffix.lower() != ".parquet":
        return None
    try:
        metadata = pa.parquet.read_schema(file).metadata or {}
    except _READING as error:
        raise _unreadable(file, error) from error
    value = metadata.get(CONVENTION_KEY.encode())
    return None if value is None else value.decode(errors="replace")


def _unreadable(file: Path, error: Exception) -> LandmarkFileError:
    return LandmarkFileError(f"{file}: expected a {file.suffix} table; got a file that cannot be read: {error}")


def _csv_names(file: Path) -> list[str]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader([stream.readline()]), [])


def _read_csv(file: Path, columns: PointColumns) -> pa.Table:
    types = {columns.image: pa.string()} if columns.image is not None else {}  # a picture called 0001 is a name
    options = pa.csv.ConvertOptions(column_types=types, include_columns=columns.names)
    return pa.csv.read_csv(file, convert_options=options)


def _points(table: pa.Table, columns: PointColumns) -> list[NDArray[np.float64]]:
    if columns.points is not None:
        return [np.array(points, dtype=np.float64) for points in table.column(columns.points).to_pylist()]
    flat = [table.column(name).cast(pa.float64()).to_numpy() for name in columns.coordinates]
    return list(np.stack(flat, axis=1).astype(np.float64).reshape(table.num_rows, -1, 2))


def choose_columns(names: list[str], file: Path, *, with_lists: bool, points_needed: bool = True) -> PointColumns:
    """The columns of a table that name the picture and hold its points.

    Args:
        names: of all columns.
        file: for messages.
        with_lists: a column may hold the points as a list.
        points_needed: a table without points is refused.

    Raises:
        LandmarkFileError: columns are missing or ambiguous.
    """
    images = [name for name in names if plain_name(name) in {plain_name(known) for known in _IMAGE_NAMES}]
    if len(images) > 1:
        raise LandmarkFileError(f"{file}: expected one column with the picture's name; got {_listed(images)}")
    if not images and any(plain_name(name) == "frame" for name in names):
        raise LandmarkFileError(
            f"{file}: expected a column with the picture's name ({', '.join(_IMAGE_NAMES)}); got a table of frames"
        )
    lists = [name for name in names if with_lists and name.strip().lower() in LIST_NAMES]
    coordinates = _coordinates(names, file)
    if (coordinates and lists) or len(lists) > 1:
        more = coordinates[:2] if coordinates else ()
        raise LandmarkFileError(f"{file}: expected the points once; got the columns {_listed([*more, *lists])}")
    if points_needed and not coordinates and not lists:
        raise LandmarkFileError(
            f"{file}: expected {_EXPECTED}, or one of {', '.join(LIST_NAMES)} in a .parquet file; "
            f"got the columns {_listed(names) or 'of an empty table'}"
        )
    chosen = PointColumns(images[0] if images else None, coordinates, lists[0] if lists else None)
    doubled = sorted({name for name in chosen.names if names.count(name) > 1})
    if doubled:
        raise LandmarkFileError(f"{file}: expected every column once; got several of {_listed(doubled)}")
    return chosen


def _coordinates(names: list[str], file: Path) -> tuple[str, ...]:
    """The columns of x and y of the points in turn; none where there are none. Of x_0 and X_0 the capital is OpenFace's
    point in space."""
    for axes in ("xy", "XY"):
        found: dict[tuple[str, int], str] = {}
        for name in names:
            match = re.fullmatch(rf"([{axes}])_?([0-9]{{1,4}})", name.strip())
            if match is None:
                continue
            place = (match[1], int(match[2]))
            if place in found:
                raise LandmarkFileError(f"{file}: expected every column once; got {_listed([found[place], name])}")
            found[place] = name
        if found:
            return _in_order(found, axes, file)
    return ()


def _in_order(found: dict[tuple[str, int], str], axes: str, file: Path) -> tuple[str, ...]:
    numbers = [number for _, number in found]
    first, last = min(numbers), max(numbers)
    wanted = [(axis, number) for number in range(min(first, 1), last + 1) for axis in axes]
    missing = [f"{axis}{number}" for axis, number in wanted if (axis, number) not in found]
    if missing:
        raise LandmarkFileError(
            f"{file}: expected {_EXPECTED}; got {len(found)} such columns, missing {_listed(missing)}"
        )
    count = len(wanted) // 2
    if not is_layout(count, 2):
        raise LandmarkFileError(
            f"{file}: expected {LAYOUTS}; got {count} points in the columns {axes[0]}{first}..{axes[1]}{last}"
        )
    return tuple(found[place] for place in wanted)


def plain_name(name: str) -> str:
    """The name of a column without capitals, spaces, dashes and underscores."""
    return re.sub(r"[\s_-]", "", name).lower()


def _listed(names: list[str]) -> str:
    """A few of the names, cut where they are long."""
    shown = ", ".join(name[:40] for name in names[:6])
    return f"{shown}, ..." if len(names) > 6 else shown
