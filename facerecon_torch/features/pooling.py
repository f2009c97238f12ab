"""Votes -> cell histograms, by separable weights.

Along each axis a pixel at distance d from a cell's centre counts with the weight 1 - |d|/cell_px where positive
(uoctti: bilinear spatial voting) or 1 where |d| < cell_px/2 (dalal: none). Centres of uoctti maps lie on pixels, those
of dalal maps between pixels; as functions of the centre both weights are then linear between neighbouring nodes of a
stride-1 map (for dalal: of the covered share of each pixel), so that interpolating such a map is exact.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog_spec import HogSpec
from facerecon_torch.features.orientation import fold_bins, orientation_slots

__all__ = ["cell_weights", "first_node", "node_count", "pool_cells", "pool_dense"]


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


def pool_dense(
    slot: Int[Tensor, "b h w"], votes: Float[Tensor, "votes b h w"], spec: HogSpec
) -> Float[Tensor, "b rows columns bins"]:
    """Histograms of the cells centred at first_node + i stride, until they leave the crop; nothing votes outside it.

    A cell of width c is a weighted sum of cells of the stride's width s (a hat of width c is a sum of hats of width s
    where s divides c, and so is a box). So every pixel is dealt once, to the small cells around it, and the rest are
    two products with banded matrices.
    """
    rows, columns = (_node_weights(n, spec, votes) for n in slot.shape[1:])
    return pool_cells(fold_bins(_small_cells(slot, votes, spec), spec), rows, columns)


def _small_cells(
    slot: Int[Tensor, "b h w"], votes: Float[Tensor, "votes b h w"], spec: HogSpec
) -> Float[Tensor, "b small_rows small_columns slots"]:
    """Histograms of the cells of the stride's width.

    A pixel's votes for the cells beside and below it, and for the next slot, lie at fixed distances in memory: each
    such distance has sums of its own, all at the same index, and they are added up at the end. On a CPU the sums run
    in parallel, each in the order of the pixels; on CUDA the additions are atomic.
    """
    b, h, w = slot.shape
    n_rows, n_columns, slots = _small_count(h, spec), _small_count(w, spec), orientation_slots(spec)
    shares_y, shares_x = _small_shares(h, spec, votes), _small_shares(w, spec, votes)
    distances = [
        (y * n_columns + x) * slots + i
        for i in range(len(votes))
        for y in range(len(shares_y))
        for x in range(len(shares_x))
    ]
    node_y, node_x = (torch.arange(n, device=votes.device).add(spec.stride - 1) // spec.stride for n in (h, w))
    first = (torch.arange(b, device=votes.device)[:, None, None] * n_rows + node_y[:, None]) * n_columns + node_x
    length, lead = b * n_rows * n_columns * slots, distances[-1]
    index = (first * slots + slot + lead).reshape(1, -1).expand(len(distances), -1)
    shares = (shares_y[:, None, :, None] * shares_x[:, None, :]).reshape(1, -1, 1, h, w)
    dealt = (votes[:, None] * shares).reshape(len(distances), -1)
    sums = votes.new_zeros(len(distances), lead + length).scatter_add_(1, index, dealt)
    total = sums[0, lead:]
    for part, distance in zip(sums[1:], distances[1:]):
        total = total + part[lead - distance : lead - distance + length]
    return total.reshape(b, n_rows, n_columns, slots)


def _small_shares(extent: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "shares extent"]:
    """What a pixel gives to its cell of the stride's width and to the next one, one axis."""
    s = spec.stride
    if spec.variant == "dalal" or s == 1:
        return like.new_ones(1, extent)
    share = torch.arange(extent, device=like.device).add(s - 1).remainder(s).to(like.dtype) / s
    return torch.stack([1 - share, share])


def _small_count(extent: int, spec: HogSpec) -> int:
    """Cells of the stride's width that pixels of one axis give to; for hats one more, which may stay empty."""
    return (extent - 1 + spec.stride - 1) // spec.stride + (2 if spec.variant == "uoctti" else 1)


def _node_weights(extent: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "nodes small"]:
    """Weights of the cells of the stride's width for the cells of a dense map, one axis."""
    offset = 1.0 - spec.stride if spec.variant == "uoctti" else (1.0 - spec.stride) / 2
    n_small = _small_count(extent, spec)
    small = offset + spec.stride * torch.arange(n_small, device=like.device, dtype=like.dtype)
    nodes = torch.arange(node_count(extent, spec), device=like.device, dtype=like.dtype)
    return cell_weights(first_node(spec) + spec.stride * nodes, small, spec)
