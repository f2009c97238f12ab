"""Mesh -> Wavefront OBJ and binary PLY in mm, and binary glTF 2.0 (GLB) in metres.

glTF fixes metres, +y up and +z forward; the model frame differs from it in the unit only. Its texture coordinates run
downwards and its vertex colours are linear, so both are converted.
"""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Mesh

__all__ = ["MeshArrays", "mesh_arrays", "suffixed_path", "save_obj", "save_ply", "METRES_PER_UNIT", "save_glb"]

METRES_PER_UNIT = 1e-3
_FLOAT, _UNSIGNED = 5126, 5125  # component types of the format
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}


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
    uv, rows = np.unique(_array(mesh.corner_uv).reshape(-1, 2), axis=0, return_inverse=True)
    return replace(arrays, uv=uv, uv_triangles=rows.reshape(-1, 3).astype(np.int32))


def _split_at_seams(arrays: MeshArrays) -> MeshArrays:
    """The mesh with a vertex for every pair of vertex and texture coordinate, in the order of the vertices."""
    if arrays.uv is None or arrays.uv_triangles is None:
        return arrays
    corners = np.stack([arrays.triangles.ravel(), arrays.uv_triangles.ravel()], axis=1)
    pairs, rows = np.unique(corners, axis=0, return_inverse=True)
    loose = np.setdiff1d(np.arange(len(arrays.vertices)), pairs[:, 0])  # of no triangle; they come last
    vertex = np.concatenate([pairs[:, 0], loose])
    return MeshArrays(
        arrays.vertices[vertex],
        rows.reshape(-1, 3).astype(np.int32),
        None if arrays.normals is None else arrays.normals[vertex],
        np.concatenate([arrays.uv[pairs[:, 1]], np.zeros((len(loose), 2))]),
        None if arrays.colours is None else arrays.colours[vertex],
    )


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


def save_obj(mesh: Mesh, path: str | os.PathLike[str], *, normals: bool = True, colours: Tensor | None = None) -> Path:
    """The path of an OBJ file: mm with 5 decimals, indices from 1, uv with v upwards, colours after x y z.

    A vertex at a seam of the texture has several texture coordinates.

    Args:
        mesh: The mesh, in mm.
        path: The file to write; it must end in .obj.
        normals: Whether to write the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.

    Raises:
        ValueError: The suffix is another one, or the mesh cannot be written (see `mesh_arrays`).

    Example:
        save_obj(face.mesh, "face.obj")
    """
    target = suffixed_path(path, ".obj")
    arrays = mesh_arrays(mesh, normals=normals, colours=colours)
    with replacing(target) as aside:
        aside.write_text("".join(_sections(arrays)), encoding="ascii", newline="\n")
    return target


def _sections(arrays: MeshArrays) -> Iterator[str]:
    yield "# facerecon_torch: millimetres, +x right, +y up, +z towards the viewer\n"
    columns = arrays.vertices if arrays.colours is None else np.hstack([arrays.vertices, arrays.colours])
    yield _lines("v" + " %.5f" * columns.shape[1], columns)
    if arrays.uv is not None:
        yield _lines("vt %.6f %.6f", arrays.uv)
    if arrays.normals is not None:
        yield _lines("vn %.5f %.5f %.5f", arrays.normals)
    corner = {
        (False, False): "%d",
        (True, False): "%d/%d",
        (False, True): "%d//%d",
        (True, True): "%d/%d/%d",
    }[arrays.uv is not None, arrays.normals is not None]
    indices = np.stack([arrays.triangles + 1] * corner.count("%d"), axis=2)
    if arrays.uv_triangles is not None:
        indices[..., 1] = arrays.uv_triangles + 1
    yield _lines(" ".join(["f", corner, corner, corner]), indices)


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


def save_glb(mesh: Mesh, path: str | os.PathLike[str], *, normals: bool = True, colours: Tensor | None = None) -> Path:
    """The path of a binary glTF file with one double-sided mesh, in metres.

    Vertices are split at the seams of the texture, since the format has one texture coordinate per vertex.

    Args:
        mesh: The mesh, in mm.
        path: The file to write; it must end in .glb.
        normals: Whether to write the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.

    Raises:
        ValueError: The suffix is another one, or the mesh cannot be written (see `mesh_arrays`).

    Example:
        save_glb(face.mesh, "face.glb")
    """
    target = suffixed_path(path, ".glb")
    arrays = _split_at_seams(mesh_arrays(mesh, normals=normals, colours=colours))
    document, binary = _document(arrays, name=target.stem)
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
    chunks = _chunk(b"JSON", text, b" ") + _chunk(b"BIN\0", binary, b"\0")
    with replacing(target) as aside:
        aside.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return target


def _chunk(kind: bytes, content: bytes, padding: bytes) -> bytes:
    content += padding * (-len(content) % 4)
    return struct.pack("<I4s", len(content), kind) + content


def _attributes(arrays: MeshArrays) -> dict[str, NDArray[np.float32]]:
    """The attributes of the vertices in the units and directions of the format."""
    attributes: dict[str, NDArray[np.float64]] = {"POSITION": arrays.vertices * METRES_PER_UNIT}
    if arrays.normals is not None:
        attributes["NORMAL"] = arrays.normals
    if arrays.uv is not None:
        attributes["TEXCOORD_0"] = np.stack([arrays.uv[:, 0], 1 - arrays.uv[:, 1]], axis=1)
    if arrays.colours is not None:
        attributes["COLOR_0"] = _linear(arrays.colours)
    return {key: values.astype("<f4") for key, values in attributes.items()}


def _document(arrays: MeshArrays, name: str) -> tuple[dict[str, Any], bytes]:
    columns = _attributes(arrays)
    tables: list[NDArray[Any]] = [*columns.values(), arrays.triangles.reshape(-1, 1).astype("<u4")]
    offsets = np.cumsum([0, *(table.nbytes for table in tables)]).tolist()
    targets = [*(_VERTEX_BUFFER for _ in columns), _INDEX_BUFFER]
    tint = 0.8 if arrays.colours is None else 1.0  # the material multiplies the vertex colours
    material = {"metallicFactor": 0.0, "roughnessFactor": 0.8, "baseColorFactor": [tint, tint, tint, 1.0]}
    primitive = {
        "attributes": {key: index for index, key in enumerate(columns)},
        "indices": len(columns),
        "material": 0,
        "mode": 4,
    }
    document = {
        "asset": {"version": "2.0", "generator": "facerecon_torch"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": material, "doubleSided": True}],
        "accessors": [_accessor(index, table) for index, table in enumerate(tables)],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": table.nbytes, "target": target}
            for start, table, target in zip(offsets, tables, targets)
        ],
        "buffers": [{"byteLength": offsets[-1]}],
    }
    return document, b"".join(table.tobytes() for table in tables)


def _accessor(view: int, table: NDArray[Any]) -> dict[str, Any]:
    """The description of one table; `min` and `max` are exactly those of the stored values."""
    floating = table.dtype.kind == "f"
    return {
        "bufferView": view,
        "componentType": _FLOAT if floating else _UNSIGNED,
        "count": len(table),
        "type": _KINDS[table.shape[1]],
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
    }


def _linear(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear colours of sRGB colours (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
