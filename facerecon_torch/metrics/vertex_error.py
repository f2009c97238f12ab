"""Errors of meshes in correspondence, vertex by vertex (Eq. 14 and 15), and the error of their size."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.align import align_rigid, align_similarity, align_translation

__all__ = ["ALIGNMENTS", "VertexError", "vertex_errors"]

_SOLVERS = {"translation": align_translation, "rigid": align_rigid, "similarity": align_similarity}
ALIGNMENTS = ("none", *_SOLVERS)


@dataclass(frozen=True)
class VertexError:
    """Per image. `mae` and `rmse_z` in the unit of the vertices (mm) after the alignment;
    `size_error_percent` before."""

    mae: Float[Tensor, "*b"]
    rmse_z: Float[Tensor, "*b"]
    size_error_percent: Float[Tensor, "*b"]


def vertex_errors(
    estimate: Float[Tensor, "*b V 3"],
    truth: Float[Tensor, "*b V 3"],
    align: str = "none",
    *,
    rows: Int[Tensor, "n"] | None = None,
    known: Bool[Tensor, "*b V"] | None = None,
) -> VertexError:
    """Errors of `estimate`, moved onto `truth` as `align` says (none, translation, rigid or similarity), on
    `rows`, and of those on the `known` vertices of each image alone.

    Eq. 14: RMSE = sqrt(mean of dz^2) with z the third axis of the frame given; Eq. 15: MAE = mean Euclidean
    distance. The alignment is computed on the vertices that are evaluated. The size error is signed: 100
    (r_estimate / r_truth - 1) with r the root mean square distance from the centroid. An image without a known vertex
    gets NaN. Raises ValueError for another `align` or no rows.
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"align must be one of {ALIGNMENTS}; got {align!r}")
    if rows is not None:
        estimate, truth = estimate[..., rows, :], truth[..., rows, :]
    if estimate.shape[-2] == 0:
        raise ValueError("errors need at least one vertex; got none")
    weights = None
    if known is not None:
        weights = (known if rows is None else known[..., rows]).to(estimate.dtype)
    size_error = 100 * (_radius(estimate, weights) / _radius(truth, weights) - 1)
    if align != "none":
        estimate = _SOLVERS[align](estimate, truth, weights).apply(estimate)
    gap = estimate - truth
    mae = _mean(torch.linalg.vector_norm(gap, dim=-1), weights)
    return VertexError(mae, _mean(gap[..., 2].square(), weights).sqrt(), size_error)


def _mean(values: Float[Tensor, "*b n"], weights: Float[Tensor, "*b n"] | None) -> Float[Tensor, "*b"]:
    return values.mean(-1) if weights is None else (values * weights).sum(-1) / weights.sum(-1)


def _radius(points: Float[Tensor, "*b n 3"], weights: Float[Tensor, "*b n"] | None) -> Float[Tensor, "*b"]:
    centre = torch.stack([_mean(axis, weights) for axis in points.unbind(-1)], dim=-1)
    return _mean((points - centre[..., None, :]).square().sum(-1), weights).sqrt()
