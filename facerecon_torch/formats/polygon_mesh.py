"""Meshes of polygons in OBJ and PLY files, each polygon as a fan of triangles.

OBJ: `v x y z` (further numbers, as colours, are passed over), `vt u v`, `f` with corners v, v/vt, v//vn or v/vt/vn
counted from 1; a texture or normal index of 0, which the format does not allow, counts as none. PLY: ply_file.py.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.format_errors import damaged, read_ascii, require_range, shown
from facerecon_torch.formats.ply_file import read_ply

__all__ = ["PolygonMesh", "fan", "read_polygon_mesh"]

REACH = 1e6  # in units of the file: a kilometre in mm, where only damage leads
LARGEST_TEXT = 1 << 29
_NUMBERS = re.compile(r"[-+.0-9eE\s]*")
_CORNER = re.compile(r"(\d{1,9})(?:/(\d{0,9})(?:/\d{0,9})?)?")
_PASSED_OVER = frozenset({"vn", "vp", "o", "g", "s", "l", "p", "usemtl", "mtllib"})


@dataclass(frozen=True, slots=True)
class PolygonMesh:
    """`vertices` in the file's unit; `uv` is the texture coordinate at a vertex's first corner (0 at a vertex without
    one), None where the file has none; `n_seams` counts vertices whose corners differ in it."""

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int64[Tensor, "triangles 3"]
    uv: Float[Tensor, "vertices 2"] | None
    n_polygons: int
    n_seams: int


def read_polygon_mesh(path: str | os.PathLike[str], *, faces: bool = True) -> PolygonMesh:
    """The mesh in an `.obj` or `.ply` file, in float64; without its triangles and uv if `faces` is False.

    Raises DataFileError for a file of another kind, for a line or an element that its format does not know, for
    indices without a vertex, and for numbers that are none or lie beyond 1e6 units.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".ply":
        vertices, uv, polygons = read_ply(file)
        corner_uv = polygons if len(uv) else []
    elif suffix == ".obj":
        vertices, uv, polygons, corner_uv = _read_obj(file, faces)
    else:
        raise damaged(file, "name", "a name that ends in .obj or .ply", shown(file.name))
    if len(vertices) == 0 or (faces and not polygons):
        raise damaged(file, "mesh", "vertices and polygons", f"{len(vertices)} vertices, {len(polygons)} polygons")
    require_range(file, "vertices", vertices, -REACH, REACH, unit="")
    require_range(file, "texture coordinates", uv, -REACH, REACH, unit="")
    kept = polygons if faces else []
    _require_indices(file, "polygons", kept, lowest=0, count=len(vertices))
    _require_indices(file, "texture indices", corner_uv, lowest=-1, count=len(uv))
    at_vertices, n_seams = _spread(uv, kept, corner_uv, len(vertices))
    return PolygonMesh(
        vertices=torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64)),
        triangles=torch.from_numpy(fan(kept)),
        uv=None if at_vertices is None else torch.from_numpy(at_vertices),
        n_polygons=len(kept),
        n_seams=n_seams,
    )


def fan(polygons: list[list[int]]) -> NDArray[np.int64]:
    """Triangles (0, 1, 2), (0, 2, 3), ... of every polygon, one polygon after the other."""
    corners = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return np.array(corners, dtype=np.int64).reshape(-1, 3)


def _read_obj(
    file: Path, faces: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[list[int]], list[list[int]]]:
    rows: dict[str, list[str]] = {"v": [], "vt": []}
    polygons: list[list[int]] = []
    corner_uv: list[list[int]] = []
    for number, line in enumerate(read_ascii(file, limit=LARGEST_TEXT).split("\n"), start=1):
        kind, rest = [*line.split(maxsplit=1), "", ""][:2]
        if kind in rows:
            rows[kind].append(rest)
        elif kind == "f" and faces:
            polygon, textures = _corners(file, number, rest)
            polygons.append(polygon)
            corner_uv.append(textures)
        elif kind and kind != "f" and kind not in _PASSED_OVER and not kind.startswith("#"):
            raise damaged(file, f"line {number}", "a line of an OBJ file (v, vt, f, ...)", shown(line))
    uv = _table(file, "vt", rows["vt"], 2) if faces else np.zeros((0, 2))
    has_uv = len(uv) > 0 and any(index >= 0 for textures in corner_uv for index in textures)
    return _table(file, "v", rows["v"], 3), uv, polygons, corner_uv if has_uv else []


def _table(file: Path, kind: str, lines: list[str], width: int) -> NDArray[np.float64]:
    words = [line.split() for line in lines]
    short = next((line for line, row in zip(lines, words) if len(row) < width or len(row) > 6), None)
    if short is not None:
        raise damaged(file, f"a line {kind}", f"{kind} and {width} numbers", shown(f"{kind} {short}"))
    flat = [word for row in words for word in row[:width]]
    try:
        if _NUMBERS.fullmatch(" ".join(flat)) is None:  # float() also takes nan, inf and 1_0
            raise ValueError("a word that is no plain number")
        return np.array(flat, dtype=np.float64).reshape(-1, width)
    except ValueError as error:
        raise damaged(file, f"lines {kind}", "plain decimal numbers", str(error)) from error


def _corners(file: Path, number: int, rest: str) -> tuple[list[int], list[int]]:
    """Vertex and texture indices of one polygon, from 0; -1 for no texture."""
    matches = [_CORNER.fullmatch(word) for word in rest.split()]
    found = [match.groups() for match in matches if match is not None]
    if len(found) != len(matches) or len(found) < 3:
        raise damaged(file, f"line {number}", "f and three or more corners v/vt/vn counted from 1", shown(f"f {rest}"))
    return [int(vertex) - 1 for vertex, _ in found], [int(texture or 0) - 1 for _, texture in found]


def _require_indices(file: Path, name: str, rows: list[list[int]], *, lowest: int, count: int) -> None:
    low, high = min(map(min, rows), default=lowest), max(map(max, rows), default=lowest)
    if low < lowest or high >= max(count, lowest + 1):
        raise damaged(file, name, f"indices below {count}, counted from 0", f"{low} to {high}")


def _spread(
    uv: NDArray[np.float64], polygons: list[list[int]], corner_uv: list[list[int]], n_vertices: int
) -> tuple[NDArray[np.float64] | None, int]:
    """Texture coordinates of vertices, and how many vertices have corners with others."""
    if not corner_uv:
        return None, 0
    vertex = np.array([index for polygon in polygons for index in polygon], dtype=np.int64)
    texture = np.array([index for textures in corner_uv for index in textures], dtype=np.int64)
    vertex, texture = vertex[texture >= 0], texture[texture >= 0]
    known, first = np.unique(vertex, return_index=True)
    at_vertices = np.zeros((n_vertices, 2))
    at_vertices[known] = uv[texture[first]]
    differs = (at_vertices[vertex] != uv[texture]).any(axis=1)
    return at_vertices, len(np.unique(vertex[differs]))
