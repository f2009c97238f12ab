"""Closest scan points: equal to the exact ones near the surface, none where the scan says nothing."""

from dataclasses import replace

import pytest
import torch

from facerecon_torch.registration.scan.icp import AssociationSpec, associate
from facerecon_torch.registration.scan.surface import resample_grid, stack_scans
from tests.reference.scan_loops import closest_on_grid

_CENTRE = torch.tensor([0.0, 0.0, -50.0], dtype=torch.float64)
_RADIUS = 30.0


def _ball(*, hole=None, spacing=0.75):
    """The front of a ball of 30 mm as a scan, up to 60 degrees from its pole."""
    x = torch.arange(-26.0, 26.5, spacing, dtype=torch.float64)
    points = torch.stack([x.expand(len(x), -1), -x[:, None].expand(-1, len(x)), torch.zeros(len(x), len(x))], -1)
    squared = points[..., :2].square().sum(-1)
    points[..., 2] = _CENTRE[2] + (_RADIUS**2 - squared).clamp_min(0).sqrt()
    valid = squared < 26.0**2
    if hole is not None:
        valid &= (points[..., :2] - torch.tensor(hole)).norm(dim=-1) > 5
    return resample_grid(points, valid, spacing=spacing), points, valid


def _around(n, generator, *, degrees=45.0, off=2.0):
    """Points near the ball and the normals of the ball below them."""
    tilt = torch.deg2rad(torch.tensor(degrees)) * torch.rand(n, generator=generator, dtype=torch.float64).sqrt()
    turn = 2 * torch.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    normals = torch.stack([tilt.sin() * turn.cos(), tilt.sin() * turn.sin(), tilt.cos()], -1)
    height = off * (2 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1)
    return _CENTRE + (_RADIUS + height) * normals, normals, height[:, 0]


def test_distances_are_those_of_the_twin(rng):
    scan, points, valid = _ball()
    vertices, normals, height = _around(60, rng)
    found = associate(vertices[None], normals[None], scan, AssociationSpec())
    exact = closest_on_grid(points.numpy(), valid.numpy(), vertices.numpy())
    assert (found.weight > 0).all()
    assert (found.distance[0].abs() - torch.from_numpy(exact)).abs().max() < 0.03
    assert torch.equal(found.distance[0] > 0.1, height > 0.1)  # in front of the scan: positive
    expected = _CENTRE + _RADIUS * normals
    assert (found.point[0] - expected).norm(dim=-1).max() < 0.15
    assert (found.normal[0] * normals).sum(-1).min() > 0.999


def test_a_batch_gives_what_each_scan_gives_alone(rng):
    scans = [_ball()[0], _ball(hole=(5.0, 3.0))[0], _ball(spacing=0.75)[0]]
    vertices, normals = (torch.stack([_around(50, rng)[k] for _ in scans]) for k in (0, 1))
    together = associate(vertices, normals, stack_scans(scans), AssociationSpec())
    for k, scan in enumerate(scans):
        alone = associate(vertices[k : k + 1], normals[k : k + 1], scan, AssociationSpec())
        for a, b in zip(together, alone):
            torch.testing.assert_close(a[k], b[0])


def test_no_partner_over_holes_rims_and_outside(rng):
    vertices, normals, _ = _around(200, rng, off=0.5)
    holed = associate(vertices[None], normals[None], _ball(hole=(5.0, 3.0))[0], AssociationSpec()).weight[0]
    over = (vertices[:, :2] - torch.tensor([5.0, 3.0])).norm(dim=-1)
    assert not holed[over < 4].any()
    assert (holed[over > 9] > 0.5).all()
    assert int((over < 4).sum()) > 0
    ring, ring_normals, _ = _around(200, rng, degrees=80.0, off=0.5)
    weight = associate(ring[None], ring_normals[None], _ball()[0], AssociationSpec()).weight[0]
    beyond = ring[:, :2].norm(dim=-1) > 27
    assert not weight[beyond].any()
    assert int(beyond.sum()) > 20
    far = associate(vertices[None] + 500, normals[None], _ball()[0], AssociationSpec())
    assert not far.weight.any()
    assert all(torch.isfinite(field).all() for field in far)


def test_the_distance_gate_is_tukeys_weight(rng):
    scan, _, _ = _ball()
    _, normals, _ = _around(40, rng, degrees=20.0)
    for height, expected in ((0.0, 1.0), (2.0, (1 - 0.25) ** 2), (3.9, (1 - 0.975**2) ** 2), (4.1, 0.0)):
        vertices = _CENTRE + (_RADIUS + height) * normals
        weight = associate(vertices[None], normals[None], scan, AssociationSpec(distance=4.0)).weight
        assert (weight - expected).abs().max() < 0.02


def test_turned_normals_have_no_partner(rng):
    scan, _, _ = _ball()
    vertices, normals, _ = _around(40, rng, degrees=20.0, off=0.5)
    spec = AssociationSpec(normal_degrees=45.0)
    assert not associate(vertices[None], -normals[None], scan, spec).weight.any()

    def weight(degrees):
        aside = torch.linalg.cross(normals, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(normals))
        aside = aside / aside.norm(dim=-1, keepdim=True)
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return associate(vertices[None], (angle.cos() * normals + angle.sin() * aside)[None], scan, spec).weight[0]

    assert (weight(10.0) > 0.85).all()
    assert ((weight(30.0) > 0.2) & (weight(30.0) < 0.75)).all()
    assert not weight(48.0).any()


def test_a_scan_without_cells_gives_no_partners(rng):
    scan, _, _ = _ball()
    zeros = {name: torch.zeros_like(getattr(scan, name)) for name in ("points", "normals", "valid", "weights")}
    empty = replace(scan, **zeros)
    vertices, normals, _ = _around(10, rng)
    found = associate(vertices[None], normals[None], empty, AssociationSpec())
    assert not found.weight.any()
    assert all(torch.isfinite(field).all() for field in found)


def test_everything_stays_on_its_device(device, dtype, rng):
    scan, _, _ = _ball()
    vertices, normals, _ = _around(10, rng)
    moved = [x[None].to(device, dtype) for x in (vertices, normals)]
    found = associate(*moved, scan.to(device).to(dtype), AssociationSpec())
    assert all(field.device.type == device.type and field.dtype == dtype for field in found)


@pytest.mark.parametrize(
    "change", [{"distance": 0.0}, {"normal_degrees": 91.0}, {"steps": -1}, {"distance": torch.nan}]
)
def test_a_spec_refuses_what_makes_no_sense(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        AssociationSpec(**change)
