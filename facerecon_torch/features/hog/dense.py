"""HOG from maps: orientation and cell histograms once per crop, then a gather for every landmark.

The maps hold raw cell histograms at nodes `stride` px apart. A descriptor interpolates them bilinearly at its cell
centres and normalises afterwards, so that one map serves every stage of a cascade. Stride 1 is the descriptor of
`patch_hog(halo=True)` at integer positions. Between them, stride 1 moves the cells continuously over the crop's own
pixels, while a patch is resampled first.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog.histograms import first_node, numbers_per_pixel, split_by_bytes
from facerecon_torch.features.hog.kernels import make_maps
from facerecon_torch.features.hog.normalisation import normalise
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import TensorRecord

__all__ = ["HogMaps", "gather_hog", "hog_maps"]


@dataclass(frozen=True)
class HogMaps(TensorRecord):
    """Cell histograms of a batch of crops: node (i, j) is the cell centred at x, y = first_node + stride (j, i) px.

    The outermost nodes are zero: a landmark beyond them has an all-zero descriptor.

    Example:
        >>> maps = hog_maps(torch.rand(8, 3, 320, 320), HogSpec())
        >>> maps[:2].to(torch.float16).histograms.shape
        torch.Size([2, 90, 90, 18])
    """

    histograms: Float[Tensor, "*b rows columns bins"]
    spec: HogSpec


@in_own_precision
def hog_maps(crops: Float[Tensor, "*b c h w"], spec: HogSpec, *, dtype: torch.dtype | None = None) -> HogMaps:
    """Maps of crops. Differentiable with respect to the crops.

    Pixels outside a crop cast no votes; gradients at its border repeat the border. Memory beyond the answer is bounded:
    crops are taken in groups whose votes stay in a CPU's cache, or in 1 GiB on a GPU. `use_kernel` chooses the kernel.

    Args:
        crops: images in [0, 1] with 1 or 3 channels.
        spec: geometry and variant.
        dtype: of the histograms (None: that of the crops). float16 halves them and changes a descriptor by about 1e-4.

    Returns:
        One map per crop.

    Raises:
        ValueError: unless crops have 1 or 3 channels.

    Example:
        >>> maps = hog_maps(torch.rand(2, 3, 320, 320), HogSpec(), dtype=torch.float16)
    """
    flat = crops.reshape(-1, *crops.shape[-3:])
    if not torch.compiler.is_compiling() and not len(flat):
        empty = hog_maps(flat.new_zeros(1, *flat.shape[1:]), spec, dtype=dtype).histograms[0]
        return HogMaps(empty.expand(*crops.shape[:-3], *empty.shape), spec)
    bytes_per_crop = numbers_per_pixel(spec) * flat.shape[-2:].numel() * flat.element_size()
    parts = [make_maps(part, spec, dtype or crops.dtype) for part in split_by_bytes(flat, bytes_per_crop)]
    maps = parts[0] if len(parts) == 1 else torch.cat(parts)
    return HogMaps(maps.reshape(*crops.shape[:-3], *maps.shape[1:]), spec)


@in_own_precision
def gather_hog(maps: HogMaps, points: Float[Tensor, "*b n 2"], spec: HogSpec) -> Float[Tensor, "*b n length"]:
    """Descriptors around points, interpolated from maps.

    Differentiable with respect to maps and points (in the points piecewise: the map is linear between its nodes).

    Args:
        maps: of the crops, in any precision.
        points: in crop px.
        spec: that of the maps.

    Returns:
        A descriptor per point in the dtype of the points; NaN for a NaN point.

    Raises:
        ValueError: the maps were made for another spec.

    Example:
        >>> maps = hog_maps(torch.rand(2, 3, 320, 320), HogSpec())
        >>> gather_hog(maps, torch.full((2, 66, 2), 160.0), HogSpec()).shape
        torch.Size([2, 66, 496])
    """
    if maps.spec != spec:
        raise ValueError(f"maps were made for {maps.spec}; got {spec}")
    cells = torch.arange(-spec.halo, spec.cells + spec.halo, device=points.device, dtype=points.dtype)
    offset = (cells + 0.5) * spec.cell_px - 0.5 - spec.patch_px // 2
    nodes = (points[..., None] + offset - first_node(spec)) / spec.stride
    histograms = _interpolate(maps.histograms, nodes[..., 0, :], nodes[..., 1, :])
    return normalise(histograms, spec, spec.halo)


def _interpolate(
    histograms: Float[Tensor, "*b rows columns bins"],
    x: Float[Tensor, "*b n cells"],
    y: Float[Tensor, "*b n cells"],
) -> Float[Tensor, "*b n cells cells bins"]:
    """Histograms at every pair (y, x) of fractional node indices: the four nodes around it, weighted in one pass."""
    rows, columns, bins = histograms.shape[-3:]
    low_x, share_x = _split(x, columns)
    low_y, share_y = _split(y, rows)
    batch = x.shape[:-2]
    start = torch.arange(batch.numel(), device=x.device).reshape(*batch, 1, 1, 1) * (rows * columns)
    corner = start + low_y[..., :, None] * columns + low_x[..., None, :]
    pair = torch.arange(2, device=x.device)
    index = corner[..., None] + (pair[:, None] * columns + pair).flatten()
    across = torch.stack([1 - share_x, share_x], dim=-1)
    down = torch.stack([1 - share_y, share_y], dim=-1)
    weights = down[..., :, None, :, None] * across[..., None, :, None, :]
    # Half-precision maps are converted as a whole: taking rows first and converting them takes several times as long
    # on a CPU, and weights in half precision would add a larger error than the maps.
    table = histograms.reshape(-1, bins).to(x.dtype)
    blended = F.embedding_bag(index.reshape(-1, 4), table, per_sample_weights=weights.reshape(-1, 4), mode="sum")
    return blended.reshape(*corner.shape, bins)


def _split(nodes: Float[Tensor, "*b cells"], count: int) -> tuple[Tensor, Float[Tensor, "*b cells"]]:
    """The node index below each coordinate and the weight of the next node; coordinates are clamped to the map."""
    inside = nodes.clamp(0, count - 1)
    low = torch.nan_to_num(inside.detach()).floor().clamp(max=count - 2)
    return low.long(), inside - low
