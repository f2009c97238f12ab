"""GNM Head v3 (Google, Apache-2.0): gnm_head.npz, +y up, +z to the viewer; skin, eyes, teeth, tongue in V = 17821
vertices.

    template_vertex_positions [V, 3] | vertex_identity_basis [253, V, 3] | expression_basis [383, V, 3]
    triangles [T, 3] | triangle_uvs [T, 3, 2] | vertex_groups [G, V], vertex_group_names [G]
    identity_names, expression_names: one per component, which begin with its region
    version "3.0" | variant "head" | joints, skinning and others, not read

Bases are scaled to standard deviations and add up on the head at rest. A linear model has no joints: neck and eyes stay
at rest. The unit is not stated in the file: it is the one at which the head is 0.15 to 0.4 m high.

Written from the documented layout; the real file was not at hand.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.formats.npz_file import read_npz
from facerecon_torch.formats.polygon_mesh import corner_texture
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain
from facerecon_torch.model.importers.linear_parts import Array, LinearParts, assemble

__all__ = ["REGIONS", "read_gnm"]

REGIONS = ("skin", "all")
VERSION, VARIANT = "3.0", "head"
_SKIN = ("skin_exterior", "skin")  # vertex groups, the preferred one first
_MEMBER = 1e-4  # least weight of a vertex in its group
_UNITS_MM = {"metres": 1000.0, "centimetres": 10.0}
_HEIGHT_MM = (150.0, 400.0)
_KEYS = (
    "version", "variant", "template_vertex_positions", "template_joint_positions", "vertex_identity_basis",
    "joint_identity_basis", "expression_basis", "identity_names", "expression_names", "joint_names",
    "joint_parent_indices", "skinning_weights", "quads", "triangles", "quad_uvs", "triangle_uvs",
    "mesh_component_names", "mirror_indices", "joint_regressor", "vertex_groups", "vertex_group_names",
)  # fmt: skip
_OPTIONAL = ("pose_correctives_regressor", "bone_aligned_template_joint_orientations")
# Prefixes of the components that move the skin, and of the others; older files have the second spelling of each.
_IDENTITY = (("head_",), ("eyes_", "eyeballs_", "teeth_"))
_EXPRESSION = (
    ("left_eye_region_", "left_eye_", "right_eye_region_", "right_eye_", "lower_face_region_", "mouth_"),
    ("tongue_", "pupils_", "pupil_", "eyeballs_"),
)


def read_gnm(
    path: str | os.PathLike[str],
    *,
    region: str = "skin",
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model of the head at rest; alpha and beta in standard deviations (variance 1).

    Args:
        path: The .npz file.
        region: "skin": the skin outside, with the components that move it; "all": also eyes, teeth and tongue.
        n_identity: Largest number of identity components.
        n_expression: Largest number of expression components.

    Raises:
        ModelFileError: The file is damaged or of another version, an array is missing, unknown or of a wrong shape, or
            no unit makes the head 0.15 to 0.4 m high.
        ValueError: The region is unknown.

    Example:
        read_gnm("gnm_head.npz", n_identity=80).make_model(topology)
    """
    if region not in REGIONS:
        raise ValueError(f"region must be one of {', '.join(REGIONS)}; got {region!r}")
    file = Path(path)
    with as_model_errors():
        arrays = read_npz(file)
    _require_version(file, arrays)
    template = _numbers(file, arrays, "template_vertex_positions", (None, 3))
    parts = _parts(file, arrays, template, region)
    if region == "skin":
        kept = _skin(file, arrays, len(template))
        parts = parts.rows(kept)
        parts.tables["vertices_of_head"] = kept
    unit, unit_mm = _unit(file, template)
    parts.notes.update(version=VERSION, region=region, unit=unit, left_out="pose: neck, head and eyes stay at rest")
    return assemble(
        file,
        parts,
        unit_mm=unit_mm,
        topology_name=f"gnm_{len(template)}",
        n_identity=n_identity,
        n_expression=n_expression,
    )


