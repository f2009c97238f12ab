"""Meshes and landmarks in the files of other systems: OBJ, PLY, NPZ, NPY, MATLAB 5 and text.

.obj .ply   a mesh (3DDFA, 3DDFA_V2, DECA, EMOCA, MICA, eos), in PLY also points alone
.mat        `vertex`, `vertices` or `verts` [3, V] or [V, 3], optionally `triangles`, `tri` or `faces` (3DDFA)
.npz        arrays of the same names
.npy        [V, 3]; 7 or 68 rows are landmarks (MICA's kpt7.npy and kpt68.npy)
.txt        7 or 68 rows of 2 or 3 numbers, or their transpose (3DDFA's and DECA's landmarks)
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.format_errors import format_error, read_ascii, require_range, strict_float
from facerecon_torch.formats.matlab5 import iter_variables
from facerecon_torch.formats.npz_file import read_npy, read_npz
from facerecon_torch.formats.ply_file import read_ply
from facerecon_torch.formats.polygon_mesh import REACH, read_polygon_mesh

__all__ = [
    "LANDMARK_COUNTS",
    "SUFFIXES",
    "OutputMesh",
    "OutputPoints",
    "read_output",
    "read_triangles",
    "read_vertex_numbers",
]

SUFFIXES = (".obj", ".ply", ".npz", ".npy", ".mat", ".txt")
LANDMARK_COUNTS = (7, 68)
_VERTICES = ("vertices", "vertex", "verts")
_TRIANGLES = ("triangles", "tri", "faces")
_LARGEST = 1 << 28


@dataclass(frozen=True)
class OutputMesh:
    """A mesh in its system's own frame and unit; without triangles where the file has none."""

    vertices: Float[Tensor, "V 3"]
    triangles: Int[Tensor, "T 3"] | None


@dataclass(frozen=True)
class OutputPoints:
    """Landmarks: 7 in the order of `scan.SEVEN_POINTS` or 68 in iBUG order; in px of the image where there are two
    coordinates."""

    points: Float[Tensor, "n c"]


