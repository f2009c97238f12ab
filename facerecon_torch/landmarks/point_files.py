"""Landmark files of one picture (.pts, .json, .npy) and tables of a whole folder (.csv, .parquet) -> float64
points.

Coordinates are px of the upright picture, (0, 0) the centre of its first pixel; only .pts counts from 1, as
iBUG does. 68 points are in iBUG order, 66 in the paper's.
"""

import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.landmarks.scheme import from_paper66

__all__ = ["POINT_SUFFIXES", "TABLE_SUFFIXES", "as_faces", "read_content", "read_points", "read_table"]

POINT_SUFFIXES = (".pts", ".json", ".npy")
TABLE_SUFFIXES = (".csv", ".parquet")
_LARGEST_FILE = 64 * 10**6  # bytes: 30,000 faces as JSON
_LONGEST_ACCOUNT = 200
_JSON_KEYS = ("points", "landmarks", "landmarks_2d")
_LAYOUTS = (
    "[[x, y] x 68], a list of such lists, an object with one of the keys " + ", ".join(_JSON_KEYS) + ", "
    'or {"faces": [such objects]}'
)


def read_points(file: Path, *, pts_origin: int = 1) -> Float[Tensor, "faces 68 2"]:
    """Landmarks of every face in a .pts, .json or .npy file; `pts_origin` is the number of a .pts file's
    first pixel.

    Raises LandmarkFileError for a missing or damaged file, one of more than 64 MB, an unknown layout, a wrong count,
    NaN or infinity.
    """
    readers = {".pts": _read_pts, ".json": _read_json, ".npy": _read_npy}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise LandmarkFileError(f"{file}: expected a name in {', '.join(POINT_SUFFIXES)}; came {file.suffix!r}")
    values = reader(file, read_content(file))
    return as_faces(values - pts_origin if file.suffix.lower() == ".pts" else values, file)


def read_content(file: Path) -> bytes:
    """The bytes of a landmark file of one picture. Raises LandmarkFileError for what is no file, may not be read, or is
    far too large."""
    if not os.path.isfile(file):  # unlike Path.is_file, False also for names that are too long
        came = "a pipe, socket or device" if os.path.exists(file) else "nothing"
        came = "a folder" if os.path.isdir(file) else came
        raise LandmarkFileError(f"{file}: expected a landmark file; came {came}")
    try:
        size = file.stat().st_size
        if size > _LARGEST_FILE:
            raise LandmarkFileError(
                f"{file}: expected the landmarks of one picture, at most {_LARGEST_FILE / 1e6:.0f} MB; "
                f"came {size / 1e6:.0f} MB"
            )
        return file.read_bytes()
    except OSError as error:
        raise LandmarkFileError(f"{file}: expected a landmark file; came one that cannot be read ({error})") from error


def as_faces(values: np.ndarray, source: object) -> Float[Tensor, "faces 68 2"]:
    """[68 or 66, 2] or [faces, 68 or 66, 2] -> checked [faces, 68, 2]; 66 points get their inner mouth
    corners from their neighbours (scheme.from_paper66). Raises LandmarkFileError naming `source`."""
    faces = values[None] if values.ndim == 2 else values
    if faces.ndim != 3 or faces.shape[1] not in (66, 68) or faces.shape[2] != 2 or not len(faces):
        raise LandmarkFileError(f"{source}: expected 68 or 66 points of x and y; came shape {tuple(values.shape)}")
    bad = int((~np.isfinite(faces)).any(axis=2).sum())
    if bad:
        raise LandmarkFileError(f"{source}: expected finite points; came {bad} with NaN or infinity")
    points = torch.from_numpy(np.ascontiguousarray(faces, dtype=np.float64))
    return points if points.shape[1] == 68 else from_paper66(points)


