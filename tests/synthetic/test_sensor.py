"""The range sensor on surfaces whose answer is known."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.synthetic.render.range_sensor import (
    GridWindow,
    SensorSpec,
    scan_mesh,
    simulate_sensor,
)

CLEAN = SensorSpec(noise_sd=0, spike_share=0.0, projector=0)


def window_around(points: torch.Tensor, spacing: float = 0.765, margin: float = 2.0) -> GridWindow:
    """The smallest window that holds points and `margin` mm around them."""
    low, high = points.amin(0), points.amax(0)
    columns, rows = (((high - low)[:2] + 2 * margin) / spacing).ceil().int().tolist()
    return GridWindow(
        left=float(low[0]) - margin, top=float(high[1]) + margin, rows=rows + 1, columns=columns + 1, spacing=spacing
    )


def scan(
    mesh: tuple[torch.Tensor, torch.Tensor], spec: SensorSpec, generator: torch.Generator, spacing: float = 0.765
) -> RangeGrid:
    """The range grid of a whole mesh."""
    return scan_mesh(*mesh, window=window_around(mesh[0], spacing), generator=generator, spec=spec)


def plane(tilt: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A square of 80 mm at z = 5 + tan(tilt) x."""
    x, y = torch.meshgrid(torch.tensor([-40.0, 40.0]), torch.tensor([-40.0, 40.0]), indexing="xy")
    z = 5 + math.tan(tilt) * x
    return torch.stack([x, y, z], -1).reshape(-1, 3), torch.tensor([[0, 1, 3], [0, 3, 2]])


def step(height: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two facing half planes: y > 0 stands `height` mm nearer than y < 0."""
    low = torch.tensor([[-40.0, -40.0, 0.0], [40.0, -40.0, 0.0], [40.0, 0.0, 0.0], [-40.0, 0.0, 0.0]])
    high = torch.tensor([[-40.0, 0.0, height], [40.0, 0.0, height], [40.0, 40.0, height], [-40.0, 40.0, height]])
    quads = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return torch.cat([low, high]), torch.cat([quads, quads + 4])


def test_cells_lie_on_the_lattice_and_on_the_mesh(rng):
    vertices, triangles = plane(0.5)
    window = window_around(vertices, spacing=0.8, margin=3)
    grid = scan_mesh(vertices, triangles, generator=rng, window=window, spec=CLEAN)
    assert grid.shape == (window.rows, window.columns)
    x, y, z = grid.measured.unbind(1)
    assert_close(z, 5 + math.tan(0.5) * x, rtol=0, atol=1e-4)
    column = (grid.points[..., 0] - window.left) / 0.8
    at = torch.arange(window.columns).float().expand(grid.shape)
    assert_close(column[grid.valid], at[grid.valid], rtol=0, atol=1e-3)
    assert float(y.amax()) == pytest.approx(40, abs=0.8)
    rows = grid.valid.any(1).nonzero()[:, 0]
    assert float(grid.points[rows[0], :, 1].amax()) > float(grid.points[rows[-1], :, 1].amax())  # row 0 is the top
    assert int(grid.valid.sum()) == pytest.approx((80 / 0.8) ** 2, rel=0.03)


def test_places_in_the_window_are_cells():
    window = GridWindow(left=-10.0, top=20.0, rows=5, columns=4, spacing=0.5)
    cells = window.to_cells(torch.tensor([[-10.0, 20.0, 3.0], [-9.0, 19.5, 0.0]]))
    assert_close(cells, torch.tensor([[0.0, 0.0], [2.0, 1.0]]))


def test_noise_has_the_deviation_asked_for(rng):
    grid = scan(plane(), SensorSpec(noise_sd=0.3, spike_share=0.0, projector=0), rng)
    assert float(grid.measured[:, 2].sub(5).std()) == pytest.approx(0.3, rel=0.05)


def test_spikes_are_rare_and_large(rng):
    spec = SensorSpec(noise_sd=0, spike_share=0.01, spike_mm=(4.0, 9.0), projector=0)
    away = (scan(plane(), spec, rng).measured[:, 2] - 5).abs()
    assert float((away > 1e-3).float().mean()) == pytest.approx(0.01, rel=0.4)
    low, high = away[away > 1e-3].aminmax()
    assert (float(low), float(high)) == (pytest.approx(4, abs=0.5), pytest.approx(9, abs=0.5))


@pytest.mark.parametrize(("degrees", "seen"), [(70, True), (85, False)])
def test_grazing_and_averted_surfaces_are_not_measured(degrees, seen, rng):
    vertices, triangles = plane(math.radians(degrees))
    if seen:
        scan((vertices, triangles), CLEAN, rng)
    else:
        with pytest.raises(ValueError, match="at least one measured point"):
            scan((vertices, triangles), CLEAN, rng)
    with pytest.raises(ValueError, match="at least one measured point"):
        scan((vertices, triangles.flip(1)), CLEAN, rng)


@pytest.mark.parametrize("degrees", [15, -15])
def test_the_projector_throws_the_shadow_of_a_step(degrees, rng):
    vertices, triangles = step(20.0)
    if degrees < 0:  # lit from below, the step must stand below
        vertices, triangles = vertices * torch.tensor([1.0, -1.0, 1.0]), triangles.flip(1)
    spec = SensorSpec(noise_sd=0, spike_share=0.0, projector=degrees)
    grid = scan((vertices, triangles), spec, rng, 0.5)
    lower = grid.measured[grid.measured[:, 2] < 1]
    assert float(lower[:, 1].abs().amin()) == pytest.approx(20 * math.tan(math.radians(15)), abs=0.51)
    higher = grid.measured[grid.measured[:, 2] > 1]
    assert float(higher[:, 1].abs().amin()) < 0.51  # the near side of the step is kept to its rim


def test_only_the_far_side_of_a_jump_is_lost(rng):
    grid = scan(step(20.0), CLEAN, rng, 0.5)
    assert 0.49 < float(-grid.measured[grid.measured[:, 2] < 1][:, 1].amax()) < 1.01
    even = scan(step(5.0), CLEAN, rng, 0.5)
    assert bool(even.valid[1:-1, 5:-5][:, :100].any(1)[5:-5].all())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_dark_surfaces_are_measured_in_part(share, rng):
    points = torch.zeros(120, 120, 3)
    flat = torch.ones(120, 120)
    shares = torch.full((120, 120), share)
    shares[:, 100:] = 1.0  # something must be left to measure
    valid = simulate_sensor(points, flat, flat > 0, CLEAN, generator=rng, reflectance=shares).valid
    assert bool(valid[:, 100:].all())
    assert float(valid[:, :100].float().mean()) == pytest.approx(share, abs=0.15)


def test_the_same_numbers_give_the_same_scan():
    first, second = (scan(plane(), SensorSpec(), torch.Generator().manual_seed(seed)).points for seed in (4, 4))
    assert torch.equal(first, second)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="noise and spikes"):
        SensorSpec(noise_sd=-1.0)
    with pytest.raises(ValueError, match="grazing"):
        SensorSpec(grazing=120)
    with pytest.raises(ValueError, match="at least one cell"):
        GridWindow(left=0.0, top=0.0, rows=0, columns=3)