def _require_version(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    missing = [name for name in _KEYS if name not in arrays]
    unknown = sorted(set(arrays) - set(_KEYS) - set(_OPTIONAL))
    if missing or unknown:
        raise refused(file, "arrays", f"the {len(_KEYS)} of a GNM head", f"missing {missing}, unknown {unknown}")
    for name, wanted in (("version", VERSION), ("variant", VARIANT)):
        value = arrays[name]
        if value.size != 1 or str(value.reshape(-1)[0]) != wanted:
            raise refused(file, name, repr(wanted), repr(str(value)[:40]))


def _numbers(
    file: Path, arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int | None, ...], kinds: str = "f"
) -> Array:
    array = arrays[name]
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape))
    if not fits or array.dtype.kind not in kinds or array.size == 0:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        kind = "numbers" if "f" in kinds else "whole numbers"
        raise refused(file, name, f"{kind} of shape [{wanted}]", f"{array.dtype} {array.shape}")
    if array.dtype.kind == "f":
        require_plain(file, name, array)
    return array


def _parts(file: Path, arrays: dict[str, NDArray[Any]], template: Array, region: str) -> LinearParts:
    n_vertices = len(template)
    triangles = _numbers(file, arrays, "triangles", (None, 3), "iu").astype(np.int64)
    if triangles.min() < 0 or triangles.max() >= n_vertices:
        raise refused(file, "triangles", f"vertices in 0..{n_vertices - 1}", f"{triangles.min()} to {triangles.max()}")
    corner_uv = _numbers(file, arrays, "triangle_uvs", (len(triangles), 3, 2))
    corners = np.arange(3 * len(triangles)).reshape(-1, 3)
    texture = corner_texture(
        corner_uv.reshape(-1, 2).astype(np.float64), triangles.tolist(), corners.tolist(), n_vertices
    )
    identity = _basis(file, arrays, "vertex_identity_basis", "identity_names", _IDENTITY, n_vertices, region)
    expression = _basis(file, arrays, "expression_basis", "expression_names", _EXPRESSION, n_vertices, region)
    return LinearParts(
        mean=template,
        triangles=triangles,
        identity=identity,
        expression=expression,
        identity_variance=np.ones(identity.shape[-1]),
        expression_variance=np.ones(expression.shape[-1]),
        uv=texture.uv,
        corner_uv=texture.corner_uv,
        notes={"uv_seam_vertices": texture.n_seams},
    )


def _basis(
    file: Path,
    arrays: dict[str, NDArray[Any]],
    name: str,
    names: str,
    prefixes: tuple[tuple[str, ...], tuple[str, ...]],
    n_vertices: int,
    region: str,
) -> Array:
    """The components [V, 3, n] of a region in the order of the file."""
    basis = _numbers(file, arrays, name, (None, n_vertices, 3))
    words = [str(word) for word in _names(file, arrays, names, len(basis))]
    strange = next((word for word in words if not word.startswith((*prefixes[0], *prefixes[1]))), None)
    if strange is not None:
        raise refused(file, names, f"names that begin with one of {', '.join(prefixes[0] + prefixes[1])}", strange[:40])
    kept = [row for row, word in enumerate(words) if region == "all" or word.startswith(prefixes[0])]
    return np.moveaxis(basis[kept], 0, -1)


def _names(file: Path, arrays: dict[str, NDArray[Any]], name: str, count: int) -> NDArray[Any]:
    names = arrays[name]
    if names.dtype.kind != "U" or names.shape != (count,):
        raise refused(file, name, f"{count} names", f"{names.dtype} {names.shape}")
    return names


def _skin(file: Path, arrays: dict[str, NDArray[Any]], n_vertices: int) -> Array:
    """The vertices of the skin, which some triangle uses."""
    weights = _numbers(file, arrays, "vertex_groups", (None, n_vertices), "fiub")
    names = _names(file, arrays, "vertex_group_names", len(weights)).tolist()
    group = next((name for name in _SKIN if name in names), None)
    if group is None:
        raise refused(file, "vertex_group_names", f"{' or '.join(_SKIN)}", ", ".join(names)[:200])
    kept = np.flatnonzero(weights[names.index(group)] > _MEMBER)
    if len(kept) == 0:
        raise refused(file, f"vertex group {group}", "at least one vertex", "none")
    return kept


def _unit(file: Path, template: Array) -> tuple[str, float]:
    height = float(np.ptp(template[:, 1].astype(np.float64)))
    for name, millimetres in _UNITS_MM.items():
        if _HEIGHT_MM[0] <= millimetres * height <= _HEIGHT_MM[1]:
            return name, millimetres
    raise refused(file, "height of the template", "0.15 to 0.4 (metres) or 15 to 40 (centimetres)", f"{height:.6g}")
