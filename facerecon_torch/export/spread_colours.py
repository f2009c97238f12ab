"""Colours of few places of an image spread over all of it, through ever coarser images."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

__all__ = ["ENOUGH", "SLIGHT", "spread_colours"]

ENOUGH = 0.25
"""Weight from which a place needs no colours of its neighbours."""
SLIGHT = 1e-3
"""The least weight that is divided by."""


def spread_colours(layers: Float[Tensor, "1 4 height width"]) -> Float[Tensor, "1 3 height width"]:
    """The premultiplied colours divided by their weight, the fourth channel; where it is small, those of a coarser
    image, and grey where there are none."""
    height, width = layers.shape[-2:]
    weight = layers[:, 3:]
    if max(height, width) == 1:
        return torch.where(weight > 0, layers[:, :3] / weight, 0.5)
    own = layers[:, :3] / weight.clamp_min(SLIGHT)
    coarse = avg_pool2d(layers, 2, ceil_mode=True, count_include_pad=False)
    below = interpolate(spread_colours(coarse), size=(height, width), mode="bilinear")
    return torch.lerp(below, own, (weight / ENOUGH).clamp(0, 1))
