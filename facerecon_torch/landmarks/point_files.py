"""Landmark files of one picture (.pts, .json, .npy, or a table of its faces) -> float64 points of every face.

Coordinates are px of the upright picture, (0, 0) the centre of its first pixel; .pts files count from 1, as iBUG does.
The layouts are those of `points.LAYOUTS`.
"""

import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.formats.face_document import FACE_FORMAT, face_suffix
from facerecon_torch.landmarks.point_tables import (
    LIST_NAMES,
    TABLE_SUFFIXES,
    count_of_columns,
    read_table,
    stored_convention,
)
from facerecon_torch.landmarks.points import LAYOUTS, MESH_COUNTS, are_shares, count_broken, is_layout, to_ibug68

__all__ = [
    "POINT_SUFFIXES",
    "as_faces",
    "file_convention",
    "first_convention",
    "read_content",
    "read_points",
    "require_stored",
    "result_files",
]

POINT_SUFFIXES = (".pts", ".json", ".npy", *TABLE_SUFFIXES)
_LARGEST_FILE = 64 * 10**6  # bytes: 30,000 faces as JSON
_LONGEST_ACCOUNT = 200
_JSON_LAYOUTS = (
    "[[x, y], ...], a list of such lists, an object with one of the keys " + ", ".join(LIST_NAMES) + ", "
    'or {"faces": [such objects]}'
)


def read_points(
    file: Path, *, origin: int | None = None, size: tuple[int, int] | None = None, convention: str | None = None
) -> Float[Tensor, "faces 68 2"]:
    """Landmarks of every face in a file of one picture, px; NaN for a contour that is missing.

    Args:
        file: .pts with a block per face, .json, .npy, or a table (.csv, .parquet) without a column for names.
        origin: what the file calls the centre of the first pixel, 0 or 1; None: 1 for .pts, 0 for the others.
        size: width and height of the picture in px, for a mesh in shares of them.
        convention: that the points must have, as far as the file shows it: a mesh is mediapipe's; None: any.

    Raises LandmarkFileError for a missing or damaged file, one of more than 64 MB, an unknown layout or number of
    points, NaN or infinity.
    """
    values = _read_values(file)
    if origin is None:
        origin = 1 if file.suffix.lower() == ".pts" else 0
    return as_faces(values, file, origin=origin, size=size, convention=convention)


def _read_values(file: Path) -> list[NDArray[np.float64]]:
    """The points of the faces as they stand in the file."""
    readers = {".pts": _read_pts, ".json": _read_json, ".npy": _read_npy}
    suffix = file.suffix.lower()
    if suffix not in POINT_SUFFIXES:
        raise LandmarkFileError(f"{file}: expected a name in {', '.join(POINT_SUFFIXES)}; got {file.suffix!r}")
    content = read_content(file)
    return _read_table_of_one(file) if suffix in TABLE_SUFFIXES else readers[suffix](file, content)


def file_convention(file: Path) -> str | None:
    """The convention that a file states: a result of this package names it, a mesh is mediapipe's. None: it states
    none, or cannot be read."""
    try:
        if file.suffix.lower() in TABLE_SUFFIXES:
            stated = stored_convention(file)
            return stated if stated is not None else _of_counts([count_of_columns(file)])
        if file.suffix.lower() == ".json":
            document = _document(file, read_content(file))
            if isinstance(document, dict) and document.get("format") == FACE_FORMAT:
                named = document.get("convention")
                return named if isinstance(named, str) else None
        return _of_counts([face.shape[-2] for face in _read_values(file) if face.ndim > 1])
    except LandmarkFileError:
        return None


def _of_counts(counts: Sequence[int]) -> str | None:
    return "mediapipe" if any(count in MESH_COUNTS for count in counts) else None


def first_convention(folder: Path) -> str | None:
    """The convention that the first landmark file of a folder states; see `file_convention`."""
    first = min((path for path in folder.iterdir() if path.suffix.lower() in POINT_SUFFIXES), default=None)
    return None if first is None else file_convention(first)


