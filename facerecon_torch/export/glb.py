"""Mesh -> binary glTF 2.0 (GLB), in metres.

The format fixes metres, +y up and +z forward; the model frame differs from it in the unit only. Its texture
coordinates run downwards and its vertex colours are linear, so both are converted.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.export.arrays import MeshArrays, mesh_arrays, suffixed_path
from facerecon_torch.files import replacing
from facerecon_torch.structures import Mesh

__all__ = ["METRES_PER_UNIT", "save_glb"]

METRES_PER_UNIT = 1e-3
_FLOAT, _UNSIGNED = 5126, 5125  # component types of the format
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}


def save_glb(mesh: Mesh, path: str | os.PathLike[str], *, normals: bool = True, colours: Tensor | None = None) -> Path:
    """The path of a binary glTF file with one double-sided mesh, in metres.

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
    document, binary = _document(mesh_arrays(mesh, normals=normals, colours=colours), name=target.stem)
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
