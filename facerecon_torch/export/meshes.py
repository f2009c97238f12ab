"""Mesh -> Wavefront OBJ, with its texture, and binary PLY in mm.

The faces of a run share their triangles and texture coordinates: lines and tables of these are kept.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing, write_bytes
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Mesh

__all__ = ["MeshArrays", "mesh_arrays", "save_obj", "save_ply", "suffixed_path"]

_KEPT = 4  # topologies


@dataclass(frozen=True)
class MeshArrays:
    """Vertices in mm; normals of unit length; colours are sRGB in [0, 1]; texture coordinates in [0, 1], v upwards.

    A mesh with seams has `uv_triangles`, which count the rows of `uv`; otherwise `uv` has one row per vertex.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    normals: NDArray[np.float64] | None
    uv: NDArray[np.float64] | None
    colours: NDArray[np.float64] | None
    uv_triangles: NDArray[np.int32] | None = None


def mesh_arrays(mesh: Mesh, *, normals: bool, colours: Tensor | None) -> MeshArrays:
    """The arrays of a mesh.

    Args:
        mesh: The mesh, on any device.
        normals: Whether to compute the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.

    Raises:
        ValueError: The mesh has no triangle, a value that is not finite, or an index or shape that does not fit.
    """
    require_shape("mesh.vertices", mesh.vertices, (None, 3))
    count = len(mesh.vertices)
    require_shape("mesh.triangles", mesh.triangles, (None, 3))
    require_finite("mesh.vertices", mesh.vertices)
    if mesh.triangles.numel() == 0:
        raise ValueError("mesh.triangles must hold at least one triangle; got none")
    low, high = (int(v) for v in mesh.triangles.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"mesh.triangles must index vertices 0..{count - 1}; got {low}..{high}")
    for name, values, width in (("mesh.uv", mesh.uv, 2), ("colours", colours, 3)):
        if values is not None:
            require_shape(name, values, (count, width))
            require_finite(name, values)
    arrays = MeshArrays(
        _array(mesh.vertices),
        np.ascontiguousarray(mesh.triangles.detach().cpu().numpy().astype(np.int32)),
        _unit_normals(mesh) if normals else None,
        None if mesh.uv is None else _array(mesh.uv),
        None if colours is None else _array(colours.clamp(0, 1)),
    )
    if mesh.corner_uv is None:
        return arrays
    require_shape("mesh.corner_uv", mesh.corner_uv, (len(mesh.triangles), 3, 2))
    require_finite("mesh.corner_uv", mesh.corner_uv)
    uv, uv_triangles = _distinct(_array(mesh.corner_uv).tobytes())
    return replace(arrays, uv=uv, uv_triangles=uv_triangles)


@lru_cache(_KEPT)
def _distinct(corner_uv: bytes) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """The distinct texture coordinates of corners [T, 3, 2] of float64, and the corners' rows in them."""
    uv, rows = np.unique(np.frombuffer(corner_uv).reshape(-1, 2), axis=0, return_inverse=True)
    return uv, rows.reshape(-1, 3).astype(np.int32)


def suffixed_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """The path, if it ends in `suffix`. Raises ValueError otherwise."""
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ValueError(f"path must end in {suffix}; got {target}")
    return target


def _array(values: Tensor) -> NDArray[np.float64]:
    return np.ascontiguousarray(values.detach().double().cpu().numpy())


def _unit_normals(mesh: Mesh) -> NDArray[np.float64]:
    """Normals of unit length. A vertex without triangles gets the direction of the viewer."""
    normals = _array(vertex_normals(mesh.vertices.double(), mesh.triangles))
    normals[(normals == 0).all(axis=1)] = (0.0, 0.0, 1.0)
    return normals


def save_obj(
    mesh: Mesh,
    path: str | os.PathLike[str],
    *,
    normals: bool = True,
    colours: Tensor | None = None,
    texture: bytes | None = None,
) -> Path:
    """The path of an OBJ file: mm with 5 decimals, indices from 1, uv with v upwards, colours after x y z.

    A vertex at a seam of the texture has several texture coordinates.

    Args:
        mesh: The mesh, in mm.
        path: The file to write; it must end in .obj.
        normals: Whether to write the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.
        texture: A PNG file (`texture.encode_texture`), written as NAME_texture.png with the material NAME.mtl.

    Raises:
        ValueError: The suffix is another one, or the mesh cannot be written (see `mesh_arrays`).

    Example:
        save_obj(face.mesh, "face.obj")
    """
    target = suffixed_path(path, ".obj")
    arrays = mesh_arrays(mesh, normals=normals, colours=colours)
    if texture is not None:
        if arrays.uv is None:
            raise ValueError("a texture needs a mesh with texture coordinates; this one has none")
        _save_material(target, texture)
    with replacing(target) as aside:
        text = "".join(_sections(arrays, None if texture is None else target.stem))
        aside.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
    return target


