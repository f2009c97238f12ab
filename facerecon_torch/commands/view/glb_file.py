"""The morph targets of a GLB file, which mesh readers leave out."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facerecon_torch.errors import DataFileError
from facerecon_torch.export.glb import FLOAT
from facerecon_torch.formats.json_file import parse_json

__all__ = ["StoredTargets", "read_targets"]

_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")
_PLACED = ("matrix", "rotation", "scale", "translation")  # what a node does with its mesh


@dataclass(frozen=True)
class StoredTargets:
    """Displacements of the vertices of a GLB file, in its unit.

    Attributes:
        names: of the targets.
        displacements: at weight 1.
        weights: at which the file shows them.
    """

    names: Sequence[str]
    displacements: Float[np.ndarray, "targets vertices 3"]
    weights: Float[np.ndarray, "targets"]


def read_targets(content: bytes, path: Path) -> StoredTargets | None:
    """The morph targets of a GLB file; None for a file without any, of several surfaces, or that moves its mesh.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        DataFileError: the content is no GLB file of version 2, or damaged.
    """
    document, binary = _chunks(content, path)
    try:
        meshes, nodes = document.get("meshes", []), document.get("nodes", [])
        if (
            len(meshes) != 1
            or len(meshes[0]["primitives"]) != 1
            or any(key in node for node in nodes for key in _PLACED)
        ):
            return None
        mesh = meshes[0]
        listed = mesh["primitives"][0].get("targets", [])
        if not listed:
            return None
        count = document["accessors"][mesh["primitives"][0]["attributes"]["POSITION"]]["count"]
        moved = [_points(document, binary, target["POSITION"], count) for target in listed]
        given = [node["weights"] for node in nodes if "weights" in node]
        weights = np.array((given or [mesh.get("weights", [0.0] * len(listed))])[0], np.float64)
        names = mesh.get("extras", {}).get("targetNames", [f"target {k + 1}" for k in range(len(listed))])
        if weights.shape != (len(listed),) or len(names) != len(listed) or not np.isfinite(weights).all():
            raise ValueError(f"{len(listed)} targets have {len(names)} names and weights {weights.tolist()}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataFileError(f"{path}: expected morph targets of the GLB format; {_words(error)}") from None
    return StoredTargets([str(name) for name in names], np.stack(moved), weights)


def _chunks(content: bytes, path: Path) -> tuple[Mapping[str, Any], bytes]:
    """The document and the binary part of a file."""
    if len(content) < _HEADER.size + _CHUNK.size or content[:4] != b"glTF":
        raise DataFileError(f"{path}: expected a GLB file, which begins with glTF; got {content[:4]!r}")
    _, version, length = _HEADER.unpack_from(content)
    if version != 2:
        raise DataFileError(f"{path}: expected version 2 of the GLB format; got {version}")
    if length != len(content):
        raise DataFileError(f"{path}: expected {length} bytes, as its header says; got {len(content)}: it is damaged")
    parts: dict[bytes, bytes] = {}
    start = _HEADER.size
    while start + _CHUNK.size <= length:
        size, kind = _CHUNK.unpack_from(content, start)
        start += _CHUNK.size
        if start + size > length:
            raise DataFileError(f"{path}: expected a chunk of {size} bytes at {start}; the file ends at {length}")
        parts.setdefault(kind, content[start : start + size])
        start += size
    if b"JSON" not in parts:
        raise DataFileError(f"{path}: expected a chunk JSON; got {sorted(parts)}")
    document = parse_json(parts[b"JSON"], path)
    if not isinstance(document, dict):
        raise DataFileError(f"{path}: expected a JSON object in its chunk JSON; got {type(document).__name__}")
    return document, parts.get(b"BIN\0", b"")


def _points(document: Mapping[str, Any], binary: bytes, number: int, count: int) -> Float[np.ndarray, "_ 3"]:
    """The points of one accessor. Raises ValueError where they are damaged."""
    accessor = document["accessors"][number]
    if accessor["componentType"] != FLOAT or accessor["type"] != "VEC3" or accessor["count"] != count:
        raise ValueError(f"accessor {number} is not of {count} points of floats")
    if "bufferView" not in accessor or "sparse" in accessor:
        raise ValueError(f"accessor {number} is sparse, which is not read")
    view = document["bufferViews"][accessor["bufferView"]]
    if view.get("byteStride", 12) != 12:
        raise ValueError(f"accessor {number} is interleaved, which is not read")
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    if not 0 <= start <= start + 12 * count <= len(binary):
        raise ValueError(f"accessor {number} lies outside the {len(binary)} bytes of the chunk BIN")
    points = np.frombuffer(binary, "<f4", 3 * count, start).reshape(count, 3)
    if not np.isfinite(points).all():
        raise ValueError(f"accessor {number} has values that are not finite")
    return points


def _words(error: Exception) -> str:
    return f"it lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
