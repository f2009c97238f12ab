"""Mesh -> Wavefront OBJ, in mm."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.export.arrays import MeshArrays, mesh_arrays, suffixed_path
from facerecon_torch.files import replacing
from facerecon_torch.structures import Mesh

__all__ = ["save_obj"]


def save_obj(mesh: Mesh, path: str | os.PathLike[str], *, normals: bool = True, colours: Tensor | None = None) -> Path:
    """The path of an OBJ file: mm with 5 decimals, indices from 1, uv with v upwards, colours after x y z.

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
    indices = np.repeat(arrays.triangles + 1, corner.count("%d"), axis=1)
    yield _lines(" ".join(["f", corner, corner, corner]), indices)


def _lines(pattern: str, rows: NDArray[np.float64] | NDArray[np.int32]) -> str:
    """The rows of a table as lines, formatted in one operation."""
    return ((pattern + "\n") * len(rows)) % tuple(rows.ravel().tolist())
