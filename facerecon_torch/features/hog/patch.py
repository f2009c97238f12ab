"""HOG of patches around the landmarks: every call cuts and describes every patch again."""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog.gradients import channel_gradients, dominant_gradient
from facerecon_torch.features.hog.normalisation import normalise
from facerecon_torch.features.hog.orientation import deal_votes, orientation_votes
from facerecon_torch.features.hog.patches import cut_patches, inside_weights
from facerecon_torch.features.hog.pooling import cell_weights, pool_cells
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.hog.tiles import numbers_per_pixel, split_by_bytes

__all__ = ["describe_patches", "patch_hog"]


def patch_hog(
    crops: Float[Tensor, "*b c h w"], points: Float[Tensor, "*b n 2"], spec: HogSpec, *, halo: bool
) -> Float[Tensor, "*b n length"]:
    """Descriptors of the patches around points in crop px.

    `halo=False`: each patch on its own (`describe_patches`); outside the crop its border repeats.
    `halo=True`: the patch is widened by the pixels and cells that voting and normalisation reach into; pixels outside
    the crop cast no votes. Differentiable with respect to crops and points. A NaN point gives NaN. Raises ValueError
    unless crops have 1 or 3 channels.
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
        patches = cut_patches(flat, owner, at, before=spec.patch_px // 2 + margin, size=size)
        if halo:
            described.append(_describe_with_halo(patches, at, flat.shape, spec, margin))
        else:
            described.append(describe_patches(patches, spec))
    return torch.cat(described).reshape(*points.shape[:-1], spec.length)


def describe_patches(patches: Float[Tensor, "m c size size"], spec: HogSpec) -> Float[Tensor, "m length"]:
    """Descriptors of ready patches of `spec.patch_px`, nothing known beyond their borders.

    Border pixels have no centred difference. As in the reference implementations, they cast no votes at all
    (`uoctti`: VLFeat), or only for the direction along the border (`dalal`: scikit-image).
    """
    across, down = channel_gradients(patches, spec.colour)
    rim = torch.ones(spec.patch_px, device=patches.device, dtype=patches.dtype)
    rim[0] = rim[-1] = 0
    if spec.variant == "uoctti":
        across, down = (gradient * (rim[:, None] * rim) for gradient in (across, down))
    else:
        across, down = across * rim, down * rim[:, None]
    votes = deal_votes(*orientation_votes(*dominant_gradient(across, down), spec), spec)
    weights = _patch_weights(spec, like=patches, halo=0, margin=0)
    return normalise(pool_cells(votes, weights, weights), spec, 0)


def _describe_with_halo(
    patches: Float[Tensor, "m c size size"],
    points: Float[Tensor, "m 2"],
    crop_shape: torch.Size,
    spec: HogSpec,
    margin: int,
) -> Float[Tensor, "m length"]:
    size = patches.shape[-1]
    before = spec.patch_px // 2 + margin
    inside_x = inside_weights(points[:, 0], crop_shape[-1], before=before, size=size)
    inside_y = inside_weights(points[:, 1], crop_shape[-2], before=before, size=size)
    gradient = dominant_gradient(*channel_gradients(patches, spec.colour))
    votes = deal_votes(*orientation_votes(*gradient, spec, inside_y[:, :, None] * inside_x[:, None, :]), spec)
    weights = _patch_weights(spec, like=patches, halo=spec.halo, margin=margin)
    return normalise(pool_cells(votes, weights, weights), spec, spec.halo)


def _patch_weights(spec: HogSpec, *, like: Tensor, halo: int, margin: int) -> Float[Tensor, "cells pixels"]:
    """Weights of the pixels of a (widened) patch for its cells on one axis, from the patch's first own pixel on."""
    pixels = torch.arange(-margin, spec.patch_px + margin, device=like.device, dtype=like.dtype)
    cells = torch.arange(-halo, spec.cells + halo, device=like.device, dtype=like.dtype)
    return cell_weights((cells + 0.5) * spec.cell_px - 0.5, pixels, spec)