def _save_material(target: Path, texture: bytes) -> None:
    """Write NAME_texture.png and NAME.mtl beside NAME.obj."""
    picture = target.with_name(f"{target.stem}_texture.png")
    write_bytes(picture, texture)
    lines = (
        "# facerecon_torch",
        "newmtl face",
        "Ka 1 1 1",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "illum 1",
        f"map_Kd {picture.name}",
    )
    write_bytes(target.with_suffix(".mtl"), ("\n".join(lines) + "\n").encode(errors="surrogateescape"))


def _sections(arrays: MeshArrays, material: str | None) -> Iterator[str]:
    yield "# facerecon_torch: millimetres, +x right, +y up, +z towards the viewer\n"
    if material is not None:
        yield f"mtllib {material}.mtl\nusemtl face\n"
    columns = arrays.vertices if arrays.colours is None else np.hstack([arrays.vertices, arrays.colours])
    yield _lines("v" + " %.5f" * columns.shape[1], columns)
    if arrays.uv is not None:
        yield _uv_lines(arrays.uv.tobytes())
    if arrays.normals is not None:
        yield _lines("vn %.5f %.5f %.5f", arrays.normals)
    uv_triangles = arrays.triangles if arrays.uv_triangles is None else arrays.uv_triangles
    kinds = arrays.uv is not None, arrays.normals is not None
    yield _face_lines(arrays.triangles.tobytes(), uv_triangles.tobytes(), *kinds)


@lru_cache(_KEPT)
def _uv_lines(uv: bytes) -> str:
    return _lines("vt %.6f %.6f", np.frombuffer(uv).reshape(-1, 2))


@lru_cache(_KEPT)
def _face_lines(triangles: bytes, uv_triangles: bytes, has_uv: bool, has_normals: bool) -> str:
    corner = {
        (False, False): "%d",
        (True, False): "%d/%d",
        (False, True): "%d//%d",
        (True, True): "%d/%d/%d",
    }[has_uv, has_normals]
    vertex, uv = (np.frombuffer(table, dtype=np.int32).reshape(-1, 3) + 1 for table in (triangles, uv_triangles))
    indices = np.stack([vertex] * corner.count("%d"), axis=2)
    if has_uv:
        indices[..., 1] = uv
    return _lines(" ".join(["f", corner, corner, corner]), indices)


def _lines(pattern: str, rows: NDArray[np.float64] | NDArray[np.int32]) -> str:
    """The rows of a table as lines, formatted in one operation."""
    return ((pattern + "\n") * len(rows)) % tuple(rows.ravel().tolist())


def save_ply(mesh: Mesh, path: str | os.PathLike[str], *, normals: bool = True, colours: Tensor | None = None) -> Path:
    """The path of a binary PLY file: float32 x y z in mm, nx ny nz, s t (v upwards), and 8-bit red green blue.

    The format has one texture coordinate per vertex: at seams the texture is torn, unlike in OBJ and GLB.

    Args:
        mesh: The mesh, in mm.
        path: The file to write; it must end in .ply.
        normals: Whether to write the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.

    Raises:
        ValueError: The suffix is another one, or the mesh cannot be written (see `mesh_arrays`).

    Example:
        save_ply(face.mesh, "face.ply")
    """
    target = suffixed_path(path, ".ply")
    arrays = mesh_arrays(replace(mesh, corner_uv=None), normals=normals, colours=colours)
    columns = [("x y z", "<f4", arrays.vertices)]
    if arrays.normals is not None:
        columns.append(("nx ny nz", "<f4", arrays.normals))
    if arrays.uv is not None:
        columns.append(("s t", "<f4", arrays.uv))
    if arrays.colours is not None:
        columns.append(("red green blue", "u1", np.round(arrays.colours * 255)))
    fields = [(name, kind) for names, kind, _ in columns for name in names.split()]
    table = np.empty(len(arrays.vertices), dtype=fields)
    for names, _, values in columns:
        for index, name in enumerate(names.split()):
            table[name] = values[:, index]
    faces = np.empty(len(arrays.triangles), dtype=[("n", "u1"), ("corners", "<i4", (3,))])
    faces["n"], faces["corners"] = 3, arrays.triangles
    with replacing(target) as aside:
        aside.write_bytes(_header(fields, len(table), len(faces)) + table.tobytes() + faces.tobytes())
    return target


def _header(fields: list[tuple[str, str]], vertices: int, faces: int) -> bytes:
    kinds = {"<f4": "float", "u1": "uchar"}
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment facerecon_torch: millimetres, +x right, +y up, +z towards the viewer",
        f"element vertex {vertices}",
        *(f"property {kinds[kind]} {name}" for name, kind in fields),
        f"element face {faces}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")
