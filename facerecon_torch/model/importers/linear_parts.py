"""Assembly of a linear model from the arrays of its file: mm, outward triangles, and a summary."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.model.importers.imported import ImportedModel, refused, require_plain
from facerecon_torch.model.named_weights import NEUTRAL

__all__ = ["BLENDSHAPE_VARIANCE", "Array", "LinearParts", "assemble", "columns", "outward", "turned_corners"]

BLENDSHAPE_VARIANCE = 1 / 3  # about 0, of a weight spread evenly over [0, 1]
FRONT = 0.05  # share of the triangles, nearest to the viewer, whose normals decide which side is outside

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearParts:
    """The arrays of a model's file, in its unit of length.

    Bases hold offsets per unit of a coefficient. `names` are the names of the expression columns, for blendshapes.
    Colours are RGB in [0, 1]. `notes` are added to the summary.
    """

    mean: Array  # [V, 3]
    triangles: Array  # [T, 3]
    identity: Array  # [V, 3, I]
    expression: Array  # [V, 3, E]
    identity_variance: Array  # [I]
    expression_variance: Array  # [E]
    names: Sequence[str] = ()
    uv: Array | None = None  # [V, 2]
    corner_uv: Array | None = None  # [T, 3, 2], of a mesh with texture seams
    colour_mean: Array | None = None  # [V, 3]
    colour_basis: Array | None = None  # [V, 3, C]
    notes: dict[str, object] = field(default_factory=dict)
    tables: dict[str, Array] = field(default_factory=dict)  # `tables` of the ImportedModel

    def rows(self, kept: Array) -> "LinearParts":
        """The model of the vertices `kept`, in that order, and of the triangles between them."""
        place = np.full(len(self.mean), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        triangles = place[self.triangles]
        whole = (triangles >= 0).all(axis=1)
        return replace(
            self,
            mean=self.mean[kept],
            identity=self.identity[kept],
            expression=self.expression[kept],
            triangles=triangles[whole],
            uv=None if self.uv is None else self.uv[kept],
            corner_uv=None if self.corner_uv is None else self.corner_uv[whole],
            colour_mean=None if self.colour_mean is None else self.colour_mean[kept],
            colour_basis=None if self.colour_basis is None else self.colour_basis[kept],
        )


def columns(matrix: Array) -> Array:
    """The matrix [3 V, n], with x y z of a vertex in consecutive rows, as [V, 3, n]."""
    return matrix.reshape(len(matrix) // 3, 3, matrix.shape[1])


def assemble(
    file: Path,
    parts: LinearParts,
    *,
    unit_mm: float,
    topology_name: str,
    centre: bool = True,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model in mm. Columns without variance are left out, because no fit can use them.

    Args:
        file: The file, for errors.
        parts: Its arrays.
        unit_mm: mm per unit of length.
        topology_name: Name of the mesh in the lists of landmark vertices.
        centre: Whether the centroid of the mean face becomes the origin; the summary has the new origin in the file's
            frame as `origin_mm`.
        n_identity: Largest number of identity columns; all by default.
        n_expression: Largest number of expression columns; all by default.

    Raises:
        ModelFileError: A variance is negative, a number is not finite, triangles have no orientation, or ImportedModel
            refuses the arrays.
        ValueError: A number of columns is below 1.
    """
    for part in fields(parts):
        if isinstance(array := getattr(parts, part.name), np.ndarray):
            require_plain(file, part.name, array)
    factors: dict[str, Tensor] = {}
    notes: dict[str, object] = {}
    kept: Array = np.zeros(0, dtype=np.int64)
    for name, count in (("identity", n_identity), ("expression", n_expression)):
        basis, variance = getattr(parts, name), getattr(parts, f"{name}_variance").astype(np.float64)
        kept = _kept_columns(file, name, variance, count)
        energy = variance * np.einsum("vdk,vdk->k", basis, basis, dtype=np.float64)
        factors[f"{name}_basis"] = torch.from_numpy((basis[..., kept] * unit_mm).astype(np.float32))
        factors[f"{name}_variance"] = torch.from_numpy(variance[kept].astype(np.float32))
        notes[f"{name}_components"] = len(kept)
        notes[f"{name}_components_in_file"] = len(variance)
        notes[f"{name}_variance_kept"] = float(energy[kept].sum() / max(energy.sum(), np.finfo(np.float64).tiny))
        notes[f"{name}_rms_mm"] = float(unit_mm * np.sqrt(energy[kept].sum() / len(parts.mean)))
    names: tuple[str, ...] = ()
    if parts.names:  # one for every expression column, which is its row
        names = (NEUTRAL, *(parts.names[column] for column in kept))
        factors["expression_rows"] = torch.cat([torch.zeros(1, len(kept)), torch.eye(len(kept))])
    return _imported(file, parts, factors, notes, names, unit_mm=unit_mm, topology_name=topology_name, centre=centre)


