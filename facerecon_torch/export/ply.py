"""Mesh -> binary little-endian PLY, in mm."""

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from facerecon_torch.export.arrays import mesh_arrays, suffixed_path
from facerecon_torch.files import replacing
from facerecon_torch.structures import Mesh

__all__ = ["save_ply"]


def save_ply(mesh: Mesh, path: str | os.PathLike[str], *, normals: bool = True, colours: Tensor | None = None) -> Path:
    """The path of a binary PLY file: float32 x y z in mm, nx ny nz, s t (v upwards), and 8-bit red green blue.

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
    arrays = mesh_arrays(mesh, normals=normals, colours=colours)
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
