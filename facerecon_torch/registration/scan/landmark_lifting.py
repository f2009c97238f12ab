"""Image landmarks to points of the scan."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.checks import require_shape

__all__ = ["lift_landmarks"]

_NEIGHBOURS = 12
_REACH = 2.0  # spacings of the scan's points in the image: further away there is no scan behind the landmark
_DEEP_MM = 8.0  # points that far behind the front one belong to another surface


@torch.no_grad()
def lift_landmarks(points: Tensor, valid: Tensor, pixels: Tensor, landmarks: Tensor) -> Tensor:
    """Points [n, 3] in mm of a scan under image landmarks [n, 2] in px; NaN where the scan has none.

    `points` [..., 3], `valid` [...] and `pixels` [..., 2] are a grid or a list of vertices with their places in the
    image. Each landmark takes a plane through its nearest valid points on the front surface, so the answer does not
    jump from point to point. Landmarks that are NaN stay NaN. Raises ValueError for shapes that do not fit.
    """
    require_shape("points", points, (3,))
    require_shape("valid", valid, tuple(points.shape[:-1]))
    require_shape("pixels", pixels, (*points.shape[:-1], 2))
    require_shape("landmarks", landmarks, (None, 2))
    known = valid.bool() & torch.isfinite(points).all(-1) & torch.isfinite(pixels).all(-1)
    found = landmarks.to(points)
    if int(known.sum()) < _NEIGHBOURS:
        return points.new_full((len(landmarks), 3), torch.nan)
    return _lift(points[known], pixels[known].to(points), found)


def _lift(
    points: Float[Tensor, "m 3"], pixels: Float[Tensor, "m 2"], landmarks: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 3"]:
    asked = torch.isfinite(landmarks).all(-1)
    targets = torch.where(asked[:, None], landmarks, 0.0)
    squared, near = (targets[:, None] - pixels).square().sum(-1).topk(_NEIGHBOURS, largest=False)
    step = _spacing(pixels)
    seen = points[near]
    front = seen[..., 2].amax(1, keepdim=True) - seen[..., 2] <= _DEEP_MM
    within = squared <= (_REACH * step) ** 2
    weight = torch.where(front & within, torch.exp(-squared / (2 * step**2)), 0.0)
    lifted = _plane(pixels[near] - targets[:, None], seen, weight, step)
    hit = asked & (weight.sum(1) > 0) & _reached(squared, weight, step)
    return torch.where(hit[:, None], lifted, torch.nan)


def _spacing(pixels: Float[Tensor, "m 2"]) -> Float[Tensor, ""]:
    """Distance in px between neighbouring scan points, from their number and the box that holds nearly all of them."""
    ends = (max(1, len(pixels) // 50), max(1, len(pixels) - len(pixels) // 50))
    low, high = (torch.stack([column.kthvalue(k).values for column in pixels.unbind(1)]) for k in ends)
    step: Tensor = ((high - low).prod() / len(pixels)).sqrt().clamp_min(1e-6)
    return step


def _reached(squared: Float[Tensor, "n k"], weight: Float[Tensor, "n k"], step: Float[Tensor, ""]) -> Bool[Tensor, "n"]:
    """The landmark lies on the scan: a point of the front surface within 1.5 spacings."""
    nearest = torch.where(weight > 0, squared, torch.inf).amin(1)
    return nearest <= (1.5 * step) ** 2


def _plane(
    offsets: Float[Tensor, "n k 2"], points: Float[Tensor, "n k 3"], weight: Float[Tensor, "n k"], step: Tensor
) -> Float[Tensor, "n 3"]:
    """The value at offset 0 of the affine map from image to scan; a small ridge on its slopes keeps a single row of
    points, at a rim, from tilting it."""
    share = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)
    middle = (share[..., None] * offsets).sum(1)
    centre = (share[..., None] * points).sum(1)
    a = (offsets - middle[:, None]).double()
    b = (points - centre[:, None]).double()
    weighted = share[..., None].double() * a
    ridge = 0.02 * step.double() ** 2 * torch.eye(2, dtype=torch.float64, device=points.device)
    slopes: Tensor = torch.linalg.solve(weighted.mT @ a + ridge, weighted.mT @ b)
    at_landmark = centre.double() - (middle.double()[:, None] @ slopes)[:, 0]
    return at_landmark.to(points.dtype)
