"""Cell histograms -> descriptors: the two contrast normalisations."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["normalise"]

_CLIP = 0.2
_UOCTTI_ENERGY_FLOOR = 1e-4  # added to the squared norm of a block, for pixel values in [0, 1]
_DALAL_NORM_FLOOR = 1e-5  # its square is added likewise


def normalise(histograms: Float[Tensor, "*b cy cx bins"], spec: HogSpec, halo: int) -> Float[Tensor, "*b length"]:
    """The descriptor of a patch from its cells, `halo` of them beyond the patch on every side.

    Order: cells row by row, then the 31 channels of `uoctti`; or blocks row by row, then the 2x2 cells of the block,
    then 9 bins for `dalal`.
    """
    if spec.variant == "dalal":
        return _normalise_dalal(histograms / spec.cell_px**2)
    return _normalise_uoctti(histograms, halo)


def _normalise_uoctti(histograms: Float[Tensor, "*b cy cx 18"], halo: int) -> Float[Tensor, "*b length"]:
    """The 31 channels per cell [Felzenszwalb et al. 2010, section 6]: 18 directed bins, 9 undirected, 4 energies.

    A cell is divided by the norm (of undirected bins) of each of the four 2x2 blocks that hold it (upper left, upper
    right, lower left, lower right) and clipped at 0.2. A bin is half the sum of its four values; a texture energy is
    the sum of the 9 clipped undirected bins under one norm / sqrt(18). With halo = 0 the norms repeat the border cells.
    """
    undirected = histograms[..., :9] + histograms[..., 9:]
    energy = undirected.square().sum(-1)
    if halo:
        inner = (..., slice(halo, -halo), slice(halo, -halo), slice(None))
        histograms, undirected = histograms[inner], undirected[inner]
    else:
        flat = F.pad(energy.flatten(0, -3)[:, None], (1, 1, 1, 1), mode="replicate")
        energy = flat.reshape(*energy.shape[:-2], *flat.shape[-2:])
    block = energy[..., :-1, :] + energy[..., 1:, :]
    inverse = (block[..., :-1] + block[..., 1:] + _UOCTTI_ENERGY_FLOOR).rsqrt()
    upper, lower = inverse[..., :-1, :], inverse[..., 1:, :]
    factors = (upper[..., :-1], upper[..., 1:], lower[..., :-1], lower[..., 1:])
    cells = torch.cat([histograms, undirected], dim=-1)
    clipped = [(cells * factor[..., None]).clamp_max(_CLIP) for factor in factors]
    texture = torch.stack([c[..., 18:].sum(-1) for c in clipped], dim=-1) / math.sqrt(18)
    bins = 0.5 * (clipped[0] + clipped[1] + clipped[2] + clipped[3])
    return torch.cat([bins, texture], dim=-1).flatten(-3)


def _normalise_dalal(histograms: Float[Tensor, "*b cy cx 9"]) -> Float[Tensor, "*b length"]:
    """L2-Hys of every 2x2 block of cells [Dalal and Triggs 2005]: unit length, clipped at 0.2, unit length again."""
    upper, lower = histograms[..., :-1, :, :], histograms[..., 1:, :, :]
    cells = (upper[..., :-1, :], upper[..., 1:, :], lower[..., :-1, :], lower[..., 1:, :])
    blocks = torch.cat(cells, dim=-1)
    return _unit_length(_unit_length(blocks).clamp_max(_CLIP)).flatten(-3)


def _unit_length(blocks: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    return blocks * (blocks.square().sum(-1, keepdim=True) + _DALAL_NORM_FLOOR**2).rsqrt()
