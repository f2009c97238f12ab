"""Mesh -> binary glTF 2.0 (GLB) in metres, with texture and morph targets.

glTF fixes metres, +y up and +z forward; the model frame differs from it in the unit only. Its texture coordinates run
downwards and its vertex colours are linear, so both are converted.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.export.meshes import MeshArrays, mesh_arrays, suffixed_path
from facerecon_torch.files import replacing
from facerecon_torch.structures import Mesh

__all__ = ["FLOAT", "METRES_PER_UNIT", "MorphTargets", "glb_parts", "save_glb"]

METRES_PER_UNIT = 1e-3
FLOAT = 5126
"""The component type of floats in the format."""
_UNSIGNED = 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}


@dataclass(frozen=True, kw_only=True)
class MorphTargets:
    """Displacements of a mesh by name, and the weights at which a viewer shows them first.

    Attributes:
        names: of the targets.
        displacements: of the vertices at weight 1, mm.
        weights: of the targets.

    Raises:
        ValueError: shapes do not fit each other, or a value is not finite.

    Example:
        shapes = named_shapes(model, face.parameters)
        targets = MorphTargets(names=shapes.names, displacements=shapes.displacements, weights=weights)
    """

    names: Sequence[str]
    displacements: Tensor  # [names, vertices, 3]
    weights: Tensor  # [names]

    def __post_init__(self) -> None:
        require_shape("displacements", self.displacements, (len(self.names), None, 3))
        require_shape("weights", self.weights, (len(self.names),))
        require_finite("displacements", self.displacements)
        require_finite("weights", self.weights)


def _split_at_seams(arrays: MeshArrays) -> tuple[NDArray[np.int64], MeshArrays]:
    """The mesh with a vertex for every pair of vertex and texture coordinate, and the vertex that each was."""
    if arrays.uv is None or arrays.uv_triangles is None:
        return np.arange(len(arrays.vertices)), arrays
    vertex, uv_row, triangles = _seams(arrays.triangles.tobytes(), arrays.uv_triangles.tobytes(), len(arrays.vertices))
    return vertex, MeshArrays(
        arrays.vertices[vertex],
        triangles,
        None if arrays.normals is None else arrays.normals[vertex],
        np.concatenate([arrays.uv[uv_row], np.zeros((len(vertex) - len(uv_row), 2))]),
        None if arrays.colours is None else arrays.colours[vertex],
    )


@lru_cache(4)
def _seams(
    triangles: bytes, uv_triangles: bytes, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """The vertex and the row of uv of every vertex of the split mesh, and its triangles; vertices of no triangle come
    last and have no row of uv."""
    corners = np.stack([np.frombuffer(table, dtype=np.int32) for table in (triangles, uv_triangles)], axis=1)
    pairs, rows = np.unique(corners, axis=0, return_inverse=True)
    loose = np.setdiff1d(np.arange(count), pairs[:, 0])
    vertex = np.concatenate([pairs[:, 0], loose]).astype(np.int64)
    return vertex, pairs[:, 1].astype(np.int64), rows.reshape(-1, 3).astype(np.int32)


def save_glb(
    mesh: Mesh,
    path: str | os.PathLike[str],
    *,
    normals: bool = True,
    colours: Tensor | None = None,
    texture: bytes | None = None,
    targets: MorphTargets | None = None,
) -> Path:
    """The path of a binary glTF file with one double-sided mesh, in metres.

    Vertices are split at the seams of the texture, since the format has one texture coordinate per vertex.

    Args:
        mesh: The mesh, in mm; with targets the mesh to which they are added.
        path: The file to write; it must end in .glb.
        normals: Whether to write the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.
        texture: A PNG file (`texture.encode_texture`), which becomes a part of this file.
        targets: Morph targets with their weights.

    Raises:
        ValueError: The suffix is another one, the mesh cannot be written (see `mesh_arrays`), a texture without texture
            coordinates, or targets of another number of vertices.

    Example:
        save_glb(face.mesh, "face.glb")
    """
    target = suffixed_path(path, ".glb")
    parts = glb_parts(mesh, target.stem, normals=normals, colours=colours, texture=texture, targets=targets)
    with replacing(target) as aside, open(aside, "wb") as file:
        file.writelines(parts)
    return target


def glb_parts(
    mesh: Mesh,
    name: str,
    *,
    normals: bool = True,
    colours: Tensor | None = None,
    texture: bytes | None = None,
    targets: MorphTargets | None = None,
) -> list[bytes]:
    """The content of `save_glb`'s file, in parts that are not joined in memory; `name` is that of the mesh."""
    if targets is not None:
        require_shape("targets.displacements", targets.displacements, (None, len(mesh.vertices), 3))
    vertex, arrays = _split_at_seams(mesh_arrays(mesh, normals=normals, colours=colours))
    if texture is not None and arrays.uv is None:
        raise ValueError("a texture needs a mesh with texture coordinates; this one has none")
    document, parts = _document(arrays, name, texture, targets, vertex)
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
    chunks = [*_chunk(b"JSON", [text], b" "), *_chunk(b"BIN\0", parts, b"\0")]
    return [struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))), *chunks]