def _imported(
    file: Path,
    parts: LinearParts,
    factors: dict[str, Tensor],
    notes: dict[str, object],
    names: tuple[str, ...],
    *,
    unit_mm: float,
    topology_name: str,
    centre: bool,
) -> ImportedModel:
    mean = torch.from_numpy(parts.mean.astype(np.float64)) * unit_mm
    origin = mean.mean(dim=0) if centre else torch.zeros_like(mean[0])
    factors["mean"] = (mean - origin).float()
    if parts.colour_mean is not None and parts.colour_basis is not None:
        factors["texture_mean"] = torch.from_numpy(parts.colour_mean.astype(np.float32))
        factors["texture_basis"] = torch.from_numpy(parts.colour_basis.astype(np.float32))
    triangles, turned = outward(file, mean, torch.from_numpy(parts.triangles.astype(np.int64)))
    corner_uv = None if parts.corner_uv is None else torch.from_numpy(parts.corner_uv.astype(np.float32))
    counts = {"vertices": len(mean), "triangles": len(triangles), "triangles_turned": turned}
    try:
        return ImportedModel(
            kind="linear",
            factors=factors,
            triangles=triangles,
            uv=None if parts.uv is None else torch.from_numpy(parts.uv.astype(np.float32)),
            corner_uv=turned_corners(corner_uv, turned),
            expression_names=names,
            topology_name=topology_name,
            summary={**counts, **notes, "origin_mm": origin.tolist(), **parts.notes},
            tables={name: torch.from_numpy(table) for name, table in parts.tables.items()},
        )
    except (TypeError, ValueError) as error:
        raise refused(file, "model", "arrays that fit together and a face in mm", error) from error


def _kept_columns(file: Path, name: str, variance: Array, count: int | None) -> Array:
    if count is not None and count < 1:
        raise ValueError(f"n_{name} must be at least 1; got {count}")
    if variance.size and float(variance.min()) < 0:
        raise refused(file, f"{name} variance", "no negative number", f"{float(variance.min()):g}")
    (kept,) = np.nonzero(variance[:count].astype(np.float32) > 0)
    if name == "identity" and len(kept) == 0:
        raise refused(file, "identity variance", "at least one component with variance", f"{len(variance)} without")
    return kept


def turned_corners(corner_uv: Tensor | None, turned: bool) -> Tensor | None:
    """The texture coordinates of the corners of triangles that `outward` returned."""
    return corner_uv if corner_uv is None or not turned else corner_uv[:, [0, 2, 1]]


def outward(file: Path, vertices: Tensor, triangles: Tensor) -> tuple[Tensor, bool]:
    """The triangles, counter-clockwise seen from outside, and whether their orientation was changed.

    Outside is +z at the nose, where the face is nearest to the viewer. Raises ModelFileError for triangles without
    vertices, an empty table, and triangles without area at the nose.
    """
    if triangles.ndim != 2 or triangles.shape[1] != 3 or len(triangles) == 0:
        raise refused(file, "triangles", "a table [T, 3] that is not empty", tuple(triangles.shape))
    low, high = (int(value) for value in triangles.aminmax())
    if low < 0 or high >= len(vertices):
        raise refused(file, "triangles", f"vertices in 0..{len(vertices) - 1}", f"{low} to {high}")
    corners = vertices[triangles]
    depth = corners[..., 2].mean(dim=1)
    front = depth.topk(max(1, round(FRONT * len(triangles)))).indices
    sides = torch.linalg.cross(corners[front, 1] - corners[front, 0], corners[front, 2] - corners[front, 0])
    towards = float(sides[:, 2].sum())
    if towards == 0:
        raise refused(file, "triangles", "triangles that face the viewer (+z) at the nose", "none with an area there")
    return (triangles[:, [0, 2, 1]] if towards < 0 else triangles), towards < 0