def result_files(file: Path, convention: str) -> Iterator[Path]:
    """The files with the faces of a picture: `file`, and those of the further faces where `facerecon infer` wrote it
    for the first one. Raises LandmarkFileError where `file` is damaged, or its landmarks have another convention."""
    yield file
    if file.suffix.lower() != ".json":
        return
    content = read_content(file)
    document = _document(file, content) if FACE_FORMAT.encode() in content else None
    if not isinstance(document, dict) or document.get("format") != FACE_FORMAT or document.get("face") != 0:
        return
    require_stored(document.get("convention"), convention, file)
    count = document.get("faces")
    if not isinstance(count, int):
        raise LandmarkFileError(f"{file}: expected the number of faces in `faces`; got {type(count).__name__}")
    for face in range(1, count):
        yield file.with_name(f"{file.stem}{face_suffix(face)}{file.suffix}")


def require_stored(stored: object, convention: str, file: Path) -> None:
    """Raise LandmarkFileError where a result of this package says that its landmarks mean something else."""
    if stored not in (None, convention):
        raise LandmarkFileError(
            f"{file}: expected {convention} landmarks; got {_short(stored)} ones. "
            f"Give landmarks.convention={_short(stored)}"
        )


def read_content(file: Path) -> bytes:
    """The bytes of a landmark file of one picture. Raises LandmarkFileError for what is no file, may not be read, or is
    far too large."""
    if not os.path.isfile(file):  # unlike Path.is_file, False also for names that are too long
        came = "a pipe, socket or device" if os.path.exists(file) else "nothing"
        came = "a folder" if os.path.isdir(file) else came
        raise LandmarkFileError(f"{file}: expected a landmark file; got {came}")
    try:
        size = file.stat().st_size
        if size > _LARGEST_FILE:
            raise LandmarkFileError(
                f"{file}: expected the landmarks of one picture, at most {_LARGEST_FILE / 1e6:.0f} MB; "
                f"got {size / 1e6:.0f} MB"
            )
        return file.read_bytes()
    except OSError as error:
        raise LandmarkFileError(f"{file}: expected a landmark file; got one that cannot be read ({error})") from error


def as_faces(
    values: Sequence[NDArray[np.float64]],
    source: object,
    *,
    origin: int = 0,
    size: tuple[int, int] | None = None,
    convention: str | None = None,
) -> Float[Tensor, "faces 68 2"]:
    """Arrays [n, 2] of single faces, or [faces, n, 2] of several, as checked points [faces, 68, 2] in px. Raises
    LandmarkFileError naming `source`."""
    faces = [_as_points(array, source) for array in values]
    if not faces:
        raise LandmarkFileError(f"{source}: expected the points of at least one face; got none")
    if convention not in (None, "mediapipe") and any(points.shape[1] in MESH_COUNTS for points in faces):
        raise LandmarkFileError(
            f"{source}: expected {convention} landmarks; got MediaPipe's mesh. Give landmarks.convention=mediapipe, "
            "and a cascade that was trained for it, as the default one is"
        )
    return torch.cat([_checked(points, source, origin, size) for points in faces])


def _as_points(values: NDArray[np.float64], source: object) -> Float[Tensor, "faces n c"]:
    faces = values[None] if values.ndim == 2 else values
    if faces.ndim != 3 or not is_layout(*faces.shape[1:]) or not len(faces):
        raise LandmarkFileError(f"{source}: expected {LAYOUTS} of x and y; got shape {tuple(values.shape)}")
    return torch.from_numpy(np.ascontiguousarray(faces, dtype=np.float64))


def _checked(
    points: Float[Tensor, "faces n c"], source: object, origin: int, size: tuple[int, int] | None
) -> Float[Tensor, "faces 68 2"]:
    if points.shape[1] in MESH_COUNTS and are_shares(points):
        if size is None:
            raise LandmarkFileError(f"{source}: expected a mesh in px; got shares of a picture of unknown size")
        points = points[..., :2] * points.new_tensor(size) - 0.5  # the left edge is 0 in shares, -0.5 in px
    else:
        points = points - origin
    points = to_ibug68(points)
    broken = count_broken(points)
    if broken:
        raise LandmarkFileError(f"{source}: expected finite points; got {broken} with NaN or infinity")
    return points


