"""For every vertex of a posed model, the closest point of the scan and how much it counts."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.registration.scan.surface import ScanBatch

__all__ = ["Association", "AssociationSpec", "associate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationSpec:
    """Which pairs of vertex and scan point count."""

    distance: float | int = 5.0  # mm: beyond it nothing counts (Tukey's weight reaches 0)
    normal_degrees: float | int = 45.0  # between the normals: half weight at 2/3 of it, none from here on
    steps: int = 3  # along tangent planes, after the start straight along the sensor's axis

    def __post_init__(self) -> None:
        if not 0 < self.distance < math.inf:
            raise ValueError(f"distance must be positive and finite; got {self.distance} mm")
        if not 0 < self.normal_degrees <= 90:
            raise ValueError(f"normal_degrees must lie in (0, 90]; got {self.normal_degrees}")
        if self.steps < 0:
            raise ValueError(f"steps must not be negative; got {self.steps}")


class Association(NamedTuple):
    """Scan points that belong to vertices: `distance` is signed along the scan's normal (mm, > 0: the vertex stands in
    front of the scan). Where `weight` is 0 there is no partner: point and normal are zero or not to be used."""

    point: Float[Tensor, "b v 3"]
    normal: Float[Tensor, "b v 3"]
    distance: Float[Tensor, "b v"]
    weight: Float[Tensor, "b v"]


class _Cells(NamedTuple):
    point: Float[Tensor, "b v 3"]
    normal: Float[Tensor, "b v 3"]
    weight: Float[Tensor, "b v"]  # of the rim; negative outside the grid and in holes
    squared: Float[Tensor, "b v"]  # distance from the vertex, mm^2


@torch.no_grad()
def associate(
    vertices: Float[Tensor, "b v 3"],
    normals: Float[Tensor, "b v 3"],
    scans: ScanBatch,
    spec: AssociationSpec,
) -> Association:
    """Closest scan points of vertices with unit normals (mm, sensor's frame).

    Starts in the cell straight behind the vertex and walks to where the foot on that cell's tangent plane leads, which
    is Newton's method for the closest point; the nearest cell met is taken. Vertices that turn away from the sensor,
    that lie over a hole or whose foot falls off their cell have no partner. Weight = rim weight of the scan x Tukey's
    weight of the distance x a gate on the angle between the normals. On a face the distance agrees with the exact one
    to 0.02 mm for vertices within 3 mm. Not differentiable.
    """
    table = torch.cat([scans.points[..., 2:], scans.normals, scans.weights[..., None]], -1).flatten(1, 2)
    table[..., 4] = torch.where(scans.valid.flatten(1), table[..., 4], -1.0)
    cells = _look(vertices[..., :2], vertices, scans, table)
    for _ in range(spec.steps):
        foot = vertices - ((vertices - cells.point) * cells.normal).sum(-1, keepdim=True) * cells.normal
        cells = _nearer(cells, _look(foot[..., :2], vertices, scans, table))
    distance = ((vertices - cells.point) * cells.normal).sum(-1)
    point = vertices - distance[..., None] * cells.normal
    aside = (point - cells.point).square().sum(-1)
    facing = (normals * cells.normal).sum(-1)
    weight = cells.weight.clamp_min(0) * _gate(facing, spec.normal_degrees)
    weight = weight * (1 - (distance / spec.distance).square()).clamp_min(0).square()
    # A foot further from the cell than the cell reaches (on its slope) lies beyond the surface that was measured.
    reach = scans.spacing * 1.5 / cells.normal[..., 2].clamp_min(0.1)
    apart = (aside > reach.square()) | (cells.weight < 0) | (normals[..., 2] <= 0)
    return Association(point, cells.normal, distance, torch.where(apart, 0.0, weight))


def _look(
    place: Float[Tensor, "b v 2"],
    vertices: Float[Tensor, "b v 3"],
    scans: ScanBatch,
    table: Float[Tensor, "b cells 5"],
) -> _Cells:
    """What the cells hold in which the places lie; outside the grid and in holes an unusable cell straight behind."""
    rows, columns = scans.valid.shape[1:]
    across, down = ((place - scans.origin[:, None]) / scans.spacing).unbind(-1)
    column, row = across.round(), (-down).round()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    index = torch.where(inside, row * columns + column, 0).long()
    cells = table.gather(1, index[..., None].expand(-1, -1, 5))
    usable = inside & (cells[..., 4] >= 0)
    at = scans.origin[:, None] + scans.spacing * torch.stack([column, -row], -1)
    point = torch.cat([torch.where(usable[..., None], at, vertices[..., :2]), cells[..., :1]], -1)
    squared = torch.where(usable, (vertices - point).square().sum(-1), torch.inf)
    weight = torch.where(usable, cells[..., 4], -1.0)
    return _Cells(point, torch.where(usable[..., None], cells[..., 1:4], 0.0), weight, squared)


def _nearer(first: _Cells, second: _Cells) -> _Cells:
    closer = second.squared < first.squared
    return _Cells(
        torch.where(closer[..., None], second.point, first.point),
        torch.where(closer[..., None], second.normal, first.normal),
        torch.where(closer, second.weight, first.weight),
        torch.minimum(first.squared, second.squared),
    )


def _gate(facing: Float[Tensor, "*n"], degrees: float | int) -> Float[Tensor, "*n"]:
    """1 up to a third of the angle, 0 from the whole of it, straight in the cosine between."""
    full, none = math.cos(math.radians(degrees / 3)), math.cos(math.radians(degrees))
    return ((facing - none) / (full - none)).clamp(0, 1)
