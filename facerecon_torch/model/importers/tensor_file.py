"""Bilinear cores and raw tensors in plain binary files, little-endian; triangles and uv come from a mesh file.

    NAME.tensor        int32 l m n (50, 25, 3 V) | l matrices m x n of float64, each column-major
    blendshape_u_0, 1  int32 m n | float64 m x n, column-major: the rows of U_id and of U_exp (may end in .tensor)
    raw tensor         float32 [people, expressions, V, 3] without a header
    model_i50_e47.bin  int32 3 V, 47, 50 | float32 [50, 47, 3 V]: reduced in identity only, without any rows

The unit is derived from the size of the face, or given as `mm_per_unit`.
"""

import math
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.format_errors import file_size
from facerecon_torch.formats.polygon_mesh import PolygonMesh, read_polygon_mesh
from facerecon_torch.model.importers.building import (
    BuildSpec,
    People,
    assemble_bilinear,
    build_bilinear,
    expression_names,
    plausible_unit,
    rows_with_moments,
)
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain

__all__ = ["read_core_bin", "read_raw_tensor", "read_tensor_core"]

N_PEOPLE, N_EXPRESSIONS = 150, 47  # of FaceWarehouse
_ROWS = ("blendshape_u_0", "blendshape_u_1")
_SIZE_SPREAD = 0.03  # people's sizes differ by about 3 %: the spread of the leading weight about its mean

_Path = str | os.PathLike[str]


def read_tensor_core(
    path: _Path,
    mesh: _Path,
    *,
    identity_rows: _Path | None = None,
    expression_rows: _Path | None = None,
    mm_per_unit: float | None = None,
) -> ImportedModel:
    """The model of a core in a `.tensor` file and the rows of U_id and U_exp.

    Args:
        path: The file of the core.
        mesh: A mesh file with the triangles.
        identity_rows: File of U_id; by default blendshape_u_0 or blendshape_u_0.tensor beside the core.
        expression_rows: File of U_exp; by default blendshape_u_1 or blendshape_u_1.tensor beside the core.
        mm_per_unit: The unit; by default derived from the size of the face.

    Raises:
        ModelFileError: A file is missing or damaged, or the files do not fit together.
    """
    file = Path(path)
    with as_model_errors():
        (n_identity, n_expression, n_rows), values = _counted(file, 3, np.dtype("<f8"))
        faces = _faces(file, Path(mesh), n_rows)
        core = torch.from_numpy(values.reshape(n_identity, n_rows, n_expression).astype(np.float32))
        rows = [_rows_file(file, given, name) for given, name in zip((identity_rows, expression_rows), _ROWS)]
        people, expressions = (_read_rows(at, count) for at, count in zip(rows, (n_identity, n_expression)))
    factors = {
        "core": core.reshape(n_identity, -1, 3, n_expression).permute(1, 2, 0, 3).contiguous(),
        "identity_rows": people,
        "expression_rows": expressions,
    }
    return _assembled(file, factors, faces, mm_per_unit, {"people": len(people), "expressions": len(expressions)})


def read_raw_tensor(
    path: _Path,
    mesh: _Path,
    *,
    n_people: int | None = None,
    n_expressions: int | None = None,
    mm_per_unit: float | None = None,
    spec: BuildSpec | None = None,
) -> ImportedModel:
    """The model that `building` makes of the faces [people, expressions, V, 3] in a headerless float32 file.

    Args:
        path: The file.
        mesh: A mesh file with the triangles, whose number of vertices is V.
        n_people: Number of people; by default from the size of the file.
        n_expressions: Number of expressions; by default from the size of the file, or 47 without `n_people`.
        mm_per_unit: The unit; by default derived from the size of the face.
        spec: Ranks, temporary folder and device.

    Raises:
        ModelFileError: The size fits no integral counts, or a value is not finite.
    """
    file = Path(path)
    with as_model_errors():
        faces = read_polygon_mesh(mesh)
        shape = _raw_shape(file, len(faces.vertices), n_people, n_expressions)
        array = np.memmap(file, dtype="<f4", mode="r", shape=shape)

        def read(k: int, part: slice = slice(None)) -> Tensor:
            with np.errstate(invalid="ignore"):  # NaN is refused below; its conversion would warn
                values = array[k, part].astype(np.float64)
            require_plain(file, f"person {k}", values)
            return torch.from_numpy(values)

        neutral = torch.stack([read(k, slice(1))[0] for k in range(shape[0])])
        unit = plausible_unit(file, neutral.mean(dim=0)) if mm_per_unit is None else float(mm_per_unit)
        people = People(
            n_people=shape[0],
            n_expressions=shape[1],
            n_vertices=shape[2],
            read=lambda k: unit * read(k),
            read_neutral=lambda k: unit * neutral[k],
        )
        built = build_bilinear(people, spec or BuildSpec())
    source = "the size of the mean face" if mm_per_unit is None else "the caller"
    return _assembled(file, built.factors, faces, 1.0, {**built.summary, "mm_per_unit": unit, "unit_from": source})


