"""Landmark lifting: image landmarks -> points of the scan."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.checks import require_shape

__all__ = ["lift_landmarks"]

_NEIGHBOURS = 12
_REACH = 2.0  # spacings of the scan's points in the image: scan points further away are not behind the landmark
_DEEP_MM = 8.0  # points that far behind the front one belong to another surface


@torch.no_grad()
def lift_landmarks(points: Tensor, valid: Tensor, pixels: Tensor, landmarks: Tensor) -> Tensor:
    """Points [n, 3] in mm of a scan behind image landmarks; NaN where the scan has none, and for NaN landmarks.

    A point is the value of the plane through the nearest valid points on the front surface, so that it changes smoothly
    with the landmark.

    Args:
        points: [..., 3] in mm, a grid or a list of vertices.
        valid: [...], False where nothing was measured.
        pixels: [..., 2], places of the points in the image, px.
        landmarks: [n, 2] in px.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> lifted = lift_landmarks(grid.points, grid.valid, pixels, landmarks)
    """
    require_shape("points", points, (3,))
    require_shape("valid", valid, tuple(points.shape[:-1]))
    require_shape("pixels", pixels, (*points.shape[:-1], 2))
    require_shape("landmarks", landmarks, (None, 2))
    usable = valid.bool() & torch.isfinite(points).all(-1) & torch.isfinite(pixels).all(-1)
    if int(usable.sum()) < _NEIGHBOURS:
        return points.new_full((len(landmarks), 3), torch.nan)
    return _lifted(points[usable], pixels[usable].to(points), landmarks.to(points))


def _lifted(
    points: Float[Tensor, "m 3"], pixels: Float[Tensor, "m 2"], landmarks: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 3"]:
    finite = torch.isfinite(landmarks).all(-1)
    targets = torch.where(finite[:, None], landmarks, 0.0)
    squared, near = (targets[:, None] - pixels).square().sum(-1).topk(_NEIGHBOURS, largest=False)
    step = _spacing(pixels)
    neighbours = points[near]
    front = neighbours[..., 2].amax(1, keepdim=True) - neighbours[..., 2] <= _DEEP_MM
    within = squared <= (_REACH * step) ** 2
    weight = torch.where(front & within, torch.exp(-squared / (2 * step**2)), 0.0)
    lifted = _plane_value(pixels[near] - targets[:, None], neighbours, weight, step)
    hit = finite & (weight.sum(1) > 0) & _reached(squared, weight, step)
    return torch.where(hit[:, None], lifted, torch.nan)


def _spacing(pixels: Float[Tensor, "m 2"]) -> Float[Tensor, ""]:
    """Distance in px between neighbouring scan points, from their number and the box that holds nearly all of them."""
    ends = (max(1, len(pixels) // 50), max(1, len(pixels) - len(pixels) // 50))
    low, high = (torch.stack([column.kthvalue(k).values for column in pixels.unbind(1)]) for k in ends)
    step: Tensor = ((high - low).prod() / len(pixels)).sqrt().clamp_min(1e-6)
    return step


def _reached(squared: Float[Tensor, "n k"], weight: Float[Tensor, "n k"], step: Float[Tensor, ""]) -> Bool[Tensor, "n"]:
    """Whether a point of the front surface lies within 1.5 spacings of the landmark."""
    nearest = torch.where(weight > 0, squared, torch.inf).amin(1)
    return nearest <= (1.5 * step) ** 2


def _plane_value(
    offsets: Float[Tensor, "n k 2"], points: Float[Tensor, "n k 3"], weight: Float[Tensor, "n k"], step: Tensor
) -> Float[Tensor, "n 3"]:
    """The value at offset 0 of the affine map from image to scan. A small ridge on its slopes keeps a single row of
    points at a rim from tilting it."""
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)
    middle = (weight[..., None] * offsets).sum(1)
    centre = (weight[..., None] * points).sum(1)
    a = (offsets - middle[:, None]).double()
    b = (points - centre[:, None]).double()
    weighted = weight[..., None].double() * a
    ridge = 0.02 * step.double() ** 2 * torch.eye(2, dtype=torch.float64, device=points.device)
    slopes: Tensor = torch.linalg.solve(weighted.mT @ a + ridge, weighted.mT @ b)
    at_landmark = centre.double() - (middle.double()[:, None] @ slopes)[:, 0]
    return at_landmark.to(points.dtype)