def _read_table_of_one(file: Path) -> list[NDArray[np.float64]]:
    names, rows = read_table(file)
    if names is not None:
        raise LandmarkFileError(
            f"{file}: expected a table of one picture's faces; got one with names of pictures. "
            f"Give it as landmarks.path={file}"
        )
    return rows


def _read_pts(file: Path, content: bytes) -> list[NDArray[np.float64]]:
    """iBUG's text: `version: 1`, `n_points: 68`, then one `x y` a line between braces; once for every face."""
    text = _text(file, content)
    pieces = re.split(r"([{}])", text)
    braces = pieces[1::2]
    if not braces or braces != ["{", "}"] * (len(braces) // 2):
        came = "other braces" if braces else "no such block"
        raise LandmarkFileError(f"{file}: expected the points of each face in a block between {{ and }}; got {came}")
    return [_block(file, before, inside) for before, inside in zip(pieces[0::4], pieces[2::4])]


def _block(file: Path, before: str, inside: str) -> NDArray[np.float64]:
    rows = [line.split() for line in inside.splitlines() if line.strip()]
    try:
        values = np.array([[float(x) for x in row] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise LandmarkFileError(f"{file}: expected two numbers a line; got {_short(error)}") from error
    declared = re.search(r"n_points\s*:\s*0*(\d+)", before)
    if declared is not None and declared.group(1) != str(len(rows)):
        raise LandmarkFileError(
            f"{file}: expected {_short(declared.group(1))} points (n_points); got {len(rows)} lines"
        )
    return values


def _document(file: Path, content: bytes) -> Any:
    try:
        return json.loads(_text(file, content))
    except RecursionError as error:
        raise LandmarkFileError(f"{file}: expected {_JSON_LAYOUTS}; got lists or objects nested too deep") from error
    except ValueError as error:  # also for numbers of thousands of digits
        raise LandmarkFileError(f"{file}: expected JSON; got {_short(error)}") from error


def _read_json(file: Path, content: bytes) -> list[NDArray[np.float64]]:
    document = _document(file, content)
    faces = document.get("faces") if isinstance(document, dict) else None
    if isinstance(faces, list) and not any(key in document for key in LIST_NAMES):
        return [_numbers(_point_list(face, file), file) for face in faces]
    return [_numbers(_point_list(document, file), file)]


def _point_list(content: Any, file: Path) -> Any:
    if isinstance(content, list):
        return content
    keys = [key for key in (*LIST_NAMES, "faces") if isinstance(content, dict) and isinstance(content.get(key), list)]
    if len(keys) != 1 or keys == ["faces"]:
        came = f"the keys {_short(sorted(content))}" if isinstance(content, dict) else type(content).__name__
        raise LandmarkFileError(f"{file}: expected {_JSON_LAYOUTS}; got {came}")
    return content[keys[0]]


def _numbers(content: Any, file: Path) -> NDArray[np.float64]:
    try:
        if _is_table(content, axes=3):
            return np.array(content, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise LandmarkFileError(f"{file}: expected {_JSON_LAYOUTS}; got lists that are no table of numbers") from error
    raise LandmarkFileError(f"{file}: expected {_JSON_LAYOUTS}; got lists that are no table of numbers")


def _is_table(content: Any, axes: int) -> bool:
    if isinstance(content, list):
        return axes > 0 and all(_is_table(entry, axes - 1) for entry in content)
    return content is None or (isinstance(content, (int, float)) and not isinstance(content, bool))


def _read_npy(file: Path, content: bytes) -> list[NDArray[np.float64]]:
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
        raise LandmarkFileError(f"{file}: expected a .npy array of numbers; got {_short(error)}") from error
    if values.dtype.kind not in "iuf":
        raise LandmarkFileError(f"{file}: expected a .npy array of numbers; got {values.dtype}")
    return [values.astype(np.float64)]


def _text(file: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LandmarkFileError(f"{file}: expected text; got bytes that are not UTF-8") from error


def _short(came: object) -> str:
    """A message's account of what came, cut where it is long."""
    text = str(came) or type(came).__name__
    return text if len(text) <= _LONGEST_ACCOUNT else f"{text[:_LONGEST_ACCOUNT]}..."
