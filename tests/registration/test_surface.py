"""Depth grids: planes stay planes, spikes go, jumps and holes stay, grids of any kind meet the surface they show."""

import pytest
import torch

from facerecon_torch.registration.scan.surface import resample_grid, resample_mesh, stack_scans
from tests.registration.scanning import scan_grid
from tests.tiny_model import tiny_bilinear


def _grid(depth, spacing=0.75):
    """A regular grid of points from depth [r, c], row 0 on top."""
    rows, columns = depth.shape
    x = spacing * torch.arange(columns, dtype=depth.dtype) - 20
    y = 30 - spacing * torch.arange(rows, dtype=depth.dtype)
    return torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns), depth], -1)


def _slope(rows=40, columns=50, across=0.4, up=-0.3, dtype=torch.float64):
    points = _grid(torch.zeros(rows, columns, dtype=dtype))
    return _grid(across * points[..., 0] + up * points[..., 1] - 600)


@pytest.mark.parametrize("spacing", [0.5, 0.75, 1.1])
def test_a_slope_keeps_its_plane_and_normal(spacing, dtype):
    tolerance = 3e-3 if dtype == torch.float32 else 1e-5  # mm; the rasteriser works in float32
    points = _slope(dtype=dtype)
    scan = resample_grid(points, torch.ones(40, 50, dtype=torch.bool), spacing=spacing)
    inner = scan.valid & (scan.weights > 0.9)
    assert inner.float().mean() > 0.6
    found = scan.points[inner]
    plane = 0.4 * found[:, 0] - 0.3 * found[:, 1] - 600
    torch.testing.assert_close(found[:, 2], plane, atol=tolerance, rtol=0)
    normal = torch.tensor([-0.4, 0.3, 1.0], dtype=dtype)
    expected = (normal / normal.norm()).expand(len(found), -1)
    torch.testing.assert_close(scan.normals[inner], expected, atol=3 * tolerance, rtol=0)


def test_cells_lie_where_the_grid_says():
    scan = resample_grid(_slope(), torch.ones(40, 50, dtype=torch.bool))
    row, column = torch.nonzero(scan.valid[0])[123].tolist()
    x, y = scan.points[0, row, column, :2].tolist()
    assert x == pytest.approx(float(scan.origin[0, 0]) + 0.75 * column)
    assert y == pytest.approx(float(scan.origin[0, 1]) - 0.75 * row)  # row 0 is the top


def test_spikes_go_and_the_surface_around_them_stays():
    points = _slope()
    for row, column, off in ((10, 10, 9.0), (20, 31, -14.0), (20, 32, -12.0), (33, 5, 4.0)):
        points[row, column, 2] += off
    scan = resample_grid(points, torch.ones(40, 50, dtype=torch.bool))
    found = scan.points[scan.valid]
    off_plane = (found[:, 2] - (0.4 * found[:, 0] - 0.3 * found[:, 1] - 600)).abs()
    assert off_plane.max() < 1e-6
    assert scan.valid.float().mean() > 0.85


def test_a_jump_in_depth_is_not_bridged():
    depth = torch.zeros(40, 60, dtype=torch.float64)
    depth[:, 30:] = 8.0
    scan = resample_grid(_grid(depth), torch.ones(40, 60, dtype=torch.bool))
    heights, normals = scan.points[scan.valid][:, 2], scan.normals[scan.valid]
    assert set(heights.round(decimals=6).tolist()) == {0.0, 8.0}
    assert normals[:, 2].min() > 1 - 1e-9
    edge = (scan.points[..., 0] - (30 * 0.75 - 20.375)).abs() < 1.2
    inside = scan.points[..., 1].abs() < 10
    assert scan.weights[scan.valid & edge & inside].max() < scan.weights.max()


def test_holes_stay_holes_and_their_rims_count_less():
    valid = torch.ones(40, 50, dtype=torch.bool)
    valid[15:25, 20:30] = False
    points = _slope()
    points[~valid] = torch.nan  # what is not valid may hold anything
    scan = resample_grid(points, valid)
    x, y = scan.origin[0, 0] + 0.75 * torch.arange(scan.valid.shape[2]), scan.origin[0, 1] - 0.75 * torch.arange(40)
    middle = scan.valid[0, (y - 15.4).abs().argmin(), (x + 1.5).abs().argmin()]
    assert not middle
    holes = (~scan.valid).double()[None]
    at_rim = torch.nn.functional.max_pool2d(holes, 3, stride=1, padding=1)[0].bool() & scan.valid
    assert scan.weights[at_rim].mean() < 0.5 < scan.weights[scan.valid & ~at_rim].mean()
    for field in (scan.points, scan.normals, scan.weights):
        assert not field[~scan.valid].any()


