"""Meshes of polygons in OBJ and PLY files; every polygon becomes a fan of triangles.

OBJ: `v x y z` (further numbers, such as colours, are ignored), `vt u v`, and `f` with three or more corners of one
form, v, v/vt, v//vn or v/vt/vn, counted from 1. A texture or normal index of 0 is not allowed by the format, but occurs
in FaceWarehouse's files; it means that there is none. PLY: ply_file.py.
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

from facerecon_torch.formats.format_errors import format_error, read_ascii, require_range, shown
from facerecon_torch.formats.ply_file import read_ply

__all__ = ["CornerTexture", "PolygonMesh", "corner_texture", "read_polygon_mesh", "triangle_fans"]

REACH = 1e6  # in the unit of the vertices; a kilometre in mm
LARGEST_TEXT = 1 << 29
_NUMBERS = re.compile(r"[-+.0-9eE\s]*")
_CORNER = re.compile(r"(\d{1,9})(?:/(\d{0,9})(/\d{0,9})?)?")
_IGNORED = frozenset({"vn", "vp", "o", "g", "s", "l", "p", "usemtl", "mtllib"})


@dataclass(frozen=True, slots=True)
class PolygonMesh:
    """A mesh of triangles with texture coordinates.

    `uv` holds the texture coordinate of each vertex's first corner, 0 for a vertex without one; it is None if the file
    has no texture coordinates. `n_polygons` counts the polygons of the file, `n_seams` the vertices with several
    texture coordinates; `corner_uv` holds those of all corners of the triangles, and is None without such vertices.
    """

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int64[Tensor, "triangles 3"]
    uv: Float[Tensor, "vertices 2"] | None
    corner_uv: Float[Tensor, "triangles 3 2"] | None
    n_polygons: int
    n_seams: int


@dataclass(frozen=True, slots=True)
class CornerTexture:
    """Texture coordinates of a mesh's vertices, and of its triangles' corners if some vertices have several."""

    uv: Float[np.ndarray, "vertices 2"]  # of the first corner of every vertex; 0 for a vertex without one
    corner_uv: Float[np.ndarray, "triangles 3 2"] | None
    n_seams: int  # vertices with several texture coordinates


def read_polygon_mesh(
    path: str | os.PathLike[str], *, faces: bool = True, n_vertices: int | None = None, exponent: int = 0
) -> PolygonMesh:
    """The mesh of an `.obj` or `.ply` file, in float64.

    Args:
        path: The file.
        faces: Whether to read triangles and texture coordinates; without them the mesh has no triangle.
        n_vertices: Expected number of vertices. Text has no counts, so this alone detects a file that was cut off
            between two lines.
        exponent: Vertices are multiplied by 10 ** exponent. The decimal numbers of an OBJ file are rounded only once.

    Raises:
        DataFileError: The file is of another kind, has an unknown line or element, an index without a vertex, another
            number of vertices, or a number that is not finite or exceeds 1e6.

    Example:
        read_polygon_mesh("pose_0.obj", exponent=2).vertices  # dm in the file, mm in the tensor
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".ply":
        vertices, uv, polygons = read_ply(file)
        vertices = vertices * 10.0**exponent
        corner_uv = polygons if len(uv) else []
    elif suffix == ".obj":
        vertices, uv, polygons, corner_uv = _read_obj(file, faces, exponent)
    else:
        raise format_error(file, "name", "a name that ends in .obj or .ply", shown(file.name))
    if len(vertices) == 0 or (faces and not polygons):
        raise format_error(file, "mesh", "vertices and polygons", f"{len(vertices)} vertices, {len(polygons)} polygons")
    if n_vertices not in (None, len(vertices)):
        raise format_error(file, "vertices", n_vertices, len(vertices))
    require_range(file, "vertices", vertices, -REACH, REACH)
    require_range(file, "texture coordinates", uv, -REACH, REACH)
    polygons, corner_uv = (polygons, corner_uv) if faces else ([], [])
    _require_indices(file, "polygons", polygons, lowest=0, count=len(vertices))
    _require_indices(file, "texture indices", corner_uv, lowest=-1, count=len(uv))
    texture = corner_texture(uv, polygons, corner_uv, len(vertices)) if corner_uv else None
    return PolygonMesh(
        vertices=torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64)),
        triangles=torch.from_numpy(triangle_fans(polygons)),
        uv=None if texture is None else torch.from_numpy(texture.uv),
        corner_uv=None if texture is None or texture.corner_uv is None else torch.from_numpy(texture.corner_uv),
        n_polygons=len(polygons),
        n_seams=0 if texture is None else texture.n_seams,
    )


