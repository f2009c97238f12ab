"""Eq. 6: the scaled orthographic camera that carries 3D landmarks onto 2D landmarks, in closed form."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.structures import Camera

__all__ = ["solve_camera"]

_SINGULAR_RATIO = 1e-4  # below it a point set counts as flat (3D) or as a line (2D)
_MINIMUM_POINTS = 4


class _Moments(NamedTuple):
    """Weighted first and second moments; the second ones are those of points with unit RMS radius."""

    mean3d: Float[Tensor, "*b 3"]
    mean2d: Float[Tensor, "*b 2"]
    radius3d: Float[Tensor, "*b"]
    radius2d: Float[Tensor, "*b"]
    gram3d: Float[Tensor, "*b 3 3"]
    gram2d: Float[Tensor, "*b 2 2"]
    cross: Float[Tensor, "*b 2 3"]


def solve_camera(
    points3d: Float[Tensor, "*#b n 3"],
    points2d: Float[Tensor, "*#b n 2"],
    weights: Float[Tensor, "*#b n"] | None = None,
    *,
    scale: Float[Tensor, "*#b"] | None = None,
) -> Camera:
    """Weighted least-squares camera of p = s F (R v)_xy + t, F = diag(1, -1) (Eq. 4, 6).

    `points3d` in mm (model frame), `points2d` in px (image frame), `weights` non-negative. A 2x3 affine
    matrix is fitted to the normalised points, R is the rotation nearest to it, and s and t are solved again
    given R. With `scale` (px/mm) the size of the face is known and only R and t are solved. A point of
    weight zero is ignored, whatever its coordinates hold.

    A row is `degenerate` with fewer than 4 points, with 3D points whose smallest singular value is below
    1e-4 of the largest, with 2D points (or an affine matrix) of rank below 2, or with a non-finite
    coordinate or a negative or non-finite weight. It gets R = I, s = 1 (or `scale`), t = 0, and zero
    gradients. Solved in float64, returned in the dtype of `points2d`; differentiable in every input, also
    where the affine matrix is already a scaled rotation.
    """
    solid, flat, share, broken = _prepared(points3d, points2d, weights)
    moments = _moments(solid, flat, share)
    degenerate = broken | _degenerate(moments)
    affine = _affine(moments, degenerate)
    degenerate = degenerate | ~_has_rank_two(affine.detach())
    rotation = _nearest_rotation(_or_identity(affine, degenerate))
    given = None if scale is None else scale.double().expand(degenerate.shape)
    size, shift = _scale_and_shift(moments, rotation, degenerate, given)
    dtype = points2d.dtype
    return Camera(rotation.to(dtype), size.to(dtype), shift.to(dtype), degenerate)


def _prepared(
    points3d: Float[Tensor, "*#b n 3"],
    points2d: Float[Tensor, "*#b n 2"],
    weights: Float[Tensor, "*#b n"] | None,
) -> tuple[Float[Tensor, "*b n 3"], Float[Tensor, "*b n 2"], Float[Tensor, "*b n"], Bool[Tensor, "*b"]]:
    """Float64 points with +y up on both sides, weights of sum one, and the rows that cannot be used."""
    n = points3d.shape[-2]
    raw = points2d.new_ones(n) if weights is None else weights
    shapes = (points3d.shape[:-2], points2d.shape[:-2], raw.shape[:-1])
    batch = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    raw = raw.double().expand(*batch, n)
    solid = points3d.double().expand(*batch, n, 3)
    flat = points2d.double().expand(*batch, n, 2)
    used = torch.isfinite(raw) & (raw > 0)
    finite = torch.isfinite(solid).all(-1) & torch.isfinite(flat).all(-1)
    bad_weight = ~torch.isfinite(raw) | (raw < 0)
    broken = (bad_weight | (used & ~finite)).any(-1) | (used.sum(-1) < _MINIMUM_POINTS)
    keep = used & finite
    solid = torch.where(keep[..., None], solid, 0.0)
    flat = torch.where(keep[..., None], flat, 0.0) * flat.new_tensor([1.0, -1.0])
    share = torch.where(keep, raw, 0.0)
    total = share.sum(-1, keepdim=True)
    return solid, flat, share / torch.where(total > 0, total, 1.0), broken


def _moments(solid: Float[Tensor, "*b n 3"], flat: Float[Tensor, "*b n 2"], share: Float[Tensor, "*b n"]) -> _Moments:
    mean3d = (share[..., None] * solid).sum(-2)
    mean2d = (share[..., None] * flat).sum(-2)
    solid = solid - mean3d[..., None, :]
    flat = flat - mean2d[..., None, :]
    radius3d = _safe_root((share * solid.square().sum(-1)).sum(-1))
    radius2d = _safe_root((share * flat.square().sum(-1)).sum(-1))
    solid = solid / radius3d[..., None, None]
    flat = flat / radius2d[..., None, None]
    weighted = share[..., None] * solid
    return _Moments(
        mean3d,
        mean2d,
        radius3d,
        radius2d,
        gram3d=solid.mT @ weighted,
        gram2d=flat.mT @ (share[..., None] * flat),
        cross=flat.mT @ weighted,
    )


def _safe_root(square: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Square root whose gradient stays finite for coincident points, where it returns 1."""
    return torch.where(square > 0, square, 1.0).sqrt()


