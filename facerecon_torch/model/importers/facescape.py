"""FaceScape's bilinear models. Their expressions are not reduced: row k of U_exp is expression k, the first neutral.

    v1.6  *.npz: shape_bm_core [3 V, E, I], id_mean [I], id_var [I], fv_indices [T, 3 or 4], ft_indices, texcoords,
          v_indices_front, fv_indices_front, ft_indices_front
    v1.3  core_847_50_52.npy [I, E, 3 V] and factors_id_847_50_52.npy [people, I]; triangles from a mesh file

The core holds whole faces (not offsets from the neutral one). Read without pickles.
"""

import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.format_errors import file_size
from facerecon_torch.formats.npz_file import read_npz
from facerecon_torch.formats.polygon_mesh import corner_texture, read_polygon_mesh, triangle_fans
from facerecon_torch.model.importers.building import assemble_bilinear, expression_names, rows_with_moments
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain

__all__ = ["read_facescape", "read_facescape_v13"]

_Path = str | os.PathLike[str]
_Array = NDArray[Any]
_Indices = NDArray[np.int64]


def read_facescape(path: _Path, *, front: bool = False, mm_per_unit: float | None = None) -> ImportedModel:
    """The model of a v1.6 `.npz`. It has no rows of U_id, so 2 I rows have the mean id_mean and the variance id_var.

    Args:
        path: The file.
        front: Whether to take the face only, instead of the whole head.
        mm_per_unit: The unit; by default derived from the size of the face.

    Raises:
        ModelFileError: The file is damaged, or its arrays do not fit together.
    """
    file = Path(path)
    with as_model_errors():
        arrays = read_npz(file)
        core, rows = _core(file, arrays), _identity_rows(file, arrays)
        n_vertices, n_expressions = len(core), core.shape[2]
        if rows.shape[1] != core.shape[3]:
            raise refused(file, "id_mean", f"{core.shape[3]} values as shape_bm_core has", rows.shape[1])
        tail = "_front" if front else ""
        tables: dict[str, Tensor] = {}
        if front:
            kept = _indices(file, arrays, "v_indices_front", n_vertices)
            core, tables = core[kept], {"vertices_of_head": torch.from_numpy(kept)}
        faces = _indices(file, arrays, f"fv_indices{tail}", len(core))
        uv, corner_uv = _texture(file, arrays, faces, f"ft_indices{tail}", len(core))
    return assemble_bilinear(
        file,
        {
            "core": torch.from_numpy(core.astype(np.float32)).transpose(2, 3).contiguous(),
            "identity_rows": rows,
            "expression_rows": torch.eye(n_expressions),
        },
        torch.from_numpy(triangle_fans(faces.tolist())),
        uv,
        names=expression_names(n_expressions),
        topology_name=f"facescape_{n_vertices}{tail}",
        mm_per_unit=mm_per_unit,
        summary={"version": "1.6", "part": "face" if front else "head", "identity_prior": "id_mean and id_var"},
        tables=tables,
        corner_uv=corner_uv,
    )


def _core(file: Path, arrays: dict[str, _Array]) -> _Array:
    """shape_bm_core as [V, 3, E, I]."""
    core = _numbers(file, arrays, "shape_bm_core", 3)
    if core.shape[0] % 3:
        raise refused(file, "shape_bm_core", "three rows for each vertex", core.shape)
    return core.reshape(-1, 3, *core.shape[1:])


def _identity_rows(file: Path, arrays: dict[str, _Array]) -> Tensor:
    mean, variance = (_numbers(file, arrays, name, 1) for name in ("id_mean", "id_var"))
    if variance.shape != mean.shape:
        raise refused(file, "id_var", f"{len(mean)} values as id_mean has", len(variance))
    if not float(variance.min()) > 0:
        raise refused(file, "id_var", "positive variances", f"{float(variance.min()):g}")
    return rows_with_moments(*(torch.from_numpy(a.astype(np.float64)) for a in (mean, variance))).float()


