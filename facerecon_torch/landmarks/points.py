"""Every layout in which programs and files hold landmarks, as the 68 iBUG points or the 66 that the method uses."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.landmarks.scheme import N_CONTOUR, N_INNER, from_paper66, to_paper66

__all__ = [
    "LAYOUTS",
    "MESH_COUNTS",
    "are_shares",
    "as_points66",
    "count_broken",
    "is_layout",
    "require_origin",
    "to_ibug68",
]

MESH_COUNTS = (468, 478)  # of MediaPipe's face mesh, without and with the irises
_COUNTS = (68, 66, 51, N_INNER)
LAYOUTS = (
    "68 points (iBUG), 66 (paper order), 51 (iBUG 17..67), 49 (51 without 60 and 64), or 468 or 478 (MediaPipe's mesh)"
)
_FARTHEST_SHARE = 1.0  # outside the picture, of its size: a mesh goes on beyond the border


def is_layout(count: int, coordinates: int) -> bool:
    """Whether `count` points of so many coordinates are one of the LAYOUTS: x and y, of a mesh also x, y and z."""
    return (count in _COUNTS and coordinates == 2) or (count in MESH_COUNTS and coordinates in (2, 3))


def to_ibug68(points: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b 68 2"]:
    """The 68 iBUG points of one of the LAYOUTS, in the same unit; NaN for the contour where the layout has none.

    Args:
        points: in a layout that `is_layout` accepts.

    Example:
        >>> to_ibug68(torch.zeros(51, 2)).shape
        torch.Size([68, 2])
    """
    count = points.shape[-2]
    if count in MESH_COUNTS:
        from facerecon_torch.landmarks.mediapipe.mesh_points import mesh_to_ibug68  # loads the networks' package

        return mesh_to_ibug68(points)
    if count == 68:
        return points
    contour = points.new_full((*points.shape[:-2], N_CONTOUR, 2), torch.nan)
    if count == 51:
        return torch.cat([contour, points], dim=-2)
    return from_paper66(torch.cat([points, contour], dim=-2) if count == N_INNER else points)


def are_shares(points: Float[Tensor, "*b n c"]) -> bool:
    """Whether x and y of all points are shares of the picture's width and height; in px a face is larger than 3 px."""
    plane = points[..., :2]
    inside = (plane >= -_FARTHEST_SHARE) & (plane <= 1 + _FARTHEST_SHARE)
    return bool(plane.numel()) and bool(inside.all())


def count_broken(points: Float[Tensor, "*b 68 2"]) -> int:
    """The number of points that are not finite, apart from contours that are missing (NaN) as a whole."""
    broken = ~torch.isfinite(points).all(dim=-1)
    missing = torch.isnan(points[..., :N_CONTOUR, :]).flatten(-2).all(dim=-1, keepdim=True)
    return int(broken[..., N_CONTOUR:].sum()) + int((broken[..., :N_CONTOUR] & ~missing).sum())


def require_origin(key: str, origin: object) -> None:
    """Raise ValueError unless `origin`, the number of the first pixel's centre, is None, 0 or 1; `key` is how the user
    spells it."""
    if isinstance(origin, bool) or origin not in (None, 0, 1):
        raise ValueError(f"{key} must be 0 or 1; got {origin!r}")


def as_points66(landmarks: Any, convention: str | None = None) -> Float[Tensor, "*b 66 2"]:
    """The 66 points in px, in the paper's order, float32 or float64; lists of numbers become float64.

    A contour that is missing is NaN: fit, camera and features ignore it.

    Args:
        landmarks: a tensor, an array or nested lists [..., n, 2]: 68 points (iBUG), 66 (the paper's order), 51 (iBUG
            17..67), 49 (without 60 and 64), or 468 or 478 vertices of MediaPipe's face mesh, also [..., n, 3]. All 17
            points of a contour may be NaN.
        convention: that they must have, as far as the layout shows it: a mesh is mediapipe's; None: any.

    Raises:
        TypeError: numbers are expected.
        ValueError: another shape or convention, points that are not finite, or a mesh in shares of the picture's size.

    Example:
        >>> as_points66(torch.zeros(68, 2)).shape
        torch.Size([66, 2])
    """
    # torch would round the numbers of lists to its default dtype
    points = torch.as_tensor(_array(landmarks) if isinstance(landmarks, (list, tuple)) else landmarks)
    if points.is_complex() or points.dtype == torch.bool:
        raise TypeError(f"landmarks must be numbers in px; got {points.dtype}")
    if points.ndim < 2 or not is_layout(points.shape[-2], points.shape[-1]):
        raise ValueError(f"landmarks must be {LAYOUTS} of x and y; got shape {list(points.shape)}")
    if points.shape[-2] in MESH_COUNTS and convention not in (None, "mediapipe"):
        raise ValueError(f"landmarks must be of the convention {convention}, as the cascade; got MediaPipe's mesh")
    if points.dtype not in (torch.float32, torch.float64):
        points = points.to(torch.float64)
    if points.shape[-2] in MESH_COUNTS and are_shares(points):
        raise ValueError("landmarks must be in px; got shares of the picture's size: x is share * width - 0.5")
    ibug = to_ibug68(points)
    if count_broken(ibug):
        raise ValueError("landmarks must be finite; got NaN or infinity")
    return points if points.shape[-2] == 66 else to_paper66(ibug)


def _array(landmarks: Any) -> NDArray[np.float64]:
    """Nested lists, which may hold arrays and tensors, as one array."""
    try:
        return np.array(landmarks, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"landmarks must be numbers in px in lists of equal length; {error}") from error