@torch.no_grad()
def _degenerate(moments: _Moments) -> Bool[Tensor, "*b"]:
    spread3d = torch.linalg.eigvalsh(moments.gram3d)
    spread2d = torch.linalg.eigvalsh(moments.gram2d)
    limit = _SINGULAR_RATIO**2  # eigenvalues of a Gram matrix are squared singular values
    too_flat = spread3d[..., 0] < limit * spread3d[..., -1]
    too_thin = spread2d[..., 0] < limit * spread2d[..., -1]
    # Coincident points have all-zero Gram matrices, for which the two ratios say nothing.
    degenerate: Tensor = too_flat | too_thin | (spread3d[..., -1] <= 0) | (spread2d[..., -1] <= 0)
    return degenerate


def _affine(moments: _Moments, degenerate: Bool[Tensor, "*b"]) -> Float[Tensor, "*b 2 3"]:
    """Least-squares 2x3 matrix between the normalised point sets."""
    gram = _or_identity(moments.gram3d, degenerate)
    affine: Tensor = torch.linalg.solve_ex(gram, moments.cross, left=False)[0]
    return affine


def _or_identity(matrix: Float[Tensor, "*b rows 3"], replace: Bool[Tensor, "*b"]) -> Float[Tensor, "*b rows 3"]:
    unit = torch.eye(3, dtype=matrix.dtype, device=matrix.device)[: matrix.shape[-2]]
    return torch.where(replace[..., None, None], unit, matrix)


def _has_rank_two(affine: Float[Tensor, "*b 2 3"]) -> Bool[Tensor, "*b"]:
    area: Tensor = torch.linalg.cross(affine[..., 0, :], affine[..., 1, :]).norm(dim=-1)
    return area > _SINGULAR_RATIO * affine.square().sum((-2, -1))


def _nearest_rotation(affine: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 3 3"]:
    """U V' of the SVD of `affine`, and the cross product as third row, so that the determinant is +1.

    U V' equals M^(-1/2) A with M = A A', and for a 2x2 matrix, with d = sqrt(det M), M^(-1/2) = ((tr M + d)
    I - M) / (d sqrt(tr M + 2 d)). Unlike the gradient of an SVD this is smooth where both singular values
    agree, that is at every noise-free view.
    """
    area = torch.linalg.cross(affine[..., 0, :], affine[..., 1, :]).square().sum(-1).sqrt()
    moment = affine @ affine.mT
    trace = moment.diagonal(dim1=-2, dim2=-1).sum(-1)
    unit = torch.eye(2, dtype=affine.dtype, device=affine.device)
    numerator = (trace + area)[..., None, None] * unit - moment
    denominator = area * (trace + 2 * area).sqrt()
    rows = (numerator / denominator[..., None, None]) @ affine
    third = torch.linalg.cross(rows[..., 0, :], rows[..., 1, :])
    return torch.cat([rows, third[..., None, :]], dim=-2)


def _scale_and_shift(
    moments: _Moments,
    rotation: Float[Tensor, "*b 3 3"],
    degenerate: Bool[Tensor, "*b"],
    given: Float[Tensor, "*b"] | None,
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 2"]]:
    """Least-squares s (unless `given`, in px/mm) and t for a fixed rotation; t with +y down."""
    rows = rotation[..., :2, :]
    if given is None:
        match = (rows * moments.cross).sum((-2, -1))
        extent = ((rows @ moments.gram3d) * rows).sum((-2, -1))
        ratio = torch.where(degenerate, 1.0, match) / torch.where(degenerate, 1.0, extent)
        size = torch.where(degenerate, 1.0, ratio * moments.radius2d / moments.radius3d)
    else:
        size = given
    shift = moments.mean2d - size[..., None] * (rows @ moments.mean3d[..., None])[..., 0]
    shift = shift * shift.new_tensor([1.0, -1.0])
    return size, torch.where(degenerate[..., None], 0.0, shift)