def read_output(path: str | os.PathLike[str]) -> OutputMesh | OutputPoints:
    """The mesh or points in one output file of a system, in float64.

    Args:
        path: a file whose name ends in one of `SUFFIXES`.

    Raises:
        DataFileError: the file is damaged, of another kind, or has no vertices.

    Example:
        >>> read_output("photo_0.mat").vertices.shape
        torch.Size([53215, 3])
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in (".obj", ".ply"):
        return _polygon_mesh(file)
    if suffix == ".mat":
        return _named(file, {v.name: v.values for v in iter_variables(file, limit=_LARGEST) if v.values is not None})
    if suffix == ".npz":
        return _named(file, read_npz(file, limit=_LARGEST))
    if suffix == ".npy":
        return _points_or_vertices(file, read_npy(file, limit=_LARGEST))
    if suffix == ".txt":
        return OutputPoints(_tensor(file, "rows", _landmark_rows(file, _text_table(file))))
    raise format_error(file, "name", f"a name that ends in one of {', '.join(SUFFIXES)}", repr(file.name))


def read_triangles(path: str | os.PathLike[str], n_vertices: int) -> Int[Tensor, "T 3"]:
    """The triangles in a mesh file, or in a `.mat` or `.npz` file without vertices (3DDFA's tri.mat).

    Args:
        path: the file.
        n_vertices: of the mesh that they belong to.

    Raises:
        DataFileError: the file is damaged, has no triangles, or numbers of vertices that the mesh lacks.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".mat":
        arrays = {v.name: v.values for v in iter_variables(file, limit=_LARGEST) if v.values is not None}
    else:
        arrays = read_npz(file, limit=_LARGEST) if suffix == ".npz" else {}
        if suffix in (".obj", ".ply"):
            arrays = {_TRIANGLES[0]: read_polygon_mesh(file).triangles.numpy()}
    table = next((arrays[name] for name in _TRIANGLES if name in arrays), None)
    if table is None:
        raise format_error(file, "triangles", f"an array named {' or '.join(_TRIANGLES)}, or a mesh", "none")
    return _corner_table(file, table, n_vertices)


def read_vertex_numbers(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The 7 or 68 vertex numbers, counted from 0, of a mesh's landmarks in a text file.

    Raises:
        DataFileError: the file holds something else.
    """
    file = Path(path)
    words = read_ascii(file, limit=1 << 16).replace(",", " ").split()
    if len(words) not in LANDMARK_COUNTS or not all(word.isdigit() and len(word) < 10 for word in words):
        raise format_error(file, "content", "7 or 68 vertex numbers", f"{len(words)} words")
    return tuple(int(word) for word in words)


def _polygon_mesh(file: Path) -> OutputMesh:
    if file.suffix.lower() == ".ply" and not read_ply(file)[2]:
        return OutputMesh(read_polygon_mesh(file, faces=False).vertices, None)
    mesh = read_polygon_mesh(file)
    return OutputMesh(mesh.vertices, mesh.triangles)


def _named(file: Path, arrays: Mapping[str, NDArray[Any]]) -> OutputMesh:
    vertices = next((arrays[name] for name in _VERTICES if name in arrays), None)
    if vertices is None:
        names = ", ".join(sorted(arrays)[:8]) or "no array"
        raise format_error(file, "vertices", f"an array named {' or '.join(_VERTICES)}", names)
    triangles = next((arrays[name] for name in _TRIANGLES if name in arrays), None)
    table = _tensor(file, "vertices", _columns(file, "vertices", vertices))
    return OutputMesh(table, None if triangles is None else _corner_table(file, triangles, len(table)))


def _corner_table(file: Path, triangles: NDArray[Any], n_vertices: int) -> Int[Tensor, "T 3"]:
    """Corners from 0; a table that counts from 1, as MATLAB's do, holds the number of vertices itself."""
    rows = _columns(file, "triangles", triangles).astype(np.int64)
    low, high = (int(rows.min()), int(rows.max())) if len(rows) else (0, -1)
    if low >= 1 and high == n_vertices:
        rows, high = rows - 1, high - 1
    if not len(rows) or rows.min() < 0 or high >= n_vertices:
        raise format_error(file, "triangles", f"vertex numbers below {n_vertices}", f"{low} to {high}")
    return torch.from_numpy(rows)


def _columns(file: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The rows of a table [n, 3] or [3, n]; leading axes of length 1 are dropped."""
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2 and values.shape[0] == 3 and values.shape[1] != 3:
        values = values.T
    if values.ndim != 2 or values.shape[1] != 3 or values.dtype.kind not in "fiu":
        raise format_error(file, name, "numbers of shape [n, 3] or [3, n]", f"{values.dtype} {values.shape}")
    return np.ascontiguousarray(values)


def _points_or_vertices(file: Path, values: NDArray[Any]) -> OutputMesh | OutputPoints:
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2 and (values.shape[0] in LANDMARK_COUNTS or values.shape[1] in LANDMARK_COUNTS):
        return OutputPoints(_tensor(file, "points", _landmark_rows(file, values)))
    return OutputMesh(_tensor(file, "vertices", _columns(file, "vertices", values)), None)


def _landmark_rows(file: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 2 and values.shape[0] in (2, 3) and values.shape[1] in LANDMARK_COUNTS:
        values = values.T
    right = values.ndim == 2 and values.shape[0] in LANDMARK_COUNTS and values.shape[1] in (2, 3)
    if not right or values.dtype.kind not in "fiu":
        raise format_error(file, "points", "7 or 68 points of 2 or 3 numbers", f"{values.dtype} {values.shape}")
    return np.ascontiguousarray(values)


def _text_table(file: Path) -> NDArray[np.float64]:
    rows = [line.replace(",", " ").split() for line in read_ascii(file, limit=1 << 20).split("\n") if line.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        raise format_error(file, "rows", "rows of equally many numbers", f"{len(rows)} rows of different lengths")
    return np.array([[strict_float(word) for word in row] for row in rows])


def _tensor(file: Path, name: str, values: NDArray[Any]) -> Tensor:
    with np.errstate(invalid="ignore"):
        table = values.astype(np.float64)
    require_range(file, name, table, -REACH, REACH)
    if not len(table):
        raise format_error(file, name, "at least one row", "none")
    return torch.from_numpy(table)