def read_core_bin(
    path: _Path,
    mesh: _Path,
    *,
    identity_rows: _Path | None = None,
    n_people: int = N_PEOPLE,
    mm_per_unit: float | None = None,
) -> ImportedModel:
    """The model of a core [3 V, 47, 50] in a file such as model_i50_e47.bin; U_exp is the identity matrix.

    Without `identity_rows`, the statistics of the identity weights are those of orthonormal columns over `n_people`
    people, whose first column is the mean face; the summary says so.

    Args:
        path: The file of the core.
        mesh: A mesh file with the triangles.
        identity_rows: File of U_id in the layout of blendshape_u_0.
        n_people: Number of people behind the core.
        mm_per_unit: The unit; by default derived from the size of the face.

    Raises:
        ModelFileError: A file is missing or damaged, or the files do not fit together.
    """
    file = Path(path)
    with as_model_errors():
        (n_rows, n_expressions, n_identity), values = _counted(file, 3, np.dtype("<f4"))
        faces = _faces(file, Path(mesh), n_rows)
        core = torch.from_numpy(values.reshape(n_identity, n_expressions, n_rows).astype(np.float32))
        if identity_rows is not None:
            people = _read_rows(Path(identity_rows), n_identity)
        else:
            people = _assumed_rows(core, faces, n_people)
    factors = {
        "core": core.reshape(n_identity, n_expressions, -1, 3).permute(2, 3, 0, 1).contiguous(),
        "identity_rows": people,
        "expression_rows": torch.eye(n_expressions),
    }
    prior = f"assumed: orthonormal columns over {n_people} people" if identity_rows is None else str(identity_rows)
    return _assembled(file, factors, faces, mm_per_unit, {"identity_prior": prior})


def _assumed_rows(core: Tensor, faces: PolygonMesh, n_people: int) -> Tensor:
    """Rows with weights 1/sqrt(n) of the mean face and 0 +- 1/sqrt(n) of the other columns.

    The sign of the first weight is chosen so that the mean face is not point-mirrored.
    """
    if n_people < 1:
        raise ValueError(f"n_people must be at least 1; got {n_people}")
    mean = torch.zeros(len(core), dtype=torch.float64)
    variance = torch.full_like(mean, 1 / n_people)
    first = core[0].mean(dim=0).reshape(-1, 3)
    a, b = (first - first.mean(dim=0), faces.vertices - faces.vertices.mean(dim=0))
    sign = 1.0 if float((a * b).sum()) >= 0 else -1.0  # the mesh has the orientation of the core's faces
    mean[0] = sign * ((1 - _SIZE_SPREAD**2) / n_people) ** 0.5
    variance[0] = _SIZE_SPREAD**2 / n_people
    return rows_with_moments(mean, variance).float()


def _assembled(
    file: Path, factors: dict[str, Tensor], mesh: PolygonMesh, mm_per_unit: float | None, summary: dict[str, object]
) -> ImportedModel:
    return assemble_bilinear(
        file,
        factors,
        mesh.triangles,
        mesh.uv,
        names=expression_names(len(factors["expression_rows"])),
        topology_name=f"facewarehouse_{len(mesh.vertices)}",
        mm_per_unit=mm_per_unit,
        summary=summary,
        corner_uv=mesh.corner_uv,
    )


def _counted(file: Path, n_counts: int, dtype: np.dtype[np.floating]) -> tuple[list[int], NDArray[np.floating]]:
    """The int32 counts at the start of a file and the values after them, as many as the product of the counts."""
    size, head = file_size(file), 4 * n_counts
    if size < head:
        raise refused(file, "header", f"{head} bytes", f"a file of {size} bytes")
    counts = [int(count) for count in np.fromfile(file, dtype="<i4", count=n_counts)]
    if min(counts) < 1:
        raise refused(file, "counts", "positive numbers", counts)
    wanted = head + dtype.itemsize * math.prod(counts)
    if size != wanted:
        layout = " x ".join(map(str, counts))
        raise refused(file, "size", f"{wanted} bytes for {layout} values of {dtype.name}", f"{size} bytes")
    values = np.fromfile(file, dtype=dtype, offset=head)
    require_plain(file, "values", values)
    return counts, values


def _rows_file(core: Path, given: _Path | None, name: str) -> Path:
    if given is not None:
        return Path(given)
    found = [file for file in (core.with_name(name), core.with_name(f"{name}.tensor")) if file.is_file()]
    if not found:
        raise refused(core, "rows", f"a file {name} or {name}.tensor beside it, or its name", "neither")
    return found[0]


def _read_rows(file: Path, n_columns: int) -> Tensor:
    (n_rows, got), values = _counted(file, 2, np.dtype("<f8"))
    if got != n_columns:
        raise refused(file, "columns", f"{n_columns} as the core has", got)
    return torch.from_numpy(values.reshape(n_columns, n_rows).T.astype(np.float32))


def _faces(file: Path, mesh: Path, n_rows: int) -> PolygonMesh:
    faces = read_polygon_mesh(mesh)
    if 3 * len(faces.vertices) != n_rows:
        raise refused(file, "rows", f"{3 * len(faces.vertices)}, three for each vertex of {mesh}", n_rows)
    return faces


def _raw_shape(file: Path, n_vertices: int, n_people: int | None, n_expressions: int | None) -> tuple[int, ...]:
    size, face = file_size(file), 12 * n_vertices
    given = [count for count in (n_people, n_expressions) if count is not None]
    if any(count < 1 for count in given):
        raise ValueError(f"n_people and n_expressions must be at least 1; got {n_people}, {n_expressions}")
    n_faces = size // face
    if n_expressions is None:
        n_expressions = N_EXPRESSIONS if n_people is None else n_faces // n_people
    if n_people is None:
        n_people = n_faces // n_expressions
    if n_people < 1 or n_expressions < 1 or size != n_people * n_expressions * face:
        expected = f"whole people of {n_expressions} expressions x {n_vertices} vertices x 12 bytes (or other counts)"
        raise refused(file, "size", expected, f"{size} bytes, {size / face:.6g} faces")
    return n_people, n_expressions, n_vertices, 3
