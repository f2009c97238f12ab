"""Errors of meshes in correspondence: per image (Eq. 14, 15), per vertex across and along the surface, of the pose."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.align import align_rigid, align_similarity, align_translation
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.rotation import matrix_to_axis_angle
from facerecon_torch.runtime.precision import in_own_precision

__all__ = [
    "ALIGNMENTS",
    "Placement",
    "SurfaceErrors",
    "VertexError",
    "distance_errors",
    "pose_error_degrees",
    "size_error_percent",
    "surface_errors",
    "vertex_errors",
]

_SOLVERS = {"translation": align_translation, "rigid": align_rigid, "similarity": align_similarity}
ALIGNMENTS = ("none", *_SOLVERS)


@dataclass(frozen=True)
class VertexError:
    """Errors per image: `mae` and `rmse_z` in the unit of the vertices (mm) after the alignment, `size_error_percent`
    before it."""

    mae: Float[Tensor, "*b"]
    rmse_z: Float[Tensor, "*b"]
    size_error_percent: Float[Tensor, "*b"]


@in_own_precision
def vertex_errors(
    estimate: Float[Tensor, "*b V 3"],
    truth: Float[Tensor, "*b V 3"],
    align: str = "none",
    *,
    rows: Int[Tensor, "n"] | None = None,
    known: Bool[Tensor, "*b V"] | None = None,
) -> VertexError:
    """Errors of the estimate after alignment with the truth.

    Eq. 14: RMSE = sqrt(mean of dz^2) with z the third axis of the given frame. Eq. 15: MAE = mean Euclidean distance.
    The size error is signed: 100 (r_estimate / r_truth - 1) with r the root mean square distance from the centroid.

    Args:
        estimate: meshes.
        truth: true meshes in the same frame.
        align: motion of the estimate, one of ALIGNMENTS, computed on the evaluated vertices.
        rows: the evaluated vertices; all by default.
        known: mask of the vertices that are evaluated in each image; an image without any gets NaN.

    Raises:
        ValueError: another `align`, or no vertices.

    Example:
        >>> vertex_errors(reconstruction.vertices, truth, "rigid").mae.mean()
    """
    if rows is not None:
        estimate, truth = estimate[..., rows, :], truth[..., rows, :]
        known = None if known is None else known[..., rows]
    mae, rmse = distance_errors(estimate, truth, align, known=known)
    return VertexError(mae, rmse, size_error_percent(estimate, truth, known=known))


@in_own_precision
def size_error_percent(
    estimate: Float[Tensor, "*b V 3"], truth: Float[Tensor, "*b V 3"], *, known: Bool[Tensor, "*b V"] | None = None
) -> Float[Tensor, "*b"]:
    """The size error of `vertex_errors` alone."""
    weights = None if known is None else known.to(estimate.dtype)
    return 100 * (_radius(estimate, weights) / _radius(truth, weights) - 1)


@in_own_precision
def distance_errors(
    estimate: Float[Tensor, "*b V 3"],
    truth: Float[Tensor, "*b V 3"],
    align: str = "none",
    *,
    known: Bool[Tensor, "*b V"] | None = None,
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """MAE and RMSE of `vertex_errors` alone, over all given vertices.

    Raises:
        ValueError: another `align`, or no vertices.
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"align must be one of {ALIGNMENTS}; got {align!r}")
    if estimate.shape[-2] == 0:
        raise ValueError("errors need at least one vertex; got none")
    weights = None if known is None else known.to(estimate.dtype)
    if align != "none":
        estimate = _SOLVERS[align](estimate, truth, weights).apply(estimate)
    gap = estimate - truth
    mae = _mean(torch.linalg.vector_norm(gap, dim=-1), weights)
    return mae, _mean(gap[..., 2].square(), weights).sqrt()


def _mean(values: Float[Tensor, "*b n"], weights: Float[Tensor, "*b n"] | None) -> Float[Tensor, "*b"]:
    return values.mean(-1) if weights is None else (values * weights).sum(-1) / weights.sum(-1)


def _radius(points: Float[Tensor, "*b n 3"], weights: Float[Tensor, "*b n"] | None) -> Float[Tensor, "*b"]:
    """Root mean square distance from the centroid."""
    centre = torch.stack([_mean(axis, weights) for axis in points.unbind(-1)], dim=-1)
    return _mean((points - centre[..., None, :]).square().sum(-1), weights).sqrt()


@dataclass(frozen=True)
class Placement:
    """Meshes in mm in the model frame, and the rigid motion of each into its scan: scan = R v + T."""

    meshes: Float[Tensor, "b V 3"]
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]

    @property
    def in_scan(self) -> Float[Tensor, "b V 3"]:
        """The meshes in the frame of their scans."""
        return self.meshes @ self.rotation.mT + self.translation[:, None]


@dataclass(frozen=True)
class SurfaceErrors:
    """Errors in mm per vertex, NaN where a vertex is not counted: `across`, the distance along the true mesh's normal;
    `along`, the remaining distance (the slide); `straight`, the Euclidean distance."""

    across: Float[Tensor, "b V"]
    along: Float[Tensor, "b V"]
    straight: Float[Tensor, "b V"]


@in_own_precision
def surface_errors(
    estimate: Placement, truth: Placement, triangles: Int[Tensor, "T 3"], counted: Bool[Tensor, "b V"]
) -> SurfaceErrors:
    """Errors of registered meshes in the frame of the scan, where an exchange between pose and shape has no effect.

    Args:
        estimate: registered meshes.
        truth: true meshes, in correspondence.
        triangles: triangles of both.
        counted: mask of the vertices that count.

    Example:
        >>> errors = surface_errors(estimate, truth, triangles, prepared.covered)
        >>> errors.across.nanmedian()
    """
    target = truth.in_scan.double()
    gap = estimate.in_scan.double() - target
    across = (gap * vertex_normals(target, triangles)).sum(-1).abs()
    straight = torch.linalg.vector_norm(gap, dim=-1)
    along = (straight.square() - across.square()).clamp_min(0).sqrt()
    return SurfaceErrors(*(torch.where(counted, error, torch.nan) for error in (across, along, straight)))


def pose_error_degrees(estimate: Float[Tensor, "*b 3 3"], truth: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle of the rotation between two rotations, in degrees."""
    return torch.rad2deg(torch.linalg.vector_norm(matrix_to_axis_angle(estimate.double() @ truth.double().mT), dim=-1))
