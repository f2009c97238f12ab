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
    """Write vertices in mm with 5 decimals, indices from 1, uv with v upwards, sRGB `colours` [V, 3] after x
    y z.

    Returns the path. Raises ValueError for a mesh that cannot be written (see `mesh_arrays`) or another
    suffix.
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
    """One formatting operation for the whole table."""
    return ((pattern + "\n") * len(rows)) % tuple(rows.ravel().tolist())