def _read_pts(file: Path, content: bytes) -> np.ndarray:
    """iBUG's text: `version: 1`, `n_points: 68`, then one `x y` a line between braces."""
    text = _text(file, content)
    blocks = re.findall(r"\{([^{}]*)\}", text)
    if len(blocks) != 1 or text.count("{") != 1 or text.count("}") != 1:
        came = f"{len(blocks)} blocks" if len(blocks) > 1 else "no such block" if not blocks else "other braces"
        raise LandmarkFileError(f"{file}: expected the points of one face in one block between {{ and }}; came {came}")
    rows = [line.split() for line in blocks[0].splitlines() if line.strip()]
    try:
        values = np.array([[float(x) for x in row] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise LandmarkFileError(f"{file}: expected two numbers a line; came {_short(error)}") from error
    declared = re.search(r"n_points\s*:\s*0*(\d+)", text)
    if declared is not None and declared.group(1) != str(len(rows)):
        raise LandmarkFileError(
            f"{file}: expected {_short(declared.group(1))} points (n_points); came {len(rows)} lines"
        )
    return values


def _read_json(file: Path, content: bytes) -> np.ndarray:
    try:
        document: Any = json.loads(_text(file, content))
    except RecursionError as error:
        raise LandmarkFileError(f"{file}: expected {_LAYOUTS}; came lists or objects nested too deep") from error
    except ValueError as error:  # also for numbers of thousands of digits
        raise LandmarkFileError(f"{file}: expected JSON; came {_short(error)}") from error
    faces = document.get("faces") if isinstance(document, dict) else None
    if isinstance(faces, list) and not any(key in document for key in _JSON_KEYS):
        return _numbers([_point_list(face, file) for face in faces], file)
    return _numbers(_point_list(document, file), file)


def _point_list(content: Any, file: Path) -> Any:
    if isinstance(content, list):
        return content
    keys = [key for key in (*_JSON_KEYS, "faces") if isinstance(content, dict) and isinstance(content.get(key), list)]
    if len(keys) != 1 or keys == ["faces"]:
        came = f"the keys {_short(sorted(content))}" if isinstance(content, dict) else type(content).__name__
        raise LandmarkFileError(f"{file}: expected {_LAYOUTS}; came {came}")
    return content[keys[0]]


def _numbers(content: Any, file: Path) -> np.ndarray:
    try:
        if _is_table(content, axes=3):
            return np.array(content, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise LandmarkFileError(f"{file}: expected {_LAYOUTS}; came lists that are no table of numbers") from error
    raise LandmarkFileError(f"{file}: expected {_LAYOUTS}; came lists that are no table of numbers")


def _is_table(content: Any, axes: int) -> bool:
    if isinstance(content, list):
        return axes > 0 and all(_is_table(entry, axes - 1) for entry in content)
    return content is None or (isinstance(content, (int, float)) and not isinstance(content, bool))


def _read_npy(file: Path, content: bytes) -> np.ndarray:
    """An array whose header is held against the size of the file before anything is allocated."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, kind = read_header[version](stream)
        needed, left = math.prod(shape) * kind.itemsize, len(content) - stream.tell()
        if min(shape, default=1) < 0 or needed != left:
            raise ValueError(f"a header for {kind} {shape}, {needed} bytes, before {left} bytes")
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy answers damaged headers with almost any type of exception
        raise LandmarkFileError(f"{file}: expected a .npy array of numbers; came {_short(error)}") from error
    if values.dtype.kind not in "iuf":
        raise LandmarkFileError(f"{file}: expected a .npy array of numbers; came {values.dtype}")
    return np.asarray(values.astype(np.float64))


def _text(file: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LandmarkFileError(f"{file}: expected text; came bytes that are not UTF-8") from error


def _short(came: object) -> str:
    """A message's account of what came, cut where it is long."""
    text = str(came) or type(came).__name__
    return text if len(text) <= _LONGEST_ACCOUNT else f"{text[:_LONGEST_ACCOUNT]}..."


def read_table(file: Path) -> tuple[list[str], np.ndarray]:
    """Image names and points [rows, 68 or 66, 2] of a .csv or .parquet file with the columns `image`, x0 ..
    x67 and y0 .. y67 (or x_0, y_0, ...; up to 65 for the paper's order); several faces of a picture are
    several rows.

    Empty cells become NaN: they are an error of their own picture only. Raises LandmarkFileError for a
    missing or damaged file and for missing columns.
    """
    if not file.is_file():
        raise LandmarkFileError(
            f"{file}: expected a table of landmarks; came {'a folder' if file.is_dir() else 'nothing'}"
        )
    try:
        table = _read_csv(file) if file.suffix.lower() == ".csv" else pa.parquet.read_table(file)
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise LandmarkFileError(
            f"{file}: expected a {file.suffix} table; came a file that cannot be read: {error}"
        ) from error
    named = {_plain(name): name for name in names}
    if len(named) != len(names):
        doubled = sorted(name for name in names if named[_plain(name)] != name) or names
        raise LandmarkFileError(f"{file}: expected every column once; came several of {', '.join(doubled[:6])}")
    count = 68 if "x67" in named else 66
    wanted = ["image", *(f"{axis}{i}" for i in range(count) for axis in "xy")]
    missing = [name for name in wanted if name not in named]
    if missing or "x68" in named or (count == 66 and "x66" in named):
        raise LandmarkFileError(
            f"{file}: expected the columns image, x0..x67, y0..y67 (or ..x65, y65); "
            f"came {len(named)} columns, missing {', '.join(missing[:6]) or 'none, but more points'}"
        )
    try:
        images = [str(name) for name in table.column(named["image"]).to_pylist()]
        flat = [_column(table.column(named[name])) for name in wanted[1:]]
    except (pa.ArrowException, ValueError) as error:
        raise LandmarkFileError(
            f"{file}: expected names and numbers in the columns image, x0..y{count - 1}; came {error}"
        ) from error
    return images, np.stack(flat, axis=1).reshape(len(images), count, 2)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "")


def _read_csv(file: Path) -> pa.Table:
    with open(file, encoding="utf-8-sig") as stream:
        header = stream.readline().rstrip("\r\n").split(",")
    image = [name for name in header if name.strip().strip('"').lower() == "image"]
    types = {name.strip('"'): pa.string() for name in image}  # a picture called 0001 is a name, not a number
    return pa.csv.read_csv(file, convert_options=pa.csv.ConvertOptions(column_types=types))


def _column(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
