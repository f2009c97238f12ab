"""The shaded picture of a mesh against the z-buffer that other tests compare with brute force."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.mesh_types import averaged_shades


def _soup(rng, triangles, size):
    points = torch.rand(3 * triangles, 3, generator=rng, dtype=torch.float64) * size * 1.4 - 0.2 * size
    return points, torch.arange(3 * triangles).reshape(-1, 3), torch.rand(3 * triangles, generator=rng)


@pytest.mark.parametrize("finer", [1, 2, 3, 8])
def test_it_equals_the_mean_of_shifted_rasters(finer, rng, device):
    points, triangles, shades = (values.to(device) for values in _soup(rng, 14, 24.0))
    drawn = get_backend().shade(points, triangles, shades, (20, 24), finer=finer)
    place = (torch.arange(finer, dtype=torch.float64, device=device) + 0.5) / finer - 0.5
    shifted = torch.stack([place, place, torch.zeros_like(place)], -1)[:, None]
    raster = get_backend().rasterise(points - shifted, triangles, 20, 24)
    expected = averaged_shades(raster, triangles, shades)
    assert 0.3 < expected[0].mean() < 1
    assert_close(drawn, expected, rtol=0, atol=2e-3)  # 11 bits of shade


def test_neighbours_leave_no_gap_and_show_nothing_behind(rng):
    grid = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij"), -1).reshape(-1, 2)
    points = torch.cat([grid * 1.7 - 3, torch.ones(1600, 1)], -1).double()
    points[:, :2] += 0.6 * torch.rand(1600, 2, generator=rng, dtype=torch.float64)
    cell = (torch.arange(39)[:, None] * 40 + torch.arange(39)).reshape(-1, 1)
    triangles = torch.cat([cell + torch.tensor([0, 1, 40]), cell + torch.tensor([1, 41, 40])])
    behind = torch.tensor([[-500.0, -500, 0], [900, -500, 0], [-500, 900, 0]]).double()
    shades = torch.cat([torch.full((1600,), 0.25), torch.ones(3)])
    both = torch.cat([triangles, torch.tensor([[1600, 1601, 1602]])])
    drawn = get_backend().shade(torch.cat([points, behind]), both, shades, (60, 60), finer=3)
    assert (drawn[0] == 1).all()
    assert_close(drawn[1], torch.full((60, 60), 0.25), rtol=0, atol=1e-3)


def test_without_triangles_it_is_empty():
    nothing = get_backend().shade(
        torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64), torch.ones(3), (4, 5), finer=2
    )
    assert nothing.shape == (2, 4, 5)
    assert not nothing.any()
