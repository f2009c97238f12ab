"""Simulation of a structured-light range sensor.

Scan frame: mm, +x to image right, +y up, +z towards the sensor, which looks along -z without perspective. A cell is
lost where the surface is at a grazing angle, behind a depth jump, in the shadow of the projector (above or below the
camera), and at random on surfaces of low reflectance, such as hair. The other cells have normal noise along z and a
few spikes.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.synthetic.procedural import smooth_field

__all__ = ["GridWindow", "SensorSpec", "scan_mesh", "simulate_sensor"]

_PATCH_CELLS = 14.0  # size of the unmeasured patches on dark surfaces


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSpec:
    """Errors of a range sensor; lengths in mm, angles in degrees."""

    noise_sd: float | int = 0.3  # along z
    spike_share: float = 3e-4  # share of the cells
    spike_mm: tuple[float, float] = (4.0, 25.0)  # least and largest size of a spike, to either side
    grazing: float | int = 78.0  # largest angle between normal and view of a measured cell
    jump_mm: float | int = 6.0  # largest depth jump between neighbours; beyond it the farther one is lost
    projector: float | int = 12.0  # angle between projector and camera, upwards; 0: no shadow

    def __post_init__(self) -> None:
        if not (self.noise_sd >= 0 and 0 <= self.spike_share < 1 and 0 <= self.spike_mm[0] <= self.spike_mm[1]):
            raise ValueError(f"noise and spikes must not be negative, spike_share below 1; got {self}")
        if not (0 < self.grazing <= 90 and self.jump_mm > 0 and abs(self.projector) < 60):
            raise ValueError(f"grazing must lie in (0, 90], jump_mm above 0, projector within 60 degrees; got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GridWindow:
    """Cells of an orthographic grid: (row, column) is at x = left + column * spacing, y = top - row * spacing (mm)."""

    left: float
    top: float
    rows: int
    columns: int
    spacing: float | int = 0.765

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or not self.spacing > 0:
            raise ValueError(f"a window must have at least one cell and a positive spacing; got {self}")

    def to_cells(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """The column and row of points; (0, 0) is the centre of the first cell."""
        x = (points[..., 0] - self.left) / self.spacing
        return torch.stack([x, (self.top - points[..., 1]) / self.spacing], dim=-1)


def scan_mesh(
    vertices: Float[Tensor, "v 3"],
    triangles: Int[Tensor, "t 3"],
    *,
    window: GridWindow,
    generator: torch.Generator,
    spec: SensorSpec | None = None,
    reflectance: Float[Tensor, "t"] | None = None,
) -> RangeGrid:
    """The orthographic range grid of a mesh in the scan frame (mm).

    `reflectance` is the share of each triangle's cells that are measured; None: all. Raises ValueError where nothing is
    measured.
    """
    spec = spec if spec is not None else SensorSpec()
    placed = torch.cat([window.to_cells(vertices), vertices[:, 2:]], dim=1)
    raster = get_backend().rasterise(placed, triangles, window.rows, window.columns)
    covered = raster.triangle >= 0
    corners = triangles[raster.triangle.clamp_min(0)]
    normals = vertex_normals(vertices, triangles)[corners]
    mixed = (raster.barycentric[..., None] * normals).sum(-2)
    cosine = mixed[..., 2] / torch.linalg.vector_norm(mixed, dim=-1).clamp_min(1e-6)
    x = window.left + window.spacing * torch.arange(window.columns).to(vertices)
    y = window.top - window.spacing * torch.arange(window.rows).to(vertices)
    points = torch.stack([x.expand(window.rows, -1), y[:, None].expand(-1, window.columns), raster.depth], dim=-1)
    share = None if reflectance is None else reflectance[raster.triangle.clamp_min(0)]
    return simulate_sensor(points, cosine, covered, spec, generator=generator, reflectance=share)


def simulate_sensor(
    points: Float[Tensor, "r c 3"],
    cosine: Float[Tensor, "r c"],
    covered: Bool[Tensor, "r c"],
    spec: SensorSpec,
    *,
    generator: torch.Generator,
    reflectance: Float[Tensor, "r c"] | None = None,
) -> RangeGrid:
    """The range grid measured at the true points of its cells (mm, scan frame; rows from the top).

    Args:
        points: the surface point of each cell.
        cosine: of the angle between the surface's normal and the view.
        covered: whether there is a surface in the cell.
        spec: the sensor's errors.
        generator: of the CPU.
        reflectance: share of such cells that are measured; None: all.

    Raises:
        ValueError: no cell is measured.
    """
    valid = covered & (cosine > math.cos(math.radians(spec.grazing)))
    depth = points[..., 2].where(covered, -torch.inf)
    valid &= ~_behind_jump(depth, float(spec.jump_mm))
    if spec.projector:
        valid &= ~_in_shadow(points[..., 1], depth, float(spec.projector))
    if reflectance is not None:
        valid &= _measured_cells(reflectance, generator)
    noise = spec.noise_sd * torch.randn(valid.shape, generator=generator)
    chance = torch.rand(valid.shape, generator=generator) < spec.spike_share
    size = torch.empty(valid.shape).uniform_(*spec.spike_mm, generator=generator)
    side = torch.rand(valid.shape, generator=generator).sub(0.5).sign()
    noise = noise + chance * size * side
    measured = points.clone()
    measured[..., 2] += noise.to(points)
    return RangeGrid(measured, valid)


def _behind_jump(depth: Float[Tensor, "r c"], jump: float) -> Bool[Tensor, "r c"]:
    """Cells with a neighbour that is nearer by more than `jump`."""
    nearest = max_pool2d(depth[None, None], 3, stride=1, padding=1)[0, 0]
    hidden: Tensor = nearest - depth > jump
    return hidden


def _in_shadow(y: Float[Tensor, "r c"], depth: Float[Tensor, "r c"], degrees: float) -> Bool[Tensor, "r c"]:
    """Cells in the shadow of light from above (from below where `degrees` is negative).

    With slope t = cot(angle), all points on one ray have the same z - t y; a point is in shadow if a point further up
    its column has a larger value.
    """
    if degrees < 0:
        return _in_shadow(-y.flip(0), depth.flip(0), -degrees).flip(0)
    level = depth - y / math.tan(math.radians(degrees))
    dark: Tensor = level.cummax(0).values > level + 1e-3
    return dark


def _measured_cells(share: Float[Tensor, "r c"], generator: torch.Generator) -> Bool[Tensor, "r c"]:
    """Randomly measured cells, in patches; `share` is the probability of each cell."""
    rows, columns = share.shape
    patches = smooth_field(rows, columns, max(2, round(rows / _PATCH_CELLS)), max(2, columns / _PATCH_CELLS), generator)
    level: Tensor = torch.special.ndtr(patches + 0.3 * torch.randn(rows, columns, generator=generator))
    return (level.to(share.device) < share) | (share >= 1)