def _chunk(kind: bytes, parts: list[bytes], padding: bytes) -> list[bytes]:
    """The parts of one chunk of the file, which are long: they are not joined in memory."""
    length = sum(map(len, parts))
    parts = [*parts, padding * (-length % 4)]
    return [struct.pack("<I4s", sum(map(len, parts)), kind), *parts]


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


def _document(
    arrays: MeshArrays,
    name: str,
    texture: bytes | None,
    targets: MorphTargets | None,
    vertex: NDArray[np.int64],
) -> tuple[dict[str, Any], list[bytes]]:
    columns = _attributes(arrays)
    tables: list[NDArray[Any]] = [*columns.values(), arrays.triangles.reshape(-1, 1).astype("<u4")]
    kinds = [_VERTEX_BUFFER] * len(columns) + [_INDEX_BUFFER]
    accessors = [_accessor(index, table) for index, table in enumerate(tables)]
    moved = None if targets is None else _moved(targets, vertex)
    lengths = [table.nbytes for table in tables]
    parts = [table.tobytes() for table in tables]
    if moved is not None and len(moved):
        accessors += _moved_accessors(len(tables), moved)
        kinds += [_VERTEX_BUFFER] * len(moved)
        lengths += [moved[0].nbytes] * len(moved)
        parts.append(moved.tobytes())
    offsets = np.cumsum([0, *lengths]).tolist()
    primitive: dict[str, Any] = {
        "attributes": {key: index for index, key in enumerate(columns)},
        "indices": len(columns),
        "material": 0,
        "mode": 4,
    }
    described: dict[str, Any] = {"name": name, "primitives": [primitive]}
    if targets is not None and len(targets.names):
        primitive["targets"] = [{"POSITION": len(tables) + k} for k in range(len(targets.names))]
        described |= {"weights": targets.weights.tolist(), "extras": {"targetNames": list(targets.names)}}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "facerecon_torch"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [described],
        "materials": [_material(arrays, texture)],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": length, "target": kind}
            for start, length, kind in zip(offsets, lengths, kinds)
        ],
    }
    if texture is not None:
        document["bufferViews"].append({"buffer": 0, "byteOffset": offsets[-1], "byteLength": len(texture)})
        document["images"] = [{"bufferView": len(lengths), "mimeType": "image/png"}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        document["textures"] = [{"source": 0, "sampler": 0}]
        parts.append(texture)
    document["buffers"] = [{"byteLength": sum(map(len, parts))}]
    return document, parts


def _material(arrays: MeshArrays, texture: bytes | None) -> dict[str, Any]:
    tint = 0.8 if arrays.colours is None and texture is None else 1.0  # the material multiplies colours and texture
    surface: dict[str, Any] = {
        "metallicFactor": 0.0,
        "roughnessFactor": 0.8,
        "baseColorFactor": [tint, tint, tint, 1.0],
    }
    if texture is not None:
        surface["baseColorTexture"] = {"index": 0}
    return {"pbrMetallicRoughness": surface, "doubleSided": True}


def _moved(targets: MorphTargets, vertex: NDArray[np.int64]) -> NDArray[np.float32]:
    """The displacements [n, v, 3] of the split mesh, in metres."""
    values = targets.displacements.detach().float().cpu().numpy()
    return (values.take(vertex, axis=1) * np.float32(METRES_PER_UNIT)).astype("<f4", copy=False)


def _moved_accessors(first: int, moved: NDArray[np.float32]) -> list[dict[str, Any]]:
    common = {"componentType": FLOAT, "count": moved.shape[1], "type": "VEC3"}
    low, high = (bound.tolist() for bound in torch.from_numpy(moved).aminmax(dim=1))  # NumPy's take eight times as long
    return [{"bufferView": first + k, **common, "min": low[k], "max": high[k]} for k in range(len(moved))]


def _accessor(view: int, table: NDArray[Any]) -> dict[str, Any]:
    """The description of one table; `min` and `max` are exactly those of the stored values."""
    floating = table.dtype.kind == "f"
    return {
        "bufferView": view,
        "componentType": FLOAT if floating else _UNSIGNED,
        "count": len(table),
        "type": _KINDS[table.shape[1]],
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
    }


def _linear(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear colours of sRGB colours (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
