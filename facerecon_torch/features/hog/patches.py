"""Crops + points -> square patches, resampled bilinearly."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["cut_patches", "inside_weights"]


def cut_patches(
    crops: Float[Tensor, "b c h w"],
    owner: Int[Tensor, "m"],
    points: Float[Tensor, "m 2"],
    *,
    before: int,
    size: int,
) -> Float[Tensor, "m c size size"]:
    """Patch m from crop owner[m]: its pixel (row i, column j) is the crop at p + (j - before, i - before) px.

    Outside the crop its border repeats. Exact at integer positions. Differentiable with respect to crops and points.
    A NaN point gives a NaN patch.
    """
    height, width = crops.shape[-2:]
    x, share_x = _window(points[:, 0], width, before, size)
    y, share_y = _window(points[:, 1], height, before, size)
    window = crops.permute(0, 2, 3, 1)[owner[:, None, None], y[:, :, None], x[:, None, :]]  # m size+1 size+1 c
    across = window[:, :, :-1] + share_x * (window[:, :, 1:] - window[:, :, :-1])
    patches = across[:, :-1] + share_y * (across[:, 1:] - across[:, :-1])
    return patches.permute(0, 3, 1, 2)


def inside_weights(points: Float[Tensor, "m"], extent: int, *, before: int, size: int) -> Float[Tensor, "m size"]:
    """On one axis: 1 for a pixel of the patch inside the crop, falling to 0 within one px beyond its border."""
    x = points[:, None] - before + torch.arange(size, device=points.device, dtype=points.dtype)
    return torch.minimum(x + 1, extent - x).clamp(0, 1)


def _window(
    points: Float[Tensor, "m"], extent: int, before: int, size: int
) -> tuple[Int[Tensor, "m window"], Float[Tensor, "m 1 1 1"]]:
    """Indices of the size + 1 pixels that a patch touches on one axis, and the share of the right-hand neighbours."""
    near = points.clamp(-2 * size, extent + 2 * size)  # farther out every pixel is the border's
    low = torch.nan_to_num(near.detach()).floor()
    steps = torch.arange(size + 1, device=points.device) - before
    index = (low.long()[:, None] + steps).clamp(0, extent - 1)
    return index, (near - low)[:, None, None, None]