def read_facescape_v13(
    path: _Path, mesh: _Path, *, factors_id: _Path | None = None, mm_per_unit: float | None = None
) -> ImportedModel:
    """The model of a v1.3 `core_*.npy`.

    Args:
        path: The file of the core.
        mesh: A mesh file with triangles and uv; FaceScape's own tables are pickles, which are not read.
        factors_id: File of the rows of U_id; by default factors_id*.npy beside the core.
        mm_per_unit: The unit; by default derived from the size of the face.

    Raises:
        ModelFileError: A file is missing or damaged, or the files do not fit together.
    """
    file = Path(path)
    with as_model_errors():
        core = _npy(file, "core", 3)
        beside = [file.with_name(f"factors_id{file.stem.removeprefix('core')}.npy"), file.with_name("factors_id.npy")]
        rows_file = Path(factors_id) if factors_id is not None else next((f for f in beside if f.is_file()), beside[0])
        rows = _npy(rows_file, "factors_id", 2)
        if rows.shape[1] != core.shape[0]:
            raise refused(rows_file, "factors_id", f"{core.shape[0]} columns as the core has", rows.shape)
        faces = read_polygon_mesh(mesh)
        n_vertices = len(faces.vertices)
        if core.shape[2] != 3 * n_vertices:
            raise refused(file, "core", f"[I, E, {3 * n_vertices}], three for each vertex of {mesh}", core.shape)
    n_expressions = core.shape[1]
    by_vertex = torch.from_numpy(core.astype(np.float32)).reshape(len(core), n_expressions, n_vertices, 3)
    return assemble_bilinear(
        file,
        {
            "core": by_vertex.permute(2, 3, 0, 1).contiguous(),
            "identity_rows": torch.from_numpy(rows.astype(np.float32)),
            "expression_rows": torch.eye(n_expressions),
        },
        faces.triangles,
        faces.uv,
        names=expression_names(n_expressions),
        topology_name=f"facescape_{n_vertices}_v10",
        mm_per_unit=mm_per_unit,
        summary={"version": "1.3", "part": "head", "people": len(rows)},
        corner_uv=faces.corner_uv,
    )


def _numbers(file: Path, arrays: dict[str, _Array], name: str, ndim: int) -> _Array:
    if name not in arrays:
        raise refused(file, name, "an array of this name", ", ".join(sorted(arrays)[:12]) or "no array of numbers")
    return _checked(file, name, arrays[name], ndim)


def _checked(file: Path, name: str, values: _Array, ndim: int) -> _Array:
    if values.dtype.kind not in "fiu" or values.ndim != ndim or values.size == 0:
        raise refused(file, name, f"numbers of {ndim} axes, not empty", f"{values.dtype} {values.shape}")
    require_plain(file, name, values)
    return values


def _indices(file: Path, arrays: dict[str, _Array], name: str, count: int) -> _Indices:
    """A table of indices from 0; those of the file may start at 1."""
    ndim = 1 if name.startswith("v_") else 2
    values = _numbers(file, arrays, name, ndim)
    indices = values.astype(np.int64)
    if int(indices.max()) == count and int(indices.min()) >= 1:
        indices = indices - 1
    if (ndim == 2 and indices.shape[1] not in (3, 4)) or int(indices.min()) < 0 or int(indices.max()) >= count:
        actual = f"{indices.min()} to {indices.max()}, shape {indices.shape}"
        raise refused(file, name, f"indices of {count} entries, 3 or 4 a face", actual)
    return indices


def _texture(
    file: Path, arrays: dict[str, _Array], faces: _Indices, name: str, count: int
) -> tuple[Tensor | None, Tensor | None]:
    """Texture coordinates of the vertices and, where a vertex has several, of the triangles' corners; None if the file
    has none."""
    if "texcoords" not in arrays or name not in arrays:
        return None, None
    coordinates = _numbers(file, arrays, "texcoords", 2)
    textures = _indices(file, arrays, name, len(coordinates))
    if textures.shape != faces.shape or coordinates.shape[1] < 2:
        raise refused(
            file, name, f"shape {faces.shape}, into texcoords [n, 2]", f"{textures.shape}, {coordinates.shape}"
        )
    texture = corner_texture(coordinates[:, :2].astype(np.float64), faces.tolist(), textures.tolist(), count)
    return torch.from_numpy(texture.uv), None if texture.corner_uv is None else torch.from_numpy(texture.corner_uv)


def _npy(file: Path, name: str, ndim: int) -> _Array:
    """The memory-mapped array of an .npy file, whose header must agree with the file's size."""
    size = file_size(file)
    with open(file, "rb") as stream:
        magic = stream.read(len(MAGIC_PREFIX))
    if magic != MAGIC_PREFIX:
        raise refused(
            file, "file", "an .npy file of numbers (no pickle, no archive)", f"one that starts with {magic!r}"
        )
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise refused(file, "file", "a whole .npy file of numbers", f"{type(error).__name__}: {error}") from error
    expected = values.nbytes + int(getattr(values, "offset", 0))
    if size != expected:
        raise refused(file, "size", f"{expected} bytes", f"{size} bytes")
    return _checked(file, name, values, ndim)
