"""What a cell of a depth grid knows about its surroundings: spikes, jumps, the surface through it, the rim.

Grids are orthographic and regular: depth [b, r, c] in mm towards the sensor, one spacing in mm for both axes, row 0 on
top (y falls with the row).
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
_JUMP_SLOPE = 3.7  # of 75 degrees: next neighbours that differ by more are two surfaces
_PLANE_SLOPE = 2.0  # the same for the wider neighbourhood of a plane, which would reach across a jump otherwise
_SPIKE_MM, _SPIKE_RADIUS, _FEWEST = 3.0, 2, 6
_NORMAL_SD_MM, _DEPTH_SD_MM, _RADIUS_SD = 1.1, 0.6, 2.0


class CellPlanes(NamedTuple):
    """The plane through every valid cell: depth at its centre in mm, unit normal towards the sensor, and the share of
    a full neighbourhood that it rests on. `valid` is False where the neighbours fix no plane."""

    depth: Float[Tensor, "b r c"]
    normals: Float[Tensor, "b r c 3"]
    share: Float[Tensor, "b r c"]
    valid: Bool[Tensor, "b r c"]


def bridged(
    step: Float[Tensor, "*n"], distance: Float[Tensor, "*n"] | float, slope: float = _JUMP_SLOPE
) -> Bool[Tensor, "*n"]:
    """Whether two points with a difference in depth of `step`, `distance` mm apart sideways, may be one surface."""
    return step.abs() <= _JUMP_MM + slope * distance


def without_spikes(depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"]) -> Bool[Tensor, "b r c"]:
    """`valid` less the cells more than 3 mm away from the median of the valid cells of their 5 x 5 neighbourhood, and
    those with fewer than 6 neighbours.

    The median lies above z + 3 exactly where more than half of the neighbours do, so counting replaces sorting. On a
    steep but smooth slope the median is the cell itself.
    """
    count, above, below = (torch.zeros_like(depth) for _ in range(3))
    for _, _, near, there in _neighbours(depth, valid, _SPIKE_RADIUS):
        step = near - depth
        count += there
        above += there & (step > _SPIKE_MM)
        below += there & (step < -_SPIKE_MM)
    return valid & (count >= _FEWEST) & (torch.maximum(above, below) <= count / 2)


def fit_planes(depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"], spacing: float) -> CellPlanes:
    """Plane through the neighbours of every cell (Gaussian weights, 1.1 mm sd), never across a jump in depth.

    The depth is taken from the inner neighbours (0.6 mm sd) with the slopes of the plane removed: noise falls to about
    a third, and a ridge of 10 mm radius loses 0.04 mm.
    """
    shape = (10, *depth.shape)
    sums = torch.zeros(shape, dtype=depth.dtype, device=depth.device)
    full = 0.0
    radius = max(1, round(_RADIUS_SD * _NORMAL_SD_MM / spacing))
    for column, row, near, there in _neighbours(depth, valid, radius, itself=True):
        x, y, squared = _offset(column, row, spacing)
        step = near - depth
        used = (there & bridged(step, squared**0.5, _PLANE_SLOPE)).to(depth.dtype)
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
    """What has to be added to the depth of every cell."""
    total, change = torch.zeros_like(depth), torch.zeros_like(depth)
    for column, row, near, there in _neighbours(depth, valid, 1, itself=True):
        x, y, squared = _offset(column, row, spacing)
        step = near - depth
        weight = math.exp(-squared / (2 * _DEPTH_SD_MM**2))
        used = (there & bridged(step, squared**0.5)) * weight
        total += used
        change += used * (step - x * across - y * up)
    return change / total.clamp_min(1e-6)


def _offset(column: int, row: int, spacing: float) -> tuple[float, float, float]:
    x, y = column * spacing, row * spacing
    return x, y, x * x + y * y


def _neighbours(
    depth: Float[Tensor, "b r c"], valid: Bool[Tensor, "b r c"], radius: int, *, itself: bool = False
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(x, y, depth, valid) of the neighbour that lies x cells to the right of and y cells above every cell."""
    rows, columns = depth.shape[-2:]
    wide, known = pad(depth, (radius,) * 4), pad(valid, (radius,) * 4)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if x == y == 0 and not itself:
                continue
            part = (..., slice(radius - y, radius - y + rows), slice(radius + x, radius + x + columns))
            yield x, y, wide[part], known[part]
