"""Normalised mean error (NME) of 68 landmarks, its mean by yaw as on AFLW2000-3D, and its cumulative distribution."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["YAW_BINS", "YawErrors", "area_under_ced", "cumulative_error", "errors_by_yaw", "landmark_nme"]

YAW_BINS = ((0.0, 30.0), (30.0, 60.0), (60.0, 90.0))
"""Degrees of |yaw|; the lower end is closed in the first bin only."""
_OUTER_EYE_CORNERS = (36, 45)


def landmark_nme(
    estimate: Float[Tensor, "*b 68 2"], truth: Float[Tensor, "*b 68 2"], *, normaliser: str = "box"
) -> Float[Tensor, "*b"]:
    """100 times the mean distance of the 68 iBUG points, divided by the size of the true face; NaN where one is
    missing.

    Args:
        estimate: points in px.
        truth: true points in px.
        normaliser: `box`, sqrt(width height) of the true points' box (AFLW2000-3D), or `interocular`, the distance of
            the outer eye corners (300-W).

    Raises:
        ValueError: another normaliser.

    Example:
        >>> landmark_nme(estimate, truth).mean()
    """
    distance: Tensor = torch.linalg.vector_norm(estimate - truth, dim=-1).mean(-1)
    if normaliser == "box":
        size = (truth.amax(-2) - truth.amin(-2)).prod(-1).sqrt()
    elif normaliser == "interocular":
        left, right = _OUTER_EYE_CORNERS
        size = torch.linalg.vector_norm(truth[..., left, :] - truth[..., right, :], dim=-1)
    else:
        raise ValueError(f"normaliser must be box or interocular; got {normaliser!r}")
    return 100 * distance / size


@dataclass(frozen=True)
class YawErrors:
    """Mean error and number of images per bin of |yaw|; mean and population standard deviation of the three means."""

    bins: Float[Tensor, "3"]
    counts: tuple[int, ...]
    mean: float
    deviation: float


def errors_by_yaw(errors: Float[Tensor, "n"], yaw_degrees: Float[Tensor, "n"]) -> YawErrors:
    """The table of AFLW2000-3D: images beyond 90 degrees are left out; an empty bin is NaN, and so is `mean` then."""
    turn = yaw_degrees.abs()
    inside = [((turn > low) | (low == 0)) & (turn <= high) for low, high in YAW_BINS]
    bins = torch.stack([errors[rows].mean() for rows in inside])
    counts = tuple(int(rows.sum()) for rows in inside)
    return YawErrors(bins, counts, float(bins.mean()), float(bins.std(correction=0)))


def cumulative_error(errors: Float[Tensor, "n"], thresholds: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """Share of images whose error is at most each threshold (same unit). A NaN error counts as a failure.

    Raises ValueError where there are no errors.
    """
    _require_some(errors)
    return (errors[:, None] <= thresholds).to(errors.dtype).mean(0)


def area_under_ced(errors: Float[Tensor, "n"], limit: float) -> Float[Tensor, ""]:
    """Exact area under the cumulative error distribution from 0 to `limit`, divided by `limit`: 1 if every error is 0.

    A NaN error adds nothing. Raises ValueError where there are no errors or `limit` is not positive.
    """
    _require_some(errors)
    if not limit > 0:
        raise ValueError(f"limit must be positive; got {limit}")
    return (1 - errors / limit).clamp_min(0).nan_to_num(0).mean()


def _require_some(errors: Tensor) -> None:
    if errors.numel() == 0:
        raise ValueError("errors must hold at least one image; got none")
