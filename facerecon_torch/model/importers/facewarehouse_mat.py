"""A bilinear model of FaceWarehouse in a MATLAB 5 file such as FWM5.mat:

Bilinear.Cr [3 V, I, E], Bilinear.Wids [people, I], Bilinear.Weps [expressions, E]
faces [T, 3]; Landmarks.inner [1, 49], Landmarks.boundary [17, K]; Segmentation.segValid, segCenter
                                                counted from 1; segValid may be logical [V]
"""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.matlab5 import MatVariable, iter_variables
from facerecon_torch.formats.polygon_mesh import triangle_fans
from facerecon_torch.model.importers.bilinear_parts import assemble_bilinear, expression_names
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain
from facerecon_torch.model.topology import N_CONTOUR, N_LANDMARKS

__all__ = ["read_facewarehouse_mat"]

LIMIT = 1 << 31  # bytes of the file and of one variable
_LOGICAL = 1  # bytes of a value


def read_facewarehouse_mat(path: str | os.PathLike[str], *, mm_per_unit: float | None = None) -> ImportedModel:
    """The model with the tables of the file.

    They are `inner_landmarks` [49] and `contour_lines` [17, K] (paper order, padded with -1), `whole_vertices` and
    `centre_vertices`.

    Args:
        path: A MATLAB 5 file (not v7.3).
        mm_per_unit: The unit; by default derived from the size of the face.

    Raises:
        ModelFileError: The file has another format, lacks a variable, or has one with another shape, a NaN or an index
            without a vertex.
    """
    file = Path(path)
    with as_model_errors():
        variables = _variables(file)
        core = _array(file, variables, "Bilinear.Cr", 3)
        people, expressions = (_array(file, variables, f"Bilinear.{name}", 2) for name in ("Wids", "Weps"))
        if core.shape[0] % 3 or core.size == 0:
            raise refused(file, "Bilinear.Cr", "three rows for each vertex", core.shape)
        for name, rows, count in (("Wids", people, core.shape[1]), ("Weps", expressions, core.shape[2])):
            if rows.shape[1] != count or len(rows) == 0:
                raise refused(file, f"Bilinear.{name}", f"{count} columns as Bilinear.Cr has", rows.shape)
        n_vertices = core.shape[0] // 3
        triangles = _triangles(file, _array(file, variables, "faces", 2), n_vertices)
        tables = _tables(file, variables, n_vertices)
    values, order = _by_vertex(torch.from_numpy(core.astype(np.float32)), triangles)
    return assemble_bilinear(
        file,
        {
            "core": values,
            "identity_rows": torch.from_numpy(people.astype(np.float32)),
            "expression_rows": torch.from_numpy(expressions.astype(np.float32)),
        },
        triangles,
        None,
        names=expression_names(len(expressions)),
        topology_name=f"facewarehouse_{n_vertices}",
        mm_per_unit=mm_per_unit,
        summary={"people": len(people), "expressions": len(expressions), "rows": order},
        tables=tables,
    )


def _variables(file: Path) -> dict[str, MatVariable]:
    """The variables by name, with the fields of structs as STRUCT.FIELD; one struct may contain all variables."""
    found: dict[str, MatVariable] = {}
    for variable in iter_variables(file, limit=LIMIT):
        if variable.name in found:
            raise refused(file, variable.name, "one variable of this name", "two")
        found[variable.name] = variable
    if "Bilinear" not in found:
        around = next((v for v in found.values() if "Bilinear" in v.fields), None)
        found |= {} if around is None else {name: members[0] for name, members in around.fields.items() if members}
    for name, variable in list(found.items()):
        found |= {f"{name}.{field}": members[0] for field, members in variable.fields.items() if len(members) == 1}
    return found


def _array(file: Path, variables: dict[str, MatVariable], name: str, ndim: int) -> NDArray[np.generic]:
    variable = variables.get(name)
    if variable is None:
        raise refused(file, name, "a variable of this name", ", ".join(sorted(variables)[:12]) or "no variable at all")
    values = variable.values
    if values is None or values.ndim != ndim or values.size == 0:
        actual = f"none of shape {variable.shape}" if values is None else f"{values.dtype} {values.shape}"
        raise refused(file, name, f"a real numeric array of {ndim} axes, not empty", actual)
    require_plain(file, name, values)
    return values


