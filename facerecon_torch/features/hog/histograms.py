"""Gradients -> orientation votes -> cell histograms, by separable weights -> descriptors, by contrast normalisation.

Along each axis a pixel at distance d from a cell's centre counts with the weight 1 - |d| / cell_px where positive
(uoctti: bilinear spatial voting) or 1 where |d| < cell_px / 2 (dalal: none). Centres of uoctti maps lie on pixels,
centres of dalal maps between pixels. As functions of the centre both weights are then linear between neighbouring nodes
of a stride-1 map (for dalal: of the covered share of each pixel), so that interpolating such a map is exact.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from facerecon_torch.features.hog.spec import HogSpec

__all__ = [
    "SHIFT",
    "cell_weights",
    "first_node",
    "node_count",
    "normalise",
    "numbers_per_pixel",
    "orientation_votes",
    "pool_cells",
    "pool_dense",
    "small_count",
    "split_by_bytes",
    "votes_by_bin",
    "votes_by_cell",
]

# Bins are 20 degrees wide. Directed bin k of uoctti is centred at 20 k degrees, undirected bin k of dalal spans
# [20 k, 20 (k + 1)). A pixel votes for bin floor(angle / 20 + shift), and with linear votes also for the next one.
SHIFT = {("uoctti", "linear"): 0.0, ("uoctti", "hard"): 0.5, ("dalal", "linear"): -0.5, ("dalal", "hard"): 0.0}

# Intermediate results of one group. On a CPU they should still be in the cache when they are read again, and every
# buffer below the size from which the allocator asks the system for fresh pages each time: groups of 64 MiB took three
# times as long per crop as groups of about one crop of 320 x 320. A GPU wants wide kernels instead.
_CPU_BYTES = 12 * 2**20
_GPU_BYTES = 2**30
_CLIP = 0.2
_UOCTTI_ENERGY_FLOOR = 1e-4  # added to the squared norm of a block, for pixel values in [0, 1]
_DALAL_NORM_FLOOR = 1e-5  # its square is added likewise


def orientation_votes(
    gx: Float[Tensor, "b h w"], gy: Float[Tensor, "b h w"], spec: HogSpec, weight: Float[Tensor, "b h w"] | None = None
) -> tuple[Int[Tensor, "b h w"], Float[Tensor, "votes b h w"]]:
    """The orientation bin of every pixel and its votes: the gradient's magnitude (x weight), and with linear votes the
    shares of it for that bin and for the next one.

    Angles run from +x to +y (down), clockwise to the eye. The bin after the last is the first; `_merge_votes` wraps
    round after summing, once per cell instead of once per pixel. Differentiable; with hard votes only through the
    magnitude.
    """
    squared = gx * gx + gy * gy
    # Not sqrt: its slope at a flat pixel is infinite. Here value and slope are 0.
    magnitude = squared * squared.clamp_min(torch.finfo(squared.dtype).tiny).rsqrt()
    magnitude = magnitude if weight is None else magnitude * weight
    angle = torch.atan2(gy, gx) * (9.0 / math.pi) + SHIFT[spec.variant, spec.vote]
    low = angle.detach().floor()
    # A NaN pixel must end as NaN in the answer, not as an index outside the bins.
    first_bin = torch.nan_to_num(low - spec.bins * (low / spec.bins).floor()).long()
    if spec.vote == "hard":
        return first_bin, magnitude[None]
    upper = (angle - low) * magnitude
    return first_bin, torch.stack([magnitude - upper, upper])


def votes_by_bin(
    first_bin: Int[Tensor, "b h w"], votes: Float[Tensor, "votes b h w"], spec: HogSpec
) -> Float[Tensor, "b h w bins"]:
    """The votes of every pixel as a histogram of its own. One scatter per vote needs no atomic additions."""
    image = votes.new_zeros((*first_bin.shape, spec.bins))
    for i, vote in enumerate(votes.unbind()):
        image.scatter_(-1, ((first_bin + i) % spec.bins)[..., None], vote[..., None])
    return image


def _merge_votes(sums: Float[Tensor, "votes *b bins"]) -> Float[Tensor, "*b bins"]:
    """One histogram from the sums of first votes and of second votes, both indexed by the first vote's bin."""
    if len(sums) == 1:
        return sums[0]
    return sums[0] + sums[1].roll(1, -1)


def cell_weights(
    centres: Float[Tensor, "cells"], positions: Float[Tensor, "pixels"], spec: HogSpec
) -> Float[Tensor, "cells pixels"]:
    """The weight of the pixel at each position for the cell at each centre, one axis, px."""
    distance = (centres[:, None] - positions).abs()
    if spec.variant == "uoctti":
        return (1 - distance / spec.cell_px).clamp_min(0)
    return (distance < spec.cell_px / 2).to(distance.dtype)


def pool_cells(
    votes: Float[Tensor, "b h w k"], rows: Float[Tensor, "cy h"], columns: Float[Tensor, "cx w"]
) -> Float[Tensor, "b cy cx k"]:
    """Weighted sums over both axes: two matrix products."""
    b, h, w, k = votes.shape
    by_row = (rows @ votes.reshape(b, h, w * k)).reshape(b, -1, w, k)
    return columns @ by_row


