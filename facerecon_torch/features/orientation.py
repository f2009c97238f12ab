"""Gradient -> votes of every pixel for the orientation bins, without atomics: one scatter per vote."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog_spec import HogSpec

__all__ = ["fold_bins", "orientation_votes"]

# Bins are 20 degrees wide. Directed bin k of uoctti is centred at 20 k degrees, undirected bin k of dalal spans
# [20 k, 20 (k + 1)). A pixel votes for bin floor(angle / 20 + shift), and with linear votes also for the next one.
_SHIFT = {("uoctti", "linear"): 0.0, ("uoctti", "hard"): 0.5, ("dalal", "linear"): -0.5, ("dalal", "hard"): 0.0}


def orientation_votes(
    gradient: Float[Tensor, "b 2 h w"], spec: HogSpec, weight: Float[Tensor, "b h w"] | None = None
) -> Float[Tensor, "b h w slots"]:
    """Gradient magnitude (x weight), dealt to orientation slots. Angles run from +x to +y (down), clockwise to the eye.

    Linear votes need one slot more than there are bins: the last slot is the first bin again (`fold_bins` adds it),
    which spares every pixel a wrap. Differentiable; with hard votes only through the magnitude.
    """
    gx, gy = gradient.unbind(1)
    squared = gx * gx + gy * gy
    # Not sqrt: its slope at a flat pixel is infinite. Here value and slope are 0.
    magnitude = squared * squared.clamp_min(torch.finfo(squared.dtype).tiny).rsqrt()
    magnitude = magnitude if weight is None else magnitude * weight
    angle = torch.atan2(gy, gx) * (9.0 / math.pi) + _SHIFT[spec.variant, spec.vote]
    low = angle.detach().floor()
    # A NaN pixel must end as NaN in the answer, not as an index outside the slots.
    slot = torch.nan_to_num(low - spec.bins * (low / spec.bins).floor()).long()[..., None]
    votes = magnitude.new_zeros((*magnitude.shape, _slots(spec)))
    if spec.vote == "hard":
        return votes.scatter_(-1, slot, magnitude[..., None])
    upper = (angle - low) * magnitude
    votes.scatter_(-1, slot, (magnitude - upper)[..., None])
    return votes.scatter_(-1, slot + 1, upper[..., None])


def fold_bins(votes: Float[Tensor, "*b slots"], spec: HogSpec) -> Float[Tensor, "*b bins"]:
    """Slots of `orientation_votes`, summed over whatever pixels, to orientation bins."""
    if spec.vote == "hard":
        return votes
    first = votes[..., :1] + votes[..., -1:]
    return torch.cat([first, votes[..., 1:-1]], dim=-1)


def _slots(spec: HogSpec) -> int:
    return spec.bins if spec.vote == "hard" else spec.bins + 1
