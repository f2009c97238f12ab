"""Registration of a few synthetic scans: depth grids of the model's own faces, with noise and lost steep cells."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.register import Registered, register
from facerecon_torch.registration.scan.surface import ScanBatch, resample_grid, stack_scans

from ..case import Case, Context, Group
from .data import default_model, draw_parameters

TITLE = "scans -> S*, M and their errors; scans of the model's own faces at 0.75 mm with 0.3 mm noise"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"scans": [1]},
    "quick": {"scans": []},
    "small": {"scans": [1, 4]},
    "full": {"scans": [1, 8, 24]},
}
_SPACING, _NOISE_MM, _STEEPEST = 0.75, 0.3, 0.2


def groups(context: Context) -> Iterator[Group]:
    """One group per number of scans."""
    model = default_model(context.device, context.dtype)
    for count in context.list("scans"):
        drawn = draw_parameters(model, count, seed=3)
        truth = model.vertices(drawn.identity, drawn.expression)
        scans, marks = _scan(model, truth)
        nowhere = torch.full_like(marks, torch.nan)
        case = Case(
            name="register",
            run=lambda scans=scans, marks=marks, nowhere=nowhere: register(model, scans, nowhere, marks),
            items=count,
            unit="scan",
            error=lambda found, truth=truth: _errors(found, truth),
            limits={"M off the truth where scanned, median mm": 1.0},
        )
        yield Group(name=f"{count} scans", cases=[case], axis="batch", x=count, rounds=3, expected_s=4.0 * count)


def _scan(model: FaceModel, truth: Tensor) -> tuple[ScanBatch, Tensor]:
    """The scans, and the 66 landmarks in the sensor's frame with 1 mm noise."""
    topology = model.topology
    if topology is None:
        raise ValueError("scanning needs a whole model; this one was restricted to some vertices")
    rng = torch.Generator().manual_seed(5)
    turned = truth.float()
    batches = [_grid(mesh, topology.triangles, rng) for mesh in turned]
    marks = turned[:, topology.landmark_vertices]
    marks = marks + torch.randn(marks.shape, generator=rng).to(marks.device)
    like = model.identity_mean
    return stack_scans(batches).to(like.device).to(like.dtype), marks.to(like)


def _grid(mesh: Tensor, triangles: Tensor, rng: torch.Generator) -> ScanBatch:
    low, high = mesh.amin(0), mesh.amax(0)
    columns, rows = (((high - low)[:2] / _SPACING).long() + 3).tolist()
    left, top = low[0] - _SPACING, high[1] + _SPACING
    seen = torch.stack([(mesh[:, 0] - left) / _SPACING, (top - mesh[:, 1]) / _SPACING, mesh[:, 2]], -1)
    raster = get_backend("warp").rasterise(seen[None], triangles, rows, columns)
    hit = raster.triangle[0]
    facing = vertex_normals(mesh[None], triangles)[0, :, 2][triangles[hit.clamp_min(0)]].mean(-1)
    valid = (hit >= 0) & (facing > _STEEPEST)
    depth = raster.depth[0] + _NOISE_MM * torch.randn(rows, columns, generator=rng).to(mesh.device)
    x = left + _SPACING * torch.arange(columns, device=mesh.device)
    y = top - _SPACING * torch.arange(rows, device=mesh.device)
    points = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns), depth], -1)
    return resample_grid(torch.where(valid[..., None], points, 0.0), valid, spacing=_SPACING)


def _errors(found: Registered, truth: Tensor) -> dict[str, float]:
    placed = found.mesh.to(truth) @ found.rotation.to(truth).mT + found.translation.to(truth)[:, None]
    gap = torch.linalg.vector_norm(placed - truth, dim=-1)[found.covered]
    return {
        "M off the truth where scanned, median mm": float(gap.median()),
        "scans with a flag": float(sum(bool(flags) for flags in found.flags)),
    }
