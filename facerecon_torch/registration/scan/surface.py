"""Scans as regular orthographic depth grids, in the sensor's frame (mm, +x right, +y up, +z towards the sensor).

A grid holds all information of a scan from one view. The closest point is looked up in it by a gather: there is no
search tree, every device runs the same code, and scans of any kind share one batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.registration.scan.depth_cells import bridged, fit_planes, without_spikes
from facerecon_torch.structures import TensorRecord

__all__ = ["ScanBatch", "resample_grid", "resample_mesh", "stack_scans"]

LARGEST_SIDE = 4096
"""Cells; a face is 300 wide. A wrong unit or a stray point gives more."""
_STEEP, _FLAT = math.cos(math.radians(80)), math.cos(math.radians(60))
_RIM_SUPPORT = (0.55, 0.9)  # of a full neighbourhood: no weight, full weight; a straight rim has about 0.5


@dataclass(frozen=True, kw_only=True)
class ScanBatch(TensorRecord):
    """Depth grids of b scans: cell (i, j) lies at x = origin_x + spacing j, y = origin_y - spacing i, in mm.

    Invalid cells hold zeros in every field. Normals are unit vectors towards the sensor, of the smoothed depth.
    `weights` in [0, 1] fall to 0 at rims and where the sensor sees the surface at a grazing angle.
    """

    points: Float[Tensor, "b r c 3"]
    normals: Float[Tensor, "b r c 3"]
    valid: Bool[Tensor, "b r c"]
    weights: Float[Tensor, "b r c"]
    origin: Float[Tensor, "b 2"]
    spacing: float


@torch.no_grad()
def resample_grid(points: Tensor, valid: Tensor, *, spacing: float = 0.75) -> ScanBatch:
    """A sensor's grid of points, regular or perspective, as a batch of one.

    Spikes are left out, neighbours on one surface are joined by triangles, and the triangles are seen from the sensor.

    Args:
        points: [r, c, 3] in mm; row 0 is the top, x grows with the column.
        valid: [r, c], False where nothing was measured; such points may hold anything.
        spacing: mm between the cells of the result.

    Raises:
        ValueError: shapes or values that do not fit, or no surface that is left.
        TypeError: `points` are no floats, or `valid` is not bool.

    Example:
        >>> scan = resample_grid(grid.points.float(), grid.valid)
    """
    _require_grid(points, valid)
    _require_spacing(spacing)
    clean = without_spikes(points[None, ..., 2], valid[None])[0]
    triangles = _grid_triangles(points, clean)
    return resample_mesh(points.flatten(0, 1), triangles, spacing=spacing)


@torch.no_grad()
def resample_mesh(vertices: Tensor, triangles: Tensor, *, spacing: float = 0.75) -> ScanBatch:
    """A mesh in the sensor's frame, seen from the front, as a batch of one.

    Args:
        vertices: [V, 3] in mm.
        triangles: [T, 3], int64.
        spacing: mm between the cells of the result.

    Raises:
        ValueError: values that are not finite, no triangle, or a mesh too large for the spacing.
        TypeError: wrong dtypes.

    Example:
        >>> scan = resample_mesh(mesh.vertices, mesh.triangles)
    """
    require_shape("vertices", vertices, (None, 3))
    require_shape("triangles", triangles, (None, 3))
    if not vertices.is_floating_point() or triangles.dtype != torch.int64:
        raise TypeError(f"vertices must be floats, triangles int64; got {vertices.dtype} and {triangles.dtype}")
    _require_spacing(spacing)
    if not len(triangles):
        raise ValueError("a scan must have at least one triangle (cells next to each other on one surface); got none")
    used = vertices[triangles.flatten()]
    require_finite("vertices", used)
    low, high = used.amin(0) - spacing, used.amax(0) + spacing
    columns, rows = (int(side) for side in ((high - low)[:2] / spacing).ceil() + 1)
    if max(rows, columns) > LARGEST_SIDE:
        raise ValueError(
            f"a scan must have at most {LARGEST_SIDE} x {LARGEST_SIDE} cells of {spacing} mm; got {rows} x {columns}"
        )
    origin = torch.stack([low[0], high[1]])
    middle = used[:, 2].mean()
    cells = (vertices[:, :2] - origin) * vertices.new_tensor([1.0, -1.0]) / spacing
    image = torch.cat([cells, vertices[:, 2:] - middle], 1)
    raster = get_backend().rasterise(image[None], triangles, rows, columns)
    return _batch_of(raster.depth + middle, raster.triangle >= 0, origin, spacing)


def stack_scans(scans: Sequence[ScanBatch]) -> ScanBatch:
    """The scans in one batch; smaller grids are filled up with invalid cells at the right and the bottom.

    Args:
        scans: batches of one spacing, of any size.

    Raises:
        ValueError: no scans, or scans of different spacing.

    Example:
        >>> batch = stack_scans([resample_mesh(*mesh) for mesh in meshes])
    """
    if not scans:
        raise ValueError("scans must hold at least one scan; got none")
    spacings = sorted({scan.spacing for scan in scans})
    if len(spacings) > 1:
        raise ValueError(f"scans of one batch must have one spacing; got {spacings} mm")
    rows, columns = (max(scan.valid.shape[k] for scan in scans) for k in (1, 2))

    def padded(scan: ScanBatch) -> ScanBatch:
        ends = (0, columns - scan.valid.shape[2], 0, rows - scan.valid.shape[1])
        return replace(
            scan,
            points=pad(scan.points, (0, 0, *ends)),
            normals=pad(scan.normals, (0, 0, *ends)),
            valid=pad(scan.valid, ends),
            weights=pad(scan.weights, ends),
        )

    return ScanBatch.cat([padded(scan) for scan in scans])


def _batch_of(
    depth: Float[Tensor, "1 r c"], hit: Bool[Tensor, "1 r c"], origin: Float[Tensor, "2"], spacing: float
) -> ScanBatch:
    """Planes, normals and weights of the cells that the rasteriser hit."""
    planes = fit_planes(depth, without_spikes(depth, hit), spacing)
    rows, columns = depth.shape[-2:]
    x = origin[0] + spacing * torch.arange(columns, device=depth.device)
    y = origin[1] - spacing * torch.arange(rows, device=depth.device)
    grid = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], -1)
    points = torch.cat([grid[None], planes.depth[..., None]], -1)
    start, end = _RIM_SUPPORT
    weights = ((planes.support - start) / (end - start)).clamp(0, 1)
    weights = weights * ((planes.normals[..., 2] - _STEEP) / (_FLAT - _STEEP)).clamp(0, 1)
    valid = planes.valid
    points, normals = (torch.where(valid[..., None], field, 0.0) for field in (points, planes.normals))
    weights = torch.where(valid, weights, 0.0)
    return ScanBatch(
        points=points,
        normals=normals,
        valid=valid,
        weights=weights,
        origin=origin[None].to(depth.dtype),
        spacing=spacing,
    )


def _grid_triangles(points: Float[Tensor, "r c 3"], valid: Bool[Tensor, "r c"]) -> Int[Tensor, "t 3"]:
    """Both triangles of every cell whose four corners are valid and on one surface; one triangle for three corners."""
    rows, columns = valid.shape
    index = torch.arange(rows * columns, device=points.device).view(rows, columns)
    top, bottom, left, right = slice(None, -1), slice(1, None), slice(None, -1), slice(1, None)
    a, b, c, d = index[top, left], index[bottom, left], index[bottom, right], index[top, right]
    # The diagonal follows the smaller step in depth, so that it does not cut across a ridge. Where one corner is
    # missing, the diagonal avoids it.
    flat, measured = points.flatten(0, 1), valid.flatten()
    falling = (flat[a, 2] - flat[c, 2]).abs() <= (flat[b, 2] - flat[d, 2]).abs()
    falling = torch.where(measured[a] & measured[c], falling | ~(measured[b] & measured[d]), False)
    first = torch.where(falling[..., None], torch.stack([a, b, c], -1), torch.stack([a, b, d], -1))
    second = torch.where(falling[..., None], torch.stack([a, c, d], -1), torch.stack([b, c, d], -1))
    triangles = torch.cat([first.flatten(0, 1), second.flatten(0, 1)])
    corners = flat[triangles]
    edges = corners - corners.roll(1, dims=1)
    joined = bridged(edges[..., 2], torch.linalg.vector_norm(edges[..., :2], dim=-1)).all(1)
    return triangles[measured[triangles].all(1) & joined]


def _require_grid(points: Tensor, valid: Tensor) -> None:
    require_shape("points", points, (None, None, 3))
    require_shape("valid", valid, tuple(points.shape[:2]))
    if not points.is_floating_point() or valid.dtype != torch.bool:
        raise TypeError(f"points must be floats and valid bool; got {points.dtype} and {valid.dtype}")
    require_finite("points", torch.where(valid[..., None], points, 0.0))


def _require_spacing(spacing: float) -> None:
    if not 0 < spacing < math.inf:
        raise ValueError(f"spacing must be positive and finite; got {spacing} mm")
