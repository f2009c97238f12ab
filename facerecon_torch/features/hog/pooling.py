"""Votes -> cell histograms, by separable weights.

Along each axis a pixel at distance d from a cell's centre counts with the weight 1 - |d|/cell_px where positive
(uoctti: bilinear spatial voting) or 1 where |d| < cell_px/2 (dalal: none). Centres of uoctti maps lie on pixels, those
of dalal maps between pixels; as functions of the centre both weights are then linear between neighbouring nodes of a
stride-1 map (for dalal: of the covered share of each pixel), so that interpolating such a map is exact.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog.orientation import merge_votes
from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["cell_weights", "deal_to_cells", "first_node", "node_count", "pool_cells", "pool_dense", "small_count"]


def cell_weights(
    centres: Float[Tensor, "cells"], positions: Float[Tensor, "pixels"], spec: HogSpec
) -> Float[Tensor, "cells pixels"]:
    """Weight of the pixel at every position for the cell at every centre, one axis, px."""
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
    """Coordinate (px, both axes) of node 0 of a dense map. Its cell just misses the crop, as does the last one's."""
    if spec.variant == "uoctti":
        return float(1 - spec.stride - spec.cell_px)
    return (1 - spec.stride) / 2 - (spec.cell_px + spec.stride) / 2


def node_count(extent: int, spec: HogSpec) -> int:
    """Nodes of a dense map along an axis of `extent` px."""
    s, cell = spec.stride, spec.cell_px
    if spec.variant == "uoctti":
        return (extent + 2 * s - 3) // s + 1 + 2 * cell // s
    return (extent + s - 2) // s + 1 + cell // s + 1


def deal_to_cells(
    own: Int[Tensor, "b h w"], votes: Float[Tensor, "votes b h w"], spec: HogSpec
) -> tuple[Int[Tensor, "b h w"], list[Float[Tensor, "votes b h w"]]]:
    """What every pixel gives to the (up to four) cells of the stride's width around it, and where to.

    A cell of width c is a weighted sum of cells of the stride's width s (a hat of width c is a sum of hats of width s
    where s divides c, and so is a box), so that a pixel need not be dealt to all cells of width c that it belongs to.
    The index is that of the pixel's bin in the first of the cells, in a crop's array of small cells.
    """
    h, w = own.shape[1:]
    first_y, first_x = (torch.arange(n, device=own.device).add(spec.stride - 1) // spec.stride for n in (h, w))
    cell = first_y[:, None] * small_count(w, spec) + first_x
    rows, columns = (_small_shares(n, spec, votes) for n in (h, w))
    return cell * spec.bins + own, [votes * (row[:, None] * column) for row in rows for column in columns]


def pool_dense(
    index: Int[Tensor, "b h w"], parts: list[Float[Tensor, "votes b h w"]], spec: HogSpec
) -> Float[Tensor, "b rows columns bins"]:
    """Histograms of the cells centred at first_node + i stride, until they leave the crop; nothing votes outside it.

    From `deal_to_cells`: sums over the pixels of the small cells, then two products with banded matrices. The small
    cells beside and below a pixel's first one lie at fixed distances in memory: the same index serves them all, into
    sums that begin later. Each sum is in the order of the pixels on a CPU; on CUDA the additions are atomic.
    """
    b, h, w = index.shape
    n_rows, n_columns = small_count(h, spec), small_count(w, spec)
    sums = parts[0].new_zeros(len(parts[0]), b, n_rows * n_columns * spec.bins)
    everywhere = index.flatten(-2).expand(len(sums), -1, -1)
    later = (0, spec.bins, n_columns * spec.bins, (n_columns + 1) * spec.bins)
    for begin, part in zip(later, parts):
        sums[..., begin:].scatter_add_(-1, everywhere, part.flatten(-2))
    small = merge_votes(sums.reshape(-1, b, n_rows, n_columns, spec.bins))
    return pool_cells(small, *(_node_weights(n, spec, small) for n in (h, w)))


def _small_shares(extent: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "shares extent"]:
    """What a pixel gives to its cell of the stride's width and to the next one, one axis."""
    s = spec.stride
    if spec.variant == "dalal" or s == 1:
        return like.new_ones(1, extent)
    share = torch.arange(extent, device=like.device).add(s - 1).remainder(s).to(like.dtype) / s
    return torch.stack([1 - share, share])


def small_count(extent: int, spec: HogSpec) -> int:
    """Cells of the stride's width that pixels of one axis give to; for hats one more, which may stay empty."""
    return (extent - 1 + spec.stride - 1) // spec.stride + (2 if spec.variant == "uoctti" else 1)


def _node_weights(extent: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "nodes small"]:
    """Weights of the cells of the stride's width for the cells of a dense map, one axis."""
    offset = 1.0 - spec.stride if spec.variant == "uoctti" else (1.0 - spec.stride) / 2
    n_small = small_count(extent, spec)
    small = offset + spec.stride * torch.arange(n_small, device=like.device, dtype=like.dtype)
    nodes = torch.arange(node_count(extent, spec), device=like.device, dtype=like.dtype)
    return cell_weights(first_node(spec) + spec.stride * nodes, small, spec)
