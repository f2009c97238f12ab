"""From the arrays of a linear model's file to an ImportedModel: mm, outward triangles, one summary for all formats."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.model.importers.imported import ImportedModel, refused
from facerecon_torch.model.named_weights import NEUTRAL

__all__ = ["BLENDSHAPE_VARIANCE", "Array", "LinearParts", "assemble", "columns", "outward", "require_plain"]

BLENDSHAPE_VARIANCE = 1 / 3  # about 0, of a weight spread evenly over [0, 1]
FRONT = 0.05  # share of the triangles, those nearest to the viewer, whose normals say which side is outside
LARGEST = 1e12  # in any unit of length: where only damage leads

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearParts:
    """A model as its file has it: positions and offsets per unit of a coefficient in the file's unit of length,
    triangles from 0, variances of the coefficients. `names` are those of the expression columns, for blendshapes.
    Colours are RGB in [0, 1]. `notes` go into the summary."""

    mean: Array  # [V, 3]
    triangles: Array  # [T, 3]
    identity: Array  # [V, 3, I]
    expression: Array  # [V, 3, E]
    identity_variance: Array  # [I]
    expression_variance: Array  # [E]
    names: Sequence[str] = ()
    uv: Array | None = None  # [V, 2]
    colour_mean: Array | None = None  # [V, 3]
    colour_basis: Array | None = None  # [V, 3, C]
    notes: dict[str, object] = field(default_factory=dict)

    def rows(self, kept: Array) -> "LinearParts":
        """Only the vertices `kept`, in that order, and the triangles between them."""
        place = np.full(len(self.mean), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        triangles = place[self.triangles]
        return replace(
            self,
            mean=self.mean[kept],
            identity=self.identity[kept],
            expression=self.expression[kept],
            triangles=triangles[(triangles >= 0).all(axis=1)],
            uv=None if self.uv is None else self.uv[kept],
            colour_mean=None if self.colour_mean is None else self.colour_mean[kept],
            colour_basis=None if self.colour_basis is None else self.colour_basis[kept],
        )


def columns(matrix: Array) -> Array:
    """[3 V, n] with x y z of a vertex in consecutive rows -> [V, 3, n]."""
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
    """The model in mm; its mean face's centroid becomes the origin unless `centre` is False (summary: `origin_mm` is
    the new origin in the file's frame).

    Of each basis the first columns are kept, as many as asked for; columns without variance, which no fit can use, are
    left out. Raises ModelFileError for a negative variance, triangles that point nowhere, numbers that are none, and
    what ImportedModel refuses; ValueError for a count below 1.
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
    counts = {"vertices": len(mean), "triangles": len(triangles), "triangles_turned": turned}
    try:
        return ImportedModel(
            kind="linear",
            factors=factors,
            triangles=triangles,
            uv=None if parts.uv is None else torch.from_numpy(parts.uv.astype(np.float32)),
            expression_names=names,
            topology_name=topology_name,
            summary={**counts, **notes, "origin_mm": origin.tolist(), **parts.notes},
        )
    except (TypeError, ValueError) as error:
        raise refused(file, "model", "arrays that fit together and a face in mm", error) from error


def require_plain(file: Path, name: str, array: Array) -> None:
    """Raise ModelFileError for a value that is no number or beyond any unit of length."""
    if array.size and not (np.isfinite(array).all() and np.abs(array).max() <= LARGEST):
        raise refused(file, name, f"finite numbers of at most {LARGEST:g}", "NaN, infinity or larger ones")


def _kept_columns(file: Path, name: str, variance: Array, count: int | None) -> Array:
    if count is not None and count < 1:
        raise ValueError(f"n_{name} must be at least 1; got {count}")
    if variance.size and float(variance.min()) < 0:
        raise refused(file, f"{name} variance", "no negative number", f"{float(variance.min()):g}")
    (kept,) = np.nonzero(variance[:count].astype(np.float32) > 0)
    if name == "identity" and len(kept) == 0:
        raise refused(file, "identity variance", "at least one component with variance", f"{len(variance)} without")
    return kept


def outward(file: Path, vertices: Tensor, triangles: Tensor) -> tuple[Tensor, bool]:
    """The triangles counter-clockwise seen from outside, and whether they had to be turned for it.

    Outside is +z where the face is nearest to the viewer: at the nose. Raises ModelFileError for triangles outside
    the mesh, or none, or without area there.
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
