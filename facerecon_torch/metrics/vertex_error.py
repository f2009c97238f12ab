"""Errors of meshes in correspondence, vertex by vertex (Eq. 14 and 15), and the error of their size."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
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
) -> VertexError:
    """Errors of `estimate`, moved onto `truth` as `align` says (none, translation, rigid or similarity), on
    `rows`.

    Eq. 14: RMSE = sqrt(mean of dz^2) with z the third axis of the frame given; Eq. 15: MAE = mean Euclidean
    distance. The alignment is computed on the rows that are evaluated. The size error is signed: 100
    (r_estimate / r_truth - 1) with r the root mean square distance from the centroid. Raises ValueError for
    another `align` or no rows.
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"align must be one of {ALIGNMENTS}; got {align!r}")
    if rows is not None:
        estimate, truth = estimate[..., rows, :], truth[..., rows, :]
    if estimate.shape[-2] == 0:
        raise ValueError("errors need at least one vertex; got none")
    size_error = 100 * (_radius(estimate) / _radius(truth) - 1)
    if align != "none":
        estimate = _SOLVERS[align](estimate, truth).apply(estimate)
    gap = estimate - truth
    mae = torch.linalg.vector_norm(gap, dim=-1).mean(-1)
    return VertexError(mae, gap[..., 2].square().mean(-1).sqrt(), size_error)


def _radius(points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b"]:
    centred = points - points.mean(-2, keepdim=True)
    return centred.square().sum(-1).mean(-1).sqrt()
