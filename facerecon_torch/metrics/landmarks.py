"""Normalised mean error (NME) of 68 landmarks, overall and by yaw as on AFLW2000-3D."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["YAW_BINS", "YawErrors", "errors_by_yaw", "landmark_nme"]

YAW_BINS = (
    (0.0, 30.0),
    (30.0, 60.0),
    (60.0, 90.0),
)  # degrees of |yaw|; the lower end is closed in the first bin only
_OUTER_EYE_CORNERS = (36, 45)


def landmark_nme(
    estimate: Float[Tensor, "*b 68 2"], truth: Float[Tensor, "*b 68 2"], *, normaliser: str = "box"
) -> Float[Tensor, "*b"]:
    """100 times the mean distance over the 68 iBUG points (px), divided by the size of the true face (px).

    The size is sqrt(width height) of the true points' box (`box`, AFLW2000-3D) or the distance of the outer
    eye corners (`interocular`, 300-W). Raises ValueError for another normaliser.
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
    """Mean error and number of images per bin of |yaw|; mean and population standard deviation of the three
    means."""

    bins: Float[Tensor, "3"]
    counts: tuple[int, ...]
    mean: float
    deviation: float


def errors_by_yaw(errors: Float[Tensor, "n"], yaw_degrees: Float[Tensor, "n"]) -> YawErrors:
    """The AFLW2000-3D table: images beyond 90 degrees are left out, an empty bin is NaN and makes `mean`
    NaN."""
    turn = yaw_degrees.abs()
    inside = [((turn > low) | (low == 0)) & (turn <= high) for low, high in YAW_BINS]
    bins = torch.stack([errors[rows].mean() for rows in inside])
    counts = tuple(int(rows.sum()) for rows in inside)
    return YawErrors(bins, counts, float(bins.mean()), float(bins.std(correction=0)))
