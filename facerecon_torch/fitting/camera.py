"""Eq. 6: the scaled orthographic camera that carries 3D landmarks onto 2D landmarks, in closed form."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera

__all__ = ["solve_camera"]

_SINGULAR_RATIO = 1e-4  # below it a point set counts as flat (3D) or as a line (2D)
_MINIMUM_POINTS = 4
_COINCIDENT = 1e-5  # of their distance from the origin: 2D points closer together than this are one, read in float32


@in_own_precision
def solve_camera(
    points3d: Float[Tensor, "*#b n 3"],
    points2d: Float[Tensor, "*#b n 2"],
    weights: Float[Tensor, "*#b n"] | None = None,
    *,
    scale: Float[Tensor, "*#b"] | None = None,
) -> Camera:
    """The weighted least-squares camera of p = s F (R v)_xy + t, F = diag(1, -1) (Eq. 4, 6).

    A 2x3 affine matrix is fitted to the centred points, R is the rotation nearest to it, and s and t are solved again
    given R. Solved in float64. Differentiable in every input, also where the affine matrix is already a scaled
    rotation.

    Args:
        points3d: in mm (model frame).
        points2d: in px (image frame).
        weights: non-negative; a point of weight 0 is ignored, whatever its coordinates hold. None: 1.
        scale: the known size of the face in px/mm; only R and t are solved then.

    Returns:
        The camera in the dtype of `points2d`. A row is `degenerate` with fewer than 4 points, with 3D points whose
        smallest singular value is below 1e-4 of the largest, with 2D points (or an affine matrix) of rank below 2, with
        2D points whose spread is below 1e-5 of their mean's distance from the origin (float32 coordinates of one place
        may differ by that), or with a non-finite coordinate or a negative or non-finite weight. It has R = I, s = 1 (or
        `scale`), t = 0, and zero gradients.

    Example:
        >>> camera = solve_camera(points3d, landmarks)
    """
    table, fractions, broken = _prepared(points3d, points2d, weights)
    mean = table @ fractions[..., None]
    centred = table - mean
    # One product holds every second moment: 3D x 3D, 2D x 3D and 2D x 2D.
    moments = (centred * fractions[..., None, :]) @ centred.mT
    gram3d, cross, gram2d = moments[..., :3, :3], moments[..., 3:, :3], moments[..., 3:, 3:]
    degenerate = broken | _lacks_rank(gram3d, gram2d) | _coincide(gram2d, mean[..., 3:, 0])
    safe = torch.where(degenerate[..., None, None], torch.eye(3, dtype=cross.dtype, device=cross.device), gram3d)
    affine: Tensor = torch.linalg.solve_ex(safe, cross, left=False)[0]
    rows, third, thin = _nearest_rotation(affine)
    degenerate = degenerate | thin
    size = _scale(rows, gram3d, cross, degenerate) if scale is None else scale.double().expand(degenerate.shape)
    shift = mean[..., 3:, 0] - size[..., None] * (rows @ mean[..., :3, :])[..., 0]
    return _camera(rows, third, size, shift, degenerate, points2d.dtype)


def _prepared(
    points3d: Float[Tensor, "*#b n 3"],
    points2d: Float[Tensor, "*#b n 2"],
    weights: Float[Tensor, "*#b n"] | None,
) -> tuple[Float[Tensor, "*b 5 n"], Float[Tensor, "*b n"], Bool[Tensor, "*b"]]:
    """Coordinates in float64 (3D, then 2D; zero where ignored), weights of sum one, and the rows that cannot be
    used."""
    n = points3d.shape[-2]
    weights = points2d.new_ones(n) if weights is None else weights
    shapes = (points3d.shape[:-2], points2d.shape[:-2], weights.shape[:-1])
    batch = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    parts = (points3d.mT, points2d.mT, weights[..., None, :])
    full = torch.cat([part.double().expand(*batch, -1, n) for part in parts], dim=-2)
    given = full[..., 5, :]
    # The largest magnitude of a column is finite where all its numbers are; NaN compares false.
    keep = (full.detach().abs().amax(dim=-2) < torch.inf) & (given > 0)
    broken = (~keep & (given != 0)).any(-1) | (keep.sum(-1) < _MINIMUM_POINTS)
    full = full.masked_fill(~keep[..., None, :], 0.0)
    total = full[..., 5, :].sum(-1, keepdim=True)
    fractions = full[..., 5, :] / total.masked_fill(total <= 0, 1.0)
    return full[..., :5, :], fractions, broken


@torch.no_grad()
def _lacks_rank(gram3d: Float[Tensor, "*b 3 3"], gram2d: Float[Tensor, "*b 2 2"]) -> Bool[Tensor, "*b"]:
    """Whether the smallest eigenvalue of either Gram matrix is below `limit` times the largest. Eigenvalues are squared
    singular values.

    No eigenvalue is computed by iteration. The smallest eigenvalue of G is above b exactly where G - b I has a Cholesky
    factor. The bound b = `limit` times the largest eigenvalue needs to be right only where the decision is close. There
    the smallest eigenvalue is negligible, so that the largest one is (T + sqrt(2 F - T^2)) / 2 with T the trace and F
    the squared Frobenius norm; for a 2x2 matrix its square is F, and the product of both eigenvalues is the
    determinant.
    """
    limit = _SINGULAR_RATIO**2
    trace = gram3d.diagonal(dim1=-2, dim2=-1).sum(-1)
    square = gram3d.square().sum((-2, -1))
    largest = (trace + (2 * square - trace.square()).clamp_min(0).sqrt()) / 2
    shifted = gram3d - torch.diag_embed((limit * largest)[..., None].expand(*largest.shape, 3))
    too_flat = torch.linalg.cholesky_ex(shifted)[1] != 0
    determinant = gram2d[..., 0, 0] * gram2d[..., 1, 1] - gram2d[..., 0, 1].square()
    # Coincident points have a zero matrix, which is not above its bound either.
    solid = determinant > limit * gram2d.square().sum((-2, -1))
    lacks: Tensor = too_flat | ~solid
    return lacks


@torch.no_grad()
def _coincide(gram2d: Float[Tensor, "*b 2 2"], mean: Float[Tensor, "*b 2"]) -> Bool[Tensor, "*b"]:
    """Whether 2D points are one place but for rounding: that leaves two equal directions of spread, not none."""
    spread = gram2d.diagonal(dim1=-2, dim2=-1).sum(-1)
    close: Tensor = spread <= _COINCIDENT**2 * mean.square().sum(-1)
    return close


def _nearest_rotation(
    affine: Float[Tensor, "*b 2 3"],
) -> tuple[Float[Tensor, "*b 2 3"], Float[Tensor, "*b 3"], Bool[Tensor, "*b"]]:
    """U V' of the SVD of `affine`, the unit vector across both rows, and whether the rank is below 2 (where the other
    two are undefined).

    U V' equals M^(-1/2) A with M = A A', and for a 2x2 matrix, with d = sqrt(det M), M^(-1/2) = ((tr M + d)
    I - M) / (d sqrt(tr M + 2 d)). Unlike the gradient of an SVD this is smooth where both singular values
    agree, that is at every noise-free view.
    """
    normal = torch.linalg.cross(affine[..., 0, :], affine[..., 1, :])
    square = normal.square().sum(-1)
    moment = affine @ affine.mT
    trace = moment.diagonal(dim1=-2, dim2=-1).sum(-1)
    thin = ~(square.detach() > _SINGULAR_RATIO**2 * trace.detach().square())
    area = square.masked_fill(thin, 1.0).sqrt()
    wide = area * (trace.masked_fill(thin, 1.0) + 2 * area).sqrt()
    rows = ((trace + area) / wide)[..., None, None] * affine - (moment / wide[..., None, None]) @ affine
    return rows, normal / area[..., None], thin


def _scale(
    rows: Float[Tensor, "*b 2 3"],
    gram3d: Float[Tensor, "*b 3 3"],
    cross: Float[Tensor, "*b 2 3"],
    degenerate: Bool[Tensor, "*b"],
) -> Float[Tensor, "*b"]:
    """The least-squares s in px/mm for a fixed rotation; 1 for a degenerate row."""
    match = (rows * cross).sum((-2, -1))
    extent = ((rows @ gram3d) * rows).sum((-2, -1))
    return match.masked_fill(degenerate, 1.0) / extent.masked_fill(degenerate, 1.0)


def _camera(
    rows: Float[Tensor, "*b 2 3"],
    third: Float[Tensor, "*b 3"],
    size: Float[Tensor, "*b"],
    shift: Float[Tensor, "*b 2"],
    degenerate: Bool[Tensor, "*b"],
    dtype: torch.dtype,
) -> Camera:
    """The camera of image rows (+y down): the second row is turned up, and so the third changes its sign as well."""
    rotation = torch.stack([rows[..., 0, :], -rows[..., 1, :], -third], dim=-2).to(dtype)
    unit = torch.eye(3, dtype=dtype, device=rotation.device)
    rotation = torch.where(degenerate[..., None, None], unit, rotation)
    shift = shift.masked_fill(degenerate[..., None], 0.0)
    return Camera(rotation=rotation, scale=size.to(dtype), translation=shift.to(dtype), degenerate=degenerate)
