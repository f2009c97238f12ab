"""Votes -> cell histograms, by separable weights.

Along each axis a pixel at distance d from a cell's centre counts with the weight 1 - |d|/cell_px where positive
(uoctti: bilinear spatial voting) or 1 where |d| < cell_px/2 (dalal: none). Centres of uoctti maps lie on pixels, those
of dalal maps between pixels; as functions of the centre both weights are then linear between neighbouring nodes of a
stride-1 map (for dalal: of the covered share of each pixel), so that interpolating such a map is exact.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog_spec import HogSpec

__all__ = ["cell_weights", "first_node", "pool_cells", "pool_dense"]


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


def pool_dense(votes: Float[Tensor, "b h w k"], spec: HogSpec) -> Float[Tensor, "b rows columns k"]:
    """Histograms of the cells centred at first_node + i stride, until they leave the crop; nothing votes outside it.

    A cell's weights are a short kernel of the stride's size, applied at the stride, followed by sums over nodes (a hat
    of width c is a sum of hats of width s where s divides c, and so is a box): each vote is read once.
    """
    k, s = votes.shape[-1], spec.stride
    taps = torch.arange(1 - s, s, device=votes.device, dtype=votes.dtype)
    taps = 1 - taps.abs() / s if spec.variant == "uoctti" else torch.ones_like(taps[:s])
    kernel = (taps[:, None] * taps).expand(k, 1, -1, -1)
    small = F.conv2d(votes.permute(0, 3, 1, 2), kernel, stride=s, padding=len(taps) - 1, groups=k)
    small = small.permute(0, 2, 3, 1)
    return pool_cells(small, *(_node_weights(n, spec, votes) for n in small.shape[1:3]))


def _node_weights(n_small: int, spec: HogSpec, like: Tensor) -> Float[Tensor, "nodes small"]:
    """Weights of the kernel nodes (n_small of them) for the cells of a dense map, one axis."""
    offset = 1.0 - spec.stride if spec.variant == "uoctti" else (1.0 - spec.stride) / 2
    n_nodes = n_small + round(2 * (offset - first_node(spec)) / spec.stride)
    small = offset + spec.stride * torch.arange(n_small, device=like.device, dtype=like.dtype)
    nodes = first_node(spec) + spec.stride * torch.arange(n_nodes, device=like.device, dtype=like.dtype)
    return cell_weights(nodes, small, spec)
