"""Triton kernels behind `hog_maps` on CUDA: no image of gradients or votes is ever written.

One launch reads the crops and writes histograms of cells of the stride's width; two more, one an axis, sum those to the
cells of the descriptor. Every sum has a fixed order: the same crops give the same maps, to the bit.

Triton compiles these functions from their source, so their arguments have no annotations but its own, and no type
checker may wrap them. With TRITON_INTERPRET=1 in the environment they run on the CPU, slowly, for tests.
"""

from typing import no_type_check

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog.gradients import as_channels
from facerecon_torch.features.hog.histograms import SHIFT, node_count, small_count
from facerecon_torch.features.hog.spec import HogSpec

__all__ = ["triton_maps"]

_CELLS = 128  # small cells of one program, one a thread
_ELEMENTS = 1024  # numbers that one program of the summation writes


def triton_maps(
    crops: Float[Tensor, "b c h w"], spec: HogSpec, dtype: torch.dtype
) -> Float[Tensor, "b rows columns bins"]:
    """Histograms of `hog_maps` for float32 crops, in `dtype`. Not differentiable.

    Measured in Triton's interpreter: within 1e-6 of the eager maps' largest value, except where an angle lies on the
    edge between two bins of hard votes. Raises ValueError unless crops have 1 or 3 channels.
    """
    # Triton launches on the current device, whatever the tensors lie on.
    with torch.cuda.device_of(crops):  # type: ignore[no-untyped-call]
        by_cell = _small_cells(as_channels(crops, spec.colour).contiguous(), spec)
        by_row = _sum_along(by_cell, 1, node_count(crops.shape[-2], spec), spec, crops.dtype)
        return _sum_along(by_row, 2, node_count(crops.shape[-1], spec), spec, dtype)


def _small_cells(crops: Float[Tensor, "b c h w"], spec: HogSpec) -> Float[Tensor, "b small_rows small_columns bins"]:
    """Histograms of the cells of the stride's width."""
    b, c, h, w = crops.shape
    n_rows, n_columns = small_count(h, spec), small_count(w, spec)
    small = crops.new_empty(b, n_rows, n_columns, spec.bins)
    _vote[(triton.cdiv(b * n_rows * n_columns, _CELLS),)](
        crops,
        small,
        b * n_rows * n_columns,
        h,
        w,
        n_rows,
        n_columns,
        SHIFT[spec.variant, spec.vote],
        CHANNELS=c,
        STRIDE=spec.stride,
        BINS=spec.bins,
        HAT=spec.variant == "uoctti",
        LINEAR=spec.vote == "linear",
        CELLS=_CELLS,
        SLOTS=triton.next_power_of_2(spec.bins),
        num_warps=_CELLS // 32,
    )
    return small


def _sum_along(cells: Tensor, axis: int, count: int, spec: HogSpec, dtype: torch.dtype) -> Tensor:
    """Cells of the descriptor from cells of the stride's width, along one axis of four."""
    shape = (*cells.shape[:axis], count, *cells.shape[axis + 1 :])
    inner = cells[(0,) * (axis + 1)].numel()
    summed = cells.new_empty(shape, dtype=dtype)
    outer = cells.shape[:axis].numel()
    _sum_neighbours[(outer, triton.cdiv(count * inner, _ELEMENTS))](
        cells,
        summed,
        cells.shape[axis],
        count,
        inner,
        RATIO=spec.cell_px // spec.stride,
        HAT=spec.variant == "uoctti",
        ELEMENTS=_ELEMENTS,
    )
    return summed


@triton.jit
@no_type_check
def _angle(gx, gy):
    """Direction of (gx, gy) in bins of 20 degrees, from -9 to 9; 0 for the zero vector.

    Turned into [0, 22.5] degrees, where the arctangent is an odd polynomial: Chebyshev, error 2e-8 bins.
    """
    ax = tl.abs(gx)
    ay = tl.abs(gy)
    longer = tl.maximum(ax, ay)
    shorter = tl.minimum(ax, ay)
    steep = shorter > 0.41421356237 * longer
    above = tl.where(steep, shorter - longer, shorter)
    below = tl.where(steep, shorter + longer, longer)
    ratio = above / tl.where(below > 0, below, 1.0)
    z = ratio * ratio
    series = 2.8647889237 + z * (-0.9549142919 + z * (0.5722245463 + z * (-0.3968156269 + z * 0.2287523372)))
    angle = ratio * series + tl.where(steep, 2.25, 0.0)
    angle = tl.where(ay > ax, 4.5 - angle, angle)
    angle = tl.where(gx < 0, 9.0 - angle, angle)
    return tl.where(gy < 0, -angle, angle)