def triangle_fans(polygons: list[list[int]]) -> NDArray[np.int64]:
    """The triangles [T, 3] of all polygons: (0, 1, 2), (0, 2, 3), ... of each, in order."""
    corners = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return np.array(corners, dtype=np.int64).reshape(-1, 3)


def _read_obj(
    file: Path, faces: bool, exponent: int
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
        elif kind and kind != "f" and kind not in _IGNORED and not kind.startswith("#"):
            raise format_error(file, f"line {number}", "a line of an OBJ file (v, vt, f, ...)", shown(line))
    uv = _table(file, "vt", rows["vt"], 2, 0) if faces else np.zeros((0, 2))
    has_uv = len(uv) > 0 and any(index >= 0 for textures in corner_uv for index in textures)
    return _table(file, "v", rows["v"], 3, exponent), uv, polygons, corner_uv if has_uv else []


def _table(file: Path, kind: str, lines: list[str], width: int, exponent: int) -> NDArray[np.float64]:
    words = [line.split() for line in lines]
    short = next((line for line, row in zip(lines, words) if len(row) < width or len(row) > 6), None)
    if short is not None:
        raise format_error(file, f"a line {kind}", f"{kind} and {width} numbers", shown(f"{kind} {short}"))
    flat = [word for row in words for word in row[:width]]
    try:
        if _NUMBERS.fullmatch(" ".join(flat)) is None:  # float() also takes nan, inf and 1_0
            raise ValueError("a word that is no plain number")
        scaled = [_times_power(word, exponent) for word in flat] if exponent else flat
        return np.array(scaled, dtype=np.float64).reshape(-1, width)
    except ValueError as error:
        raise format_error(file, f"lines {kind}", "plain decimal numbers", str(error)) from error


def _times_power(word: str, exponent: int) -> str:
    """The decimal number times 10 ** exponent, as text, so that it is rounded only once."""
    mantissa, _, own = word.lower().partition("e")
    return f"{mantissa}e{int(own or 0) + exponent}"


def _corners(file: Path, number: int, rest: str) -> tuple[list[int], list[int]]:
    """Vertex and texture indices of one polygon, from 0; -1 for no texture."""
    matches = [_CORNER.fullmatch(word) for word in rest.split()]
    corners = [match.groups() for match in matches if match is not None]
    forms = {(texture is None, normal is None) for _, texture, normal in corners}
    if len(corners) != len(matches) or len(corners) < 3 or len(forms) > 1:
        expected = "f and three or more corners v/vt/vn of one form, counted from 1"
        raise format_error(file, f"line {number}", expected, shown(f"f {rest}"))
    return [int(vertex) - 1 for vertex, _, _ in corners], [int(texture or 0) - 1 for _, texture, _ in corners]


def _require_indices(file: Path, name: str, rows: list[list[int]], *, lowest: int, count: int) -> None:
    low, high = min(map(min, rows), default=lowest), max(map(max, rows), default=lowest)
    if low < lowest or high >= max(count, lowest + 1):
        raise format_error(file, name, f"indices below {count}, counted from 0", f"{low} to {high}")


def corner_texture(
    uv: NDArray[np.float64], polygons: list[list[int]], textures: list[list[int]], n_vertices: int
) -> CornerTexture:
    """The texture coordinates of a mesh of polygons.

    Args:
        uv: The coordinates that `textures` counts.
        polygons: The vertices of every polygon.
        textures: The rows of `uv` at the same corners; -1 for a corner without, which gets that of its vertex.
        n_vertices: Number of vertices.
    """
    vertex = np.array([index for polygon in polygons for index in polygon], dtype=np.int64)
    texture = np.array([index for corners in textures for index in corners], dtype=np.int64)
    has = texture >= 0
    used, first = np.unique(vertex[has], return_index=True)
    vertex_uv = np.zeros((n_vertices, 2))
    vertex_uv[used] = uv[texture[has][first]]
    at_corners = np.where(has[:, None], uv[texture], vertex_uv[vertex])
    n_seams = len(np.unique(vertex[(at_corners != vertex_uv[vertex]).any(axis=1)]))
    starts = np.cumsum([0, *map(len, polygons)]).tolist()
    fans = triangle_fans([[*range(start, start + len(corners))] for start, corners in zip(starts, polygons)])
    return CornerTexture(vertex_uv, at_corners[fans] if n_seams else None, n_seams)
