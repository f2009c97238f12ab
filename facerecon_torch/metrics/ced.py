"""Cumulative error distribution: the share of images with an error of at most t, and the area under it."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["area_under_ced", "cumulative_error"]


def cumulative_error(errors: Float[Tensor, "n"], thresholds: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """Share of images whose error is at most each threshold (same unit). A NaN error counts as a failure."""
    _require_some(errors)
    return (errors[:, None] <= thresholds).to(errors.dtype).mean(0)


def area_under_ced(errors: Float[Tensor, "n"], limit: float) -> Float[Tensor, ""]:
    """Exact area under the curve from 0 to `limit`, divided by `limit`: 1 where every error is 0. NaN adds
    nothing."""
    _require_some(errors)
    if not limit > 0:
        raise ValueError(f"limit must be positive; got {limit}")
    return (1 - errors / limit).clamp_min(0).nan_to_num(0).mean()


def _require_some(errors: Tensor) -> None:
    if errors.numel() == 0:
        raise ValueError("errors must hold at least one image; got none")
