"""Bilinear models from FaceWarehouse's folders, and from a MATLAB 5 file such as FWM5.mat.

Folders: Tester_*/Blendshape/shape.bs, in dm, with the model's axes.

MATLAB 5 file: Bilinear.Cr [3 V, I, E], Bilinear.Wids [people, I], Bilinear.Weps [expressions, E]
               faces [T, 3]; Landmarks.inner [1, 49], Landmarks.boundary [17, K]; Segmentation.segValid, segCenter
               counted from 1; segValid may be logical [V]
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.facewarehouse import (
    MM_PER_DM,
    N_TESTERS,
    BlendshapeHeader,
    blendshape_file,
    find_testers,
    iter_blendshapes,
    read_blendshape_header,
    read_blendshapes,
)
from facerecon_torch.formats.matlab5 import MatVariable, iter_variables
from facerecon_torch.formats.polygon_mesh import PolygonMesh, read_polygon_mesh, triangle_fans
from facerecon_torch.model.importers.building import (
    BuildSpec,
    People,
    assemble_bilinear,
    build_bilinear,
    expression_names,
)
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain
from facerecon_torch.model.topology import N_CONTOUR, N_LANDMARKS

__all__ = ["read_facewarehouse", "read_facewarehouse_mat"]

LIMIT = 1 << 31  # bytes of the file and of one variable
_LOGICAL = 1  # bytes of a value


def read_facewarehouse(
    path: str | os.PathLike[str],
    *,
    leave_out: Sequence[str] = (),
    spec: BuildSpec | None = None,
    face_vertices: Tensor | None = None,
) -> ImportedModel:
    """The bilinear model of the people below `path`.

    Triangles and uv come from the first shape_0.obj. The summary lists people without shape.bs as missing.

    Args:
        path: The folder with Tester_1 .. 150, or with FaceWarehouse_Data_*.
        leave_out: Folders of people that are left out, such as `Tester_7` of a test set.
        spec: Ranks, temporary folder and device.
        face_vertices: Vertices of the alignment of the people.

    Raises:
        ModelFileError: A file is damaged, people have different counts, or a name in `leave_out` is unknown.
    """
    root = Path(path)
    with as_model_errors():
        files = {folder.name: blendshape_file(folder) for _, folder in find_testers(root)}
        present = {name: file for name, file in files.items() if file.is_file()}
        unknown = sorted(set(leave_out) - set(files))
        if unknown:
            raise refused(root, "leave_out", f"people of this folder ({', '.join(list(files)[:3])}, ...)", unknown)
        used = [file for name, file in present.items() if name not in leave_out]
        if not used:
            raise refused(root, "people", "at least one Tester_*/Blendshape/shape.bs", f"{len(present)}, all left out")
        header = _common_header(used)
        mesh = _faces(root, list(present.values()), header.n_vertices)
        built = build_bilinear(_people(used, header), spec or BuildSpec(), face_vertices)
    expected = dict.fromkeys([*(f"Tester_{k + 1}" for k in range(N_TESTERS)), *files])
    people = {"left_out": sorted(leave_out), "missing": [name for name in expected if name not in present]}
    return assemble_bilinear(
        root,
        built.factors,
        mesh.triangles,
        mesh.uv,
        names=expression_names(header.n_shapes),
        topology_name=f"facewarehouse_{header.n_vertices}",
        mm_per_unit=1.0,
        summary={**built.summary, **people, "mm_per_unit": MM_PER_DM},
        corner_uv=mesh.corner_uv,
    )


def _common_header(files: list[Path]) -> BlendshapeHeader:
    first = read_blendshape_header(files[0])
    for file in files[1:]:
        header = read_blendshape_header(file)
        for field, got, want in (
            ("vertex count", header.n_vertices, first.n_vertices),
            ("shape count", header.n_shapes, first.n_shapes),
        ):
            if got != want:
                raise refused(file, field, f"{want} as in {files[0]}", got)
    return first


def _faces(root: Path, files: list[Path], n_vertices: int) -> PolygonMesh:
    meshes = [file.with_name("shape_0.obj") for file in files]
    mesh_file = next((file for file in meshes if file.is_file()), None)
    if mesh_file is None:
        raise refused(root, "triangles", "a Tester_*/Blendshape/shape_0.obj to take them from", "none")
    mesh = read_polygon_mesh(mesh_file)
    if len(mesh.vertices) != n_vertices:
        raise refused(mesh_file, "vertices", f"{n_vertices} as in shape.bs", len(mesh.vertices))
    return mesh


def _people(files: list[Path], header: BlendshapeHeader) -> People:
    return People(
        n_people=len(files),
        n_expressions=header.n_shapes,
        n_vertices=header.n_vertices,
        read=lambda k: read_blendshapes(files[k]),
        read_neutral=lambda k: next(iter_blendshapes(files[k])),
    )


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
