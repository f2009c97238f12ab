"""A structured-light range sensor: what it measures of a mesh, and what it misses.

Scan frame: mm, +x to image right, +y up, +z towards the sensor, which looks along -z without perspective. A cell is
lost where the surface turns away from the sensor, at the rim of a depth jump, in the shadow that the face throws in the
light of the projector (which stands above or below the camera), and by chance on surfaces that reflect little, such as
hair. What is left has normal noise along z and a few spikes.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.synthetic.procedural import smooth_field

__all__ = ["GridWindow", "SensorSpec", "find_window", "scan_mesh", "sense"]

_PATCH_CELLS = 14.0  # size of the patches that go missing on dark surfaces


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSpec:
    """What a sensor loses and adds; lengths in mm, angles in degrees."""

    noise_sd: float | int = 0.3  # along z
    spike_share: float = 3e-4  # of the measured cells
    spike_mm: tuple[float, float] = (4.0, 25.0)  # size of a spike, to either side
    grazing: float | int = 78.0  # angle between the normal and the view beyond which nothing is measured
    jump_mm: float | int = 6.0  # between neighbours, beyond which the farther one is lost
    projector: float | int = 12.0  # angle between projector and camera, upwards; 0: no shadow

    def __post_init__(self) -> None:
        if not (self.noise_sd >= 0 and 0 <= self.spike_share < 1 and 0 <= self.spike_mm[0] <= self.spike_mm[1]):
            raise ValueError(f"noise and spikes must not be negative, spike_share below 1; got {self}")
        if not (0 < self.grazing <= 90 and self.jump_mm > 0 and abs(self.projector) < 60):
            raise ValueError(f"grazing must lie in (0, 90], jump_mm above 0, projector within 60 degrees; got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GridWindow:
    """Cells of an orthographic grid: cell (row, column) looks at x = left + column * spacing,
    y = top - row * spacing (mm)."""

    left: float
    top: float
    rows: int
    columns: int
    spacing: float | int = 0.765

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or not self.spacing > 0:
            raise ValueError(f"a window must have at least one cell and a positive spacing; got {self}")

    def to_cells(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """Column and row of points, (0, 0) being the centre of the first cell."""
        x = (points[..., 0] - self.left) / self.spacing
        return torch.stack([x, (self.top - points[..., 1]) / self.spacing], dim=-1)


def find_window(points: Float[Tensor, "n 3"], spacing: float | int = 0.765, margin: float | int = 2.0) -> GridWindow:
    """The smallest window that holds points and `margin` mm around them."""
    low, high = points.amin(0), points.amax(0)
    columns, rows = (((high - low)[:2] + 2 * margin) / spacing).ceil().int().tolist()
    return GridWindow(
        left=float(low[0]) - margin, top=float(high[1]) + margin, rows=rows + 1, columns=columns + 1, spacing=spacing
    )


def scan_mesh(
    vertices: Float[Tensor, "v 3"],
    triangles: Int[Tensor, "t 3"],
    *,
    generator: torch.Generator,
    spacing: float | int = 0.765,
    noise_sd: float | int = 0.3,
    window: GridWindow | None = None,
    spec: SensorSpec | None = None,
    reflectance: Float[Tensor, "t"] | None = None,
) -> RangeGrid:
    """Orthographic range grid of a mesh given in the scan frame (mm).

    `window` places the cells (default: the whole mesh, `spacing` mm apart); `spec` replaces `noise_sd`; `reflectance`
    is the share of each triangle's cells that are measured. Raises ValueError where nothing is measured.
    """
    spec = spec if spec is not None else SensorSpec(noise_sd=noise_sd)
    window = window if window is not None else find_window(vertices, spacing)
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
    return sense(points, cosine, covered, spec, generator=generator, reflectance=share)


def sense(
    points: Float[Tensor, "r c 3"],
    cosine: Float[Tensor, "r c"],
    covered: Bool[Tensor, "r c"],
    spec: SensorSpec,
    *,
    generator: torch.Generator,
    reflectance: Float[Tensor, "r c"] | None = None,
) -> RangeGrid:
    """What a sensor keeps of the true points of its cells (mm, scan frame; rows from the top).

    `cosine` is that of the angle between the surface's normal and the view, `covered` tells where there is a surface,
    `reflectance` the share of such cells that are measured. Raises ValueError where nothing is left.
    """
    valid = covered & (cosine > math.cos(math.radians(spec.grazing)))
    depth = points[..., 2].where(covered, -torch.inf)
    valid &= ~_behind_jump(depth, float(spec.jump_mm))
    if spec.projector:
        valid &= ~_in_shadow(points[..., 1], depth, float(spec.projector))
    if reflectance is not None:
        valid &= _reflected(reflectance, generator)
    noise = spec.noise_sd * torch.randn(valid.shape, generator=generator)
    chance = torch.rand(valid.shape, generator=generator) < spec.spike_share
    size = torch.empty(valid.shape).uniform_(*spec.spike_mm, generator=generator)
    side = torch.rand(valid.shape, generator=generator).sub(0.5).sign()
    noise = noise + chance * size * side
    seen = points.clone()
    seen[..., 2] += noise.to(points)
    return RangeGrid(seen, valid)


def _behind_jump(depth: Float[Tensor, "r c"], jump: float) -> Bool[Tensor, "r c"]:
    """Cells that a neighbour hides in part: it is nearer by more than `jump`."""
    nearest = max_pool2d(depth[None, None], 3, stride=1, padding=1)[0, 0]
    hidden: Tensor = nearest - depth > jump
    return hidden


def _in_shadow(y: Float[Tensor, "r c"], depth: Float[Tensor, "r c"], degrees: float) -> Bool[Tensor, "r c"]:
    """Cells that the light from above (below, if negative) does not reach.

    A point sees the light unless another of its column crosses the ray: with slope t = cot(angle), points on one ray
    share z - t y, and a larger value further up hides a smaller one.
    """
    if degrees < 0:
        return _in_shadow(-y.flip(0), depth.flip(0), -degrees).flip(0)
    level = depth - y / math.tan(math.radians(degrees))
    dark: Tensor = level.cummax(0).values > level + 1e-3
    return dark


def _reflected(share: Float[Tensor, "r c"], generator: torch.Generator) -> Bool[Tensor, "r c"]:
    """Cells that are measured: whole patches where the share is large, ragged ones where it is not."""
    rows, columns = share.shape
    patches = smooth_field(rows, columns, max(2, round(rows / _PATCH_CELLS)), max(2, columns / _PATCH_CELLS), generator)
    level: Tensor = torch.special.ndtr(patches + 0.3 * torch.randn(rows, columns, generator=generator))
    return (level.to(share.device) < share) | (share >= 1)