def first_node(spec: HogSpec) -> float:
    """The coordinate (px, both axes) of node 0 of a dense map. The cells of the outermost nodes just miss the crop."""
    if spec.variant == "uoctti":
        return float(1 - spec.stride - spec.cell_px)
    return (1 - spec.stride) / 2 - (spec.cell_px + spec.stride) / 2


def node_count(extent: int, spec: HogSpec) -> int:
    """Nodes of a dense map along an axis of `extent` px."""
    s, cell = spec.stride, spec.cell_px
    if spec.variant == "uoctti":
        return (extent + 2 * s - 3) // s + 1 + 2 * cell // s
    return (extent + s - 2) // s + 1 + cell // s + 1


def votes_by_cell(
    first_bin: Int[Tensor, "b h w"], votes: Float[Tensor, "votes b h w"], spec: HogSpec
) -> tuple[Int[Tensor, "b h w"], list[Float[Tensor, "votes b h w"]]]:
    """An index and the votes of every pixel for the (up to four) cells of the stride's width around it.

    A cell of width c is a weighted sum of cells of the stride's width s (a hat of width c is a sum of hats of width s
    where s divides c, and so is a box). So a pixel votes for small cells only, not for each cell of width c that it
    belongs to. The index is that of the pixel's bin in the first small cell, in the crop's array of small cells.
    """
    h, w = first_bin.shape[1:]
    first_y, first_x = (torch.arange(n, device=first_bin.device).add(spec.stride - 1) // spec.stride for n in (h, w))
    cell = first_y[:, None] * small_count(w, spec) + first_x
    rows, columns = (_small_shares(n, spec, votes) for n in (h, w))
    return cell * spec.bins + first_bin, [votes * (row[:, None] * column) for row in rows for column in columns]


def pool_dense(
    index: Int[Tensor, "b h w"], parts: list[Float[Tensor, "votes b h w"]], spec: HogSpec
) -> Float[Tensor, "b rows columns bins"]:
    """Histograms of the cells centred at first_node + i stride, from the answer of `votes_by_cell`.

    The votes are summed over the pixels of the small cells, then two products with banded matrices sum the small cells.
    The small cells beside and below a pixel's first one lie at fixed distances in memory, so one index serves them all,
    into sums that begin later. On a CPU the pixels are added in order; on CUDA the additions are atomic.
    """
    b, h, w = index.shape
    n_rows, n_columns = small_count(h, spec), small_count(w, spec)
    sums = parts[0].new_zeros(len(parts[0]), b, n_rows * n_columns * spec.bins)
    everywhere = index.flatten(-2).expand(len(sums), -1, -1)
    later = (0, spec.bins, n_columns * spec.bins, (n_columns + 1) * spec.bins)
    for begin, part in zip(later, parts):
        sums[..., begin:].scatter_add_(-1, everywhere, part.flatten(-2))
    small = _merge_votes(sums.reshape(sums.shape[0], b, n_rows, n_columns, spec.bins))
    return pool_cells(small, *(_node_weights(n, spec, small) for n in (h, w)))


def _small_shares(extent: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "shares extent"]:
    """The share of a pixel's vote for its first small cell and for the next one, one axis."""
    s = spec.stride
    if spec.variant == "dalal" or s == 1:
        return like.new_ones(1, extent)
    share = torch.arange(extent, device=like.device).add(s - 1).remainder(s).to(like.dtype) / s
    return torch.stack([1 - share, share])


def small_count(extent: int, spec: HogSpec) -> int:
    """The number of small cells (of the stride's width) along an axis; for hats one more, which may stay empty."""
    return (extent - 1 + spec.stride - 1) // spec.stride + (2 if spec.variant == "uoctti" else 1)


def _node_weights(extent: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "nodes small"]:
    """Weights of the small cells for the cells of a dense map, one axis."""
    offset = 1.0 - spec.stride if spec.variant == "uoctti" else (1.0 - spec.stride) / 2
    n_small = small_count(extent, spec)
    small = offset + spec.stride * torch.arange(n_small, device=like.device, dtype=like.dtype)
    nodes = torch.arange(node_count(extent, spec), device=like.device, dtype=like.dtype)
    return cell_weights(first_node(spec) + spec.stride * nodes, small, spec)


def numbers_per_pixel(spec: HogSpec) -> int:
    """Numbers held per pixel while votes are made: its histogram, and about ten gradients and indices."""
    return spec.bins + 10


def split_by_bytes(rows: Shaped[Tensor, "n *rest"], bytes_per_row: int) -> tuple[Shaped[Tensor, "m *rest"], ...]:
    """Groups of rows whose intermediate results stay within the device's budget, each of at least one row.

    One group where a graph is being recorded (torch.export, torch.compile): a graph has no loop over a number of groups
    that depends on the rows.
    """
    if torch.compiler.is_compiling():
        return (rows,)
    budget = _CPU_BYTES if rows.device.type == "cpu" else _GPU_BYTES
    return torch.split(rows, max(1, budget // bytes_per_row))


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
