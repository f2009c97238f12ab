"""HOG from maps: orientation and cell histograms once per crop, then a gather for every landmark.

The maps hold raw cell histograms at nodes `stride` px apart. A descriptor interpolates them bilinearly at its cell
centres and normalises afterwards, so that a map serves every stage of a cascade. Stride 1 is the descriptor of
`patch_hog(halo=True)` at integer positions; between them stride 1 moves the cells continuously over the crop's own
pixels, where a patch is resampled first.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.gradients import channel_gradients, dominant_gradient
from facerecon_torch.features.hog_spec import HogSpec
from facerecon_torch.features.normalisation import normalise
from facerecon_torch.features.orientation import fold_bins, orientation_votes
from facerecon_torch.features.pooling import first_node, pool_dense
from facerecon_torch.features.tiles import split_by_bytes

__all__ = ["HogMaps", "gather_hog", "hog_maps"]


@dataclass(frozen=True)
class HogMaps:
    """Cell histograms of a batch of crops: node (i, j) is the cell centred at x, y = first + stride (j, i) px.

    The outermost nodes are zero: a landmark beyond them has an all-zero descriptor.
    """

    histograms: Float[Tensor, "*b rows columns bins"]
    spec: HogSpec

    def to(self, *args: Any, **kwargs: Any) -> "HogMaps":
        return replace(self, histograms=self.histograms.to(*args, **kwargs))

    def __getitem__(self, index: Any) -> "HogMaps":
        return replace(self, histograms=self.histograms[index])


def hog_maps(crops: Float[Tensor, "*b c h w"], spec: HogSpec) -> HogMaps:
    """Maps of crops in [0, 1]. Pixels outside a crop cast no votes; at its border the gradient repeats the border.

    Differentiable with respect to the crops. Memory beyond the answer is bounded: crops are worked on in groups whose
    votes stay in a CPU's cache (or take a fixed share of a GPU). Raises ValueError unless crops have 1 or 3 channels.
    """
    flat = crops.reshape(-1, *crops.shape[-3:])
    votes_per_crop = (spec.bins + 1) * flat.shape[-1] * flat.shape[-2] * flat.element_size()
    parts = [_maps(part, spec) for part in split_by_bytes(flat, votes_per_crop)]
    maps = parts[0] if len(parts) == 1 else torch.cat(parts)
    return HogMaps(maps.reshape(*crops.shape[:-3], *maps.shape[1:]), spec)


def _maps(crops: Float[Tensor, "b c h w"], spec: HogSpec) -> Float[Tensor, "b rows columns bins"]:
    gradient = dominant_gradient(channel_gradients(crops, spec.colour))
    return fold_bins(pool_dense(orientation_votes(gradient, spec), spec), spec)


def gather_hog(maps: HogMaps, points: Float[Tensor, "*b n 2"], spec: HogSpec) -> Float[Tensor, "*b n length"]:
    """Descriptors around points in crop px, in the dtype of the points.

    Differentiable with respect to maps and points (in the points piecewise: the map is linear between its nodes).
    A NaN point gives NaN. Raises ValueError where the maps were made for another spec.
    """
    if maps.spec != spec:
        raise ValueError(f"maps were made for {maps.spec}; got {spec}")
    cells = torch.arange(-spec.halo, spec.cells + spec.halo, device=points.device, dtype=points.dtype)
    offset = (cells - (spec.cells - 1) / 2) * spec.cell_px - 0.5
    nodes = (points[..., None] + offset - first_node(spec)) / spec.stride
    rows, columns = maps.histograms.shape[-3:-1]
    low_x, share_x = _split(nodes[..., 0, :], columns)
    low_y, share_y = _split(nodes[..., 1, :], rows)
    corner = low_y[..., :, None] * columns + low_x[..., None, :]
    batch = points.shape[:-2]
    start = torch.arange(batch.numel(), device=points.device).reshape(*batch, 1, 1, 1) * (rows * columns)
    table = maps.histograms.reshape(-1, spec.bins)
    at = [table[corner + (start + step)] for step in (0, 1, columns, columns + 1)]
    share_x, share_y = share_x[..., None, :, None], share_y[..., :, None, None]
    upper = at[0] + share_x * (at[1] - at[0])
    lower = at[2] + share_x * (at[3] - at[2])
    return normalise(upper + share_y * (lower - upper), spec, spec.halo)


def _split(nodes: Float[Tensor, "*b cells"], count: int) -> tuple[Tensor, Float[Tensor, "*b cells"]]:
    """Node index below a coordinate and the share of the next one, held inside the map."""
    inside = nodes.clamp(0, count - 1)
    low = torch.nan_to_num(inside.detach()).floor().clamp(max=count - 2)
    return low.long(), inside - low