@triton.jit
@no_type_check
def _steepest(image, y, x, height, width, inside, CHANNELS: tl.constexpr):
    """The gradient of the steepest channel at pixels (y, x), as in `gradients.dominant_gradient`; NaN where any channel
    is NaN."""
    left, right = tl.maximum(x - 1, 0), tl.minimum(x + 1, width - 1)
    above, below = tl.maximum(y - 1, 0), tl.minimum(y + 1, height - 1)
    best_x = tl.zeros_like(x).to(tl.float32)
    best_y = best_x
    largest = best_x
    total = best_x
    for channel in tl.static_range(CHANNELS):
        plane = image + channel * height * width
        gx = tl.load(plane + y * width + right, inside, 0.0) - tl.load(plane + y * width + left, inside, 0.0)
        gy = tl.load(plane + below * width + x, inside, 0.0) - tl.load(plane + above * width + x, inside, 0.0)
        squared = gx * gx + gy * gy
        longer = (squared > largest * 1.000073) | (channel == 0)  # 1 + gradients.TIE_SHARE
        best_x = tl.where(longer, gx, best_x)
        best_y = tl.where(longer, gy, best_y)
        largest = tl.where(longer, squared, largest)
        total += squared
    return best_x + 0.0 * total, best_y + 0.0 * total


@triton.jit
@no_type_check
def _vote(
    crops,
    small,
    n_cells,
    height,
    width,
    n_rows,
    n_columns,
    shift,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    BINS: tl.constexpr,
    HAT: tl.constexpr,
    LINEAR: tl.constexpr,
    CELLS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Histograms of CELLS small cells: the votes of each pixel around a cell are added to its bins in registers."""
    TAPS: tl.constexpr = 2 * STRIDE - 1 if HAT else STRIDE
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    column = (cell % n_columns).to(tl.int32)
    row = (cell // n_columns % n_rows).to(tl.int32)
    image = crops + cell // n_columns // n_rows * (CHANNELS * height * width)
    bins = tl.arange(0, SLOTS)[None, :]
    sums = tl.zeros([CELLS, SLOTS], tl.float32)
    for tap in range(TAPS * TAPS):
        down, across = tap // TAPS, tap % TAPS
        y = row * STRIDE - (TAPS - 1) + down
        x = column * STRIDE - (TAPS - 1) + across
        inside = (cell < n_cells) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        gx, gy = _steepest(image, y, x, height, width, inside, CHANNELS)
        strength = tl.sqrt(gx * gx + gy * gy)
        if HAT:
            off_y = tl.abs((y - row * STRIDE + (STRIDE - 1)).to(tl.float32))
            off_x = tl.abs((x - column * STRIDE + (STRIDE - 1)).to(tl.float32))
            strength = strength * ((1.0 - off_y / STRIDE) * (1.0 - off_x / STRIDE))
        position = _angle(gx, gy) + shift
        low = tl.floor(position)
        low = tl.where(low == low, low, 0.0)  # a NaN pixel votes too, so that the answer is NaN
        own = low - BINS * tl.floor(low / BINS)
        if LINEAR:
            upper = (position - low) * strength
            following = tl.where(own == BINS - 1, 0.0, own + 1.0)
            sums += tl.where(bins == own[:, None], (strength - upper)[:, None], 0.0)
            sums += tl.where(bins == following[:, None], upper[:, None], 0.0)
        else:
            sums += tl.where(bins == own[:, None], strength[:, None], 0.0)
    tl.store(small + cell[:, None] * BINS + bins, sums, (cell < n_cells)[:, None] & (bins < BINS))


@triton.jit
@no_type_check
def _sum_neighbours(
    cells, summed, n_cells, n_nodes, inner, RATIO: tl.constexpr, HAT: tl.constexpr, ELEMENTS: tl.constexpr
):
    """Weighted sums along the middle of three axes: node m sums the existing ones of the TAPS cells before it."""
    TAPS: tl.constexpr = 2 * RATIO - 1 if HAT else RATIO
    outer = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * ELEMENTS + tl.arange(0, ELEMENTS)
    written = element < n_nodes * inner
    node = element // inner
    sums = tl.zeros([ELEMENTS], tl.float32)
    for tap in tl.static_range(TAPS):
        cell = node - TAPS + tap
        there = written & (cell >= 0) & (cell < n_cells)
        value = tl.load(cells + outer * n_cells * inner + element + (tap - TAPS) * inner, there, 0.0)
        if HAT:
            value = value * ((tap + 1 if tap < RATIO else 2 * RATIO - 1 - tap) / RATIO)
        sums += value
    tl.store(summed + outer * n_nodes * inner + element, sums.to(summed.dtype.element_ty), written)
