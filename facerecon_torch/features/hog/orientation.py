"""Gradient -> the vote, or the two votes, of every pixel for the orientation bins."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["SHIFT", "deal_votes", "merge_votes", "orientation_votes"]

# Bins are 20 degrees wide. Directed bin k of uoctti is centred at 20 k degrees, undirected bin k of dalal spans
# [20 k, 20 (k + 1)). A pixel votes for bin floor(angle / 20 + shift), and with linear votes also for the next one.
SHIFT = {("uoctti", "linear"): 0.0, ("uoctti", "hard"): 0.5, ("dalal", "linear"): -0.5, ("dalal", "hard"): 0.0}


def orientation_votes(
    gx: Float[Tensor, "b h w"], gy: Float[Tensor, "b h w"], spec: HogSpec, weight: Float[Tensor, "b h w"] | None = None
) -> tuple[Int[Tensor, "b h w"], Float[Tensor, "votes b h w"]]:
    """Orientation bin of every pixel; its gradient magnitude (x weight), or with linear votes the two shares of it:
    the first for that bin, the second for the next. Angles run from +x to +y (down), clockwise to the eye.

    The bin after the last is the first: `merge_votes` sees to it after summing, which spares every pixel a wrap.
    Differentiable; with hard votes only through the magnitude.
    """
    squared = gx * gx + gy * gy
    # Not sqrt: its slope at a flat pixel is infinite. Here value and slope are 0.
    magnitude = squared * squared.clamp_min(torch.finfo(squared.dtype).tiny).rsqrt()
    magnitude = magnitude if weight is None else magnitude * weight
    angle = torch.atan2(gy, gx) * (9.0 / math.pi) + SHIFT[spec.variant, spec.vote]
    low = angle.detach().floor()
    # A NaN pixel must end as NaN in the answer, not as an index outside the bins.
    own = torch.nan_to_num(low - spec.bins * (low / spec.bins).floor()).long()
    if spec.vote == "hard":
        return own, magnitude[None]
    upper = (angle - low) * magnitude
    return own, torch.stack([magnitude - upper, upper])


def deal_votes(
    own: Int[Tensor, "b h w"], votes: Float[Tensor, "votes b h w"], spec: HogSpec
) -> Float[Tensor, "b h w bins"]:
    """The votes of every pixel laid out by bin. Without atomics: one scatter per vote."""
    image = votes.new_zeros((*own.shape, spec.bins))
    for i, vote in enumerate(votes.unbind()):
        image.scatter_(-1, ((own + i) % spec.bins)[..., None], vote[..., None])
    return image


def merge_votes(sums: Float[Tensor, "votes *b bins"]) -> Float[Tensor, "*b bins"]:
    """Histograms of first and of second votes, by the first's bin and summed over whatever pixels, to one."""
    if len(sums) == 1:
        return sums[0]
    return sums[0] + sums[1].roll(1, -1)