def test_a_perspective_grid_meets_its_sphere():
    """Rays of a camera 500 mm away; the cells are neither square nor aligned with the answer's."""
    across, up = torch.meshgrid(torch.linspace(-0.11, 0.11, 90), torch.linspace(0.12, -0.12, 110), indexing="xy")
    rays = torch.nn.functional.normalize(torch.stack([across, up, -torch.ones_like(up)], -1), dim=-1).double()
    centre = torch.tensor([0.0, 0.0, -500.0], dtype=torch.float64)
    along = (rays @ centre).unsqueeze(-1)
    inside = along.square() - centre.square().sum() + 60.0**2
    points = rays * (along - inside.clamp_min(0).sqrt())
    scan = resample_grid(points, inside[..., 0] > 1.0)
    sure = scan.weights > 0.9
    assert sure.sum() > 2000
    radius = (scan.points[sure] - centre).norm(dim=-1)
    assert (radius - 60).abs().max() < 0.05
    outward = (scan.points[sure] - centre) / radius[:, None]
    assert (outward * scan.normals[sure]).sum(-1).min() > 0.999


def test_noise_of_a_scan_falls_to_a_third(rng):
    points = _slope(100, 100, 0.1, 0.2)
    noisy = points.clone()
    noisy[..., 2] += 0.3 * torch.randn(100, 100, generator=rng, dtype=torch.float64)
    scan = resample_grid(noisy, torch.ones(100, 100, dtype=torch.bool))
    found = scan.points[scan.weights > 0.9]
    off = found[:, 2] - (0.1 * found[:, 0] + 0.2 * found[:, 1] - 600)
    assert off.std() < 0.12
    assert off.mean().abs() < 0.01


def test_meshes_and_grids_of_one_face_agree(rng):
    model = tiny_bilinear()
    vertices = model.vertices(model.identity_mean, model.expression_mean)
    points, valid = scan_grid(vertices, model.topology.triangles, rng, noise_sd=0.0, spikes=0.0)
    grid = resample_grid(points, valid)
    mesh = resample_mesh(vertices, model.topology.triangles)
    places = grid.points[(grid.weights > 0.9)][::37]
    cell = ((places[:, :2] - mesh.origin) * torch.tensor([1.0, -1.0]) / 0.75).round().long()
    there = mesh.points[0, cell[:, 1], cell[:, 0]]
    slope = -mesh.normals[0, cell[:, 1], cell[:, 0], :2] / mesh.normals[0, cell[:, 1], cell[:, 0], 2:]
    expected = there[:, 2] + ((places - there)[:, :2] * slope).sum(-1)
    assert (places[:, 2] - expected).abs().median() < 0.02


def test_stacked_scans_keep_their_cells():
    small = resample_grid(_slope(30, 35), torch.ones(30, 35, dtype=torch.bool))
    large = resample_grid(_slope(40, 50), torch.ones(40, 50, dtype=torch.bool))
    batch = stack_scans([small, large])
    assert len(batch) == 2
    rows, columns = small.valid.shape[1:]
    assert torch.equal(batch.points[0, :rows, :columns], small.points[0])
    assert int(batch.valid[0].sum()) == int(small.valid.sum())
    assert torch.equal(batch[1:2].normals, large.normals)
    assert torch.equal(batch.origin, torch.cat([small.origin, large.origin]))


def test_a_batch_changes_its_dtype():
    scan = resample_grid(_slope(), torch.ones(40, 50, dtype=torch.bool)).to(torch.float32)
    assert {scan.points.dtype, scan.normals.dtype, scan.weights.dtype, scan.origin.dtype} == {torch.float32}
    assert scan.valid.dtype == torch.bool


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"valid": torch.zeros(40, 50, dtype=torch.bool)}, "at least one triangle"),
        ({"valid": torch.ones(40, 49, dtype=torch.bool)}, "valid must have"),
        ({"points": torch.full((40, 50, 3), torch.nan)}, "finite"),
        ({"spacing": 0.0}, "spacing"),
        ({"points": _grid(100.0 * (torch.arange(2000).view(40, 50) * 7 % 3))}, "at least one triangle"),
    ],
)
def test_what_is_no_scan_is_refused(change, match):
    arguments = {"points": _slope(), "valid": torch.ones(40, 50, dtype=torch.bool), "spacing": 0.75, **change}
    with pytest.raises(ValueError, match=match):
        resample_grid(arguments["points"], arguments["valid"], spacing=arguments["spacing"])


def test_other_mistakes_are_refused():
    scan = resample_grid(_slope(), torch.ones(40, 50, dtype=torch.bool))
    coarse = resample_grid(_slope(), torch.ones(40, 50, dtype=torch.bool), spacing=1.0)
    with pytest.raises(ValueError, match="one spacing"):
        stack_scans([scan, coarse])
    with pytest.raises(ValueError, match="at least one scan"):
        stack_scans([])
    with pytest.raises(TypeError, match="bool"):
        resample_grid(_slope(), torch.ones(40, 50))
    with pytest.raises(ValueError, match="at most"):
        resample_mesh(1e5 * torch.eye(3), torch.tensor([[0, 1, 2]]))
