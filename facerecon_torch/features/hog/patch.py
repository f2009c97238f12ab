"""HOG of patches around landmarks. Every call cuts, resamples and describes every patch again."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog.gradients import as_channels, channel_gradients, dominant_gradient
from facerecon_torch.features.hog.histograms import (
    cell_weights,
    normalise,
    numbers_per_pixel,
    orientation_votes,
    pool_cells,
    split_by_bytes,
    votes_by_bin,
)
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["describe_patches", "patch_hog"]


@in_own_precision
def patch_hog(
    crops: Float[Tensor, "*b c h w"], points: Float[Tensor, "*b n 2"], spec: HogSpec, *, halo: bool
) -> Float[Tensor, "*b n length"]:
    """Descriptors of the patches around points. Differentiable with respect to crops and points.

    Args:
        crops: images in [0, 1] with 1 or 3 channels.
        points: centres of the patches in crop px.
        spec: geometry and variant.
        halo: False describes each patch on its own (`describe_patches`), with the crop's border repeated outside the
            crop. True widens the patch by the pixels and cells that voting and normalisation reach into; pixels outside
            the crop then cast no votes.

    Returns:
        A descriptor per point; NaN for a NaN point.

    Raises:
        ValueError: unless crops have 1 or 3 channels.

    Example:
        >>> patch_hog(torch.rand(2, 3, 96, 96), torch.full((2, 5, 2), 48.0), HogSpec(), halo=True).shape
        torch.Size([2, 5, 496])
    """
    flat = crops.reshape(-1, *crops.shape[-3:])
    centres = points.reshape(-1, 2)
    # Halo cells reach one and a half cells beyond the patch, and gradients one pixel more.
    margin = spec.halo * (spec.cell_px + spec.cell_px // 2) + 1 if halo else 0
    size = spec.patch_px + 2 * margin
    described = []
    indices = torch.arange(len(centres), device=points.device)
    for part in split_by_bytes(indices, numbers_per_pixel(spec) * size**2 * crops.element_size()):
        owner, at = part // points.shape[-2], centres[part]
        patches = _cut_patches(flat, owner, at, before=spec.patch_px // 2 + margin, size=size)
        if halo:
            described.append(_describe_with_halo(patches, at, flat.shape, spec, margin))
        else:
            described.append(describe_patches(patches, spec))
    return torch.cat(described).reshape(*points.shape[:-1], spec.length)


def describe_patches(patches: Float[Tensor, "m c size size"], spec: HogSpec) -> Float[Tensor, "m length"]:
    """Descriptors of patches that are already cut, without anything beyond their borders.

    Border pixels have no centred difference. As in the reference implementations, they cast no votes at all
    (`uoctti`: VLFeat), or only for the direction along the border (`dalal`: scikit-image).

    Args:
        patches: images in [0, 1] of `spec.patch_px` with 1 or 3 channels.
        spec: geometry and variant.

    Returns:
        A descriptor per patch.

    Raises:
        ValueError: unless patches have 1 or 3 channels.

    Example:
        >>> describe_patches(torch.rand(4, 3, 64, 64), HogSpec(variant="dalal")).shape
        torch.Size([4, 324])
    """
    across, down = channel_gradients(as_channels(patches, spec.colour))
    rim = torch.ones(spec.patch_px, device=patches.device, dtype=patches.dtype)
    rim[0] = rim[-1] = 0
    if spec.variant == "uoctti":
        across, down = (gradient * (rim[:, None] * rim) for gradient in (across, down))
    else:
        across, down = across * rim, down * rim[:, None]
    votes = votes_by_bin(*orientation_votes(*dominant_gradient(across, down), spec), spec)
    weights = _patch_weights(spec, like=patches, halo=0, margin=0)
    return normalise(pool_cells(votes, weights, weights), spec, 0)


def _describe_with_halo(
    patches: Float[Tensor, "m c size size"],
    points: Float[Tensor, "m 2"],
    crop_shape: torch.Size,
    spec: HogSpec,
    margin: int,
) -> Float[Tensor, "m length"]:
    """Descriptors of widened patches; pixels outside the crop cast no votes."""
    size = patches.shape[-1]
    before = spec.patch_px // 2 + margin
    inside_x = _inside_weights(points[:, 0], crop_shape[-1], before=before, size=size)
    inside_y = _inside_weights(points[:, 1], crop_shape[-2], before=before, size=size)
    gradient = dominant_gradient(*channel_gradients(as_channels(patches, spec.colour)))
    votes = votes_by_bin(*orientation_votes(*gradient, spec, inside_y[:, :, None] * inside_x[:, None, :]), spec)
    weights = _patch_weights(spec, like=patches, halo=spec.halo, margin=margin)
    return normalise(pool_cells(votes, weights, weights), spec, spec.halo)


def _patch_weights(spec: HogSpec, *, like: Tensor, halo: int, margin: int) -> Float[Tensor, "cells pixels"]:
    """Weights of the pixels of a (widened) patch for its cells, one axis."""
    pixels = torch.arange(-margin, spec.patch_px + margin, device=like.device, dtype=like.dtype)
    cells = torch.arange(-halo, spec.cells + halo, device=like.device, dtype=like.dtype)
    return cell_weights((cells + 0.5) * spec.cell_px - 0.5, pixels, spec)


def _cut_patches(
    crops: Float[Tensor, "b c h w"],
    owner: Int[Tensor, "m"],
    points: Float[Tensor, "m 2"],
    *,
    before: int,
    size: int,
) -> Float[Tensor, "m c size size"]:
    """Patches resampled bilinearly, patch m from crop owner[m]: its pixel (row i, column j) is the crop at
    p + (j - before, i - before) px.

    Outside the crop its border is repeated. Exact at integer positions. Differentiable with respect to crops and
    points. A NaN point gives a NaN patch.
    """
    height, width = crops.shape[-2:]
    x, share_x = _window(points[:, 0], width, before, size)
    y, share_y = _window(points[:, 1], height, before, size)
    window = crops.permute(0, 2, 3, 1)[owner[:, None, None], y[:, :, None], x[:, None, :]]  # m size+1 size+1 c
    across = window[:, :, :-1] + share_x * (window[:, :, 1:] - window[:, :, :-1])
    patches = across[:, :-1] + share_y * (across[:, 1:] - across[:, :-1])
    return patches.permute(0, 3, 1, 2)


def _inside_weights(points: Float[Tensor, "m"], extent: int, *, before: int, size: int) -> Float[Tensor, "m size"]:
    """Weights of the pixels of a patch, one axis: 1 inside the crop, falling to 0 within one px beyond its border."""
    x = points[:, None] - before + torch.arange(size, device=points.device, dtype=points.dtype)
    return torch.minimum(x + 1, extent - x).clamp(0, 1)


def _window(
    points: Float[Tensor, "m"], extent: int, before: int, size: int
) -> tuple[Int[Tensor, "m window"], Float[Tensor, "m 1 1 1"]]:
    """Indices of the size + 1 pixels that a patch touches on one axis, and the weight of the right-hand neighbours."""
    near = points.clamp(-2 * size, extent + 2 * size)  # farther out every pixel is the border's
    low = torch.nan_to_num(near.detach()).floor()
    steps = torch.arange(size + 1, device=points.device) - before
    index = (low.long()[:, None] + steps).clamp(0, extent - 1)
    return index, (near - low)[:, None, None, None]
