"""Local geometry of depth grids: spikes, jumps in depth, and the plane through the neighbours of each cell.

Grids are orthographic and regular: depth [b, r, c] in mm towards the sensor, one spacing in mm for both axes, row 0 at
the top (y falls with the row).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["CellPlanes", "bridged", "fit_planes", "without_spikes"]

_JUMP_MM = 1.0  # noise of a difference in depth
_JUMP_SLOPE = 3.7  # of 75 degrees: next neighbours that differ by more lie on two surfaces
_PLANE_SLOPE = 2.0  # the same for the wider neighbourhood of a plane, which must not reach across a jump
_SPIKE_MM, _SPIKE_RADIUS, _FEWEST = 3.0, 2, 6
_NORMAL_SD_MM, _DEPTH_SD_MM, _RADIUS_SD = 1.1, 0.6, 2.0


class CellPlanes(NamedTuple):
    """The plane through every valid cell: depth at the cell's centre in mm, unit normal towards the sensor, and the
    `support` by the neighbours, 1 for a full neighbourhood. `valid` is False where they fix no plane."""

    depth: Float[Tensor, "b r c"]
    normals: Float[Tensor, "b r c 3"]
    support: Float[Tensor, "b r c"]
    valid: Bool[Tensor, "b r c"]


def bridged(
    step: Float[Tensor, "*n"], distance: Float[Tensor, "*n"] | float, slope: float = _JUMP_SLOPE
) -> Bool[Tensor, "*n"]:
    """Whether two points may lie on one surface: `step` is their distance in depth, `distance` that in x and y, mm."""
    return step.abs() <= _JUMP_MM + slope * distance


def without_spikes(depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"]) -> Bool[Tensor, "b r c"]:
    """`valid` without cells that are more than 3 mm away from the median of their valid 5 x 5 neighbours, and without
    cells with fewer than 6 neighbours.

    The median exceeds z + 3 exactly where more than half of the neighbours do, so that counting replaces sorting. On a
    steep but smooth slope the median is the cell itself.
    """
    count, above, below = (torch.zeros_like(depth) for _ in range(3))
    for _, _, near, is_valid in _neighbours(depth, valid, _SPIKE_RADIUS):
        step = near - depth
        count += is_valid
        above += is_valid & (step > _SPIKE_MM)
        below += is_valid & (step < -_SPIKE_MM)
    return valid & (count >= _FEWEST) & (torch.maximum(above, below) <= count / 2)


def fit_planes(depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"], spacing: float) -> CellPlanes:
    """The plane through the neighbours of every cell (Gaussian weights, 1.1 mm sd), without neighbours across a jump.

    The depth is averaged over the inner neighbours (0.6 mm sd) after the plane's slopes are removed: noise falls to
    about a third, and a ridge of 10 mm radius loses 0.04 mm.
    """
    shape = (10, *depth.shape)
    sums = torch.zeros(shape, dtype=depth.dtype, device=depth.device)
    full = 0.0
    radius = max(1, round(_RADIUS_SD * _NORMAL_SD_MM / spacing))
    for column, row, near, is_valid in _neighbours(depth, valid, radius, itself=True):
        x, y, squared = _offset(column, row, spacing)
        step = near - depth
        used = (is_valid & bridged(step, squared**0.5, _PLANE_SLOPE)).to(depth.dtype)
        weight = math.exp(-squared / (2 * _NORMAL_SD_MM**2))
        full += weight
        step = step * used
        moments = (1.0, x, y, x * x, x * y, y * y)
        for k, moment in enumerate(moments):
            sums[k].add_(used, alpha=weight * moment)
        for k, moment in enumerate(moments[:3]):
            sums[6 + k].add_(step, alpha=weight * moment)
    return _planes(depth, valid, sums, spacing, full)


def _planes(
    depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"], sums: Tensor, spacing: float, full: float
) -> CellPlanes:
    total = sums[0].clamp_min(1e-6)
    x, y, xx, xy, yy, z, xz, yz = (sums[k] / total for k in range(1, 9))
    xx, xy, yy, xz, yz = xx - x * x, xy - x * y, yy - y * y, xz - x * z, yz - y * z
    determinant = xx * yy - xy * xy
    fixed = valid & (determinant > 1e-3 * spacing**4)
    safe = torch.where(fixed, determinant, 1.0)
    across, up = (yy * xz - xy * yz) / safe, (xx * yz - xy * xz) / safe
    across, up = (torch.where(fixed, slope, 0.0) for slope in (across, up))
    normals = torch.stack([-across, -up, torch.ones_like(up)], -1)
    normals = normals / torch.linalg.vector_norm(normals, dim=-1, keepdim=True)
    smooth = depth + _inner_depth(depth, valid, across, up, spacing)
    return CellPlanes(torch.where(fixed, smooth, depth), normals, sums[0] / full, fixed)


def _inner_depth(
    depth: Float[Tensor, "b r c"],
    valid: Bool[Tensor, "b r c"],
    across: Float[Tensor, "b r c"],
    up: Float[Tensor, "b r c"],
    spacing: float,
) -> Float[Tensor, "b r c"]:
    """The change of every cell's depth: the weighted mean of its inner neighbours' offsets from the plane."""
    total, change = torch.zeros_like(depth), torch.zeros_like(depth)
    for column, row, near, is_valid in _neighbours(depth, valid, 1, itself=True):
        x, y, squared = _offset(column, row, spacing)
        step = near - depth
        weight = math.exp(-squared / (2 * _DEPTH_SD_MM**2))
        used = (is_valid & bridged(step, squared**0.5)) * weight
        total += used
        change += used * (step - x * across - y * up)
    return change / total.clamp_min(1e-6)


def _offset(column: int, row: int, spacing: float) -> tuple[float, float, float]:
    x, y = column * spacing, row * spacing
    return x, y, x * x + y * y


def _neighbours(
    depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"], radius: int, *, itself: bool = False
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(x, y, depth, valid) of the neighbours x cells to the right of and y cells above every cell."""
    rows, columns = depth.shape[-2:]
    padded, padded_valid = pad(depth, (radius,) * 4), pad(valid, (radius,) * 4)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if x == y == 0 and not itself:
                continue
            part = (..., slice(radius - y, radius - y + rows), slice(radius + x, radius + x + columns))
            yield x, y, padded[part], padded_valid[part]