def _triangles(file: Path, faces: NDArray[np.generic], n_vertices: int) -> Int64[Tensor, "triangles 3"]:
    columns = faces if faces.shape[1] in (3, 4) else faces.T
    if columns.shape[1] not in (3, 4):
        raise refused(file, "faces", "3 or 4 columns", faces.shape)
    indices = _from_one(file, "faces", columns, n_vertices)
    return torch.from_numpy(triangle_fans(indices.tolist()))


def _from_one(file: Path, name: str, values: NDArray[np.generic], n_vertices: int) -> NDArray[np.int64]:
    """Indices from 0 for integral numbers from 1."""
    indices = values.astype(np.int64) - 1
    whole = bool((values == indices + 1).all())
    if not whole or int(indices.min()) < 0 or int(indices.max()) >= n_vertices:
        actual = f"{float(values.min()):g} to {float(values.max()):g}"  # type: ignore[attr-defined]
        raise refused(file, name, f"whole numbers in 1..{n_vertices}", actual)
    return indices


def _tables(file: Path, variables: dict[str, MatVariable], n_vertices: int) -> dict[str, Tensor]:
    tables: dict[str, Tensor] = {}
    if "Landmarks.inner" in variables:
        inner = _from_one(file, "Landmarks.inner", _array(file, variables, "Landmarks.inner", 2), n_vertices).ravel()
        if len(inner) != N_LANDMARKS - N_CONTOUR:
            raise refused(file, "Landmarks.inner", f"{N_LANDMARKS - N_CONTOUR} vertices", len(inner))
        tables["inner_landmarks"] = torch.from_numpy(inner)
    if "Landmarks.boundary" in variables:
        tables["contour_lines"] = _lines(file, variables["Landmarks.boundary"], n_vertices)
    for name, table in (("segValid", "whole_vertices"), ("segCenter", "centre_vertices")):
        key = f"Segmentation.{name}"
        if key in variables:
            values = _array(file, variables, key, 2).ravel()
            if values.dtype.itemsize == _LOGICAL and len(values) == n_vertices:
                indices = np.flatnonzero(values)
            else:
                indices = np.unique(_from_one(file, key, values, n_vertices))
            if len(indices) == 0:
                raise refused(file, key, "at least one vertex", "none")
            tables[table] = torch.from_numpy(indices)
    return tables


def _lines(file: Path, variable: MatVariable, n_vertices: int) -> Int64[Tensor, "17 length"]:
    """The contour lines [17, K], padded with -1; the file pads them with 0 or NaN."""
    name = "Landmarks.boundary"
    values = variable.values
    if values is None or values.ndim != 2 or values.shape[0] != N_CONTOUR or values.size == 0:
        raise refused(file, name, f"a numeric array of {N_CONTOUR} rows", variable.shape)
    padded = np.nan_to_num(values.astype(np.float64), nan=0.0)
    kept = padded != 0
    if not kept[:, 0].all() or (kept[:, 1:] & ~kept[:, :-1]).any():
        raise refused(file, name, "lines that start with a vertex, 0 or NaN only behind them", "a gap")
    indices = np.where(kept, _from_one(file, name, np.where(kept, padded, 1.0), n_vertices), -1)
    return torch.from_numpy(indices)


def _by_vertex(
    core: Float[Tensor, "rows identities expressions"], triangles: Int64[Tensor, "triangles 3"]
) -> tuple[Float[Tensor, "vertices 3 identities expressions"], str]:
    """The core by vertex, and the order of its rows: x y z x y z .., or all x, all y, all z.

    The order is the one with the shorter edges.
    """
    interleaved = core.reshape(-1, 3, *core.shape[1:])
    planar = core.reshape(3, -1, *core.shape[1:]).transpose(0, 1)
    lengths = []
    for values in (interleaved, planar):
        face = values[..., 0, 0]  # leading weights alone: the mean face, but for its size
        lengths.append(float((face[triangles[:, 0]] - face[triangles[:, 1]]).norm(dim=-1).mean()))
    if lengths[0] <= lengths[1]:
        return interleaved.contiguous(), "x y z of each vertex"
    return planar.contiguous(), "all x, all y, all z"
