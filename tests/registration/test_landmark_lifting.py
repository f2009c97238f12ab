"""Image landmarks on the scan: exact on planes, on the front surface, NaN where there is no scan."""

import pytest
import torch

from facerecon_torch.registration.scan.landmark_lifting import lift_landmarks

_CENTRE = torch.tensor([279.0, 349.0])


def _wall(rows=60, columns=50, depth=-600.0):
    """A slanted wall on a regular grid and its places in the image, 6 px a cell."""
    x = 0.765 * (torch.arange(columns) - columns / 2)
    y = 0.765 * (rows / 2 - torch.arange(rows))
    points = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns), torch.zeros(rows, columns)], -1)
    points[..., 2] = depth + 0.3 * points[..., 0] - 0.5 * points[..., 1]
    pixels = points[..., :2] * torch.tensor([6.0, -6.0]) / 0.765 + _CENTRE
    return points, torch.ones(rows, columns, dtype=torch.bool), pixels


def _expected(landmarks, depth=-600.0):
    place = (landmarks - _CENTRE) * torch.tensor([0.765, -0.765]) / 6
    return torch.cat([place, (depth + 0.3 * place[:, :1] - 0.5 * place[:, 1:])], 1)


def _spread(n, rng):
    return _CENTRE + (torch.rand(n, 2, generator=rng) - 0.5) * torch.tensor([260.0, 320.0])


def test_a_plane_is_met_exactly_between_its_points(rng):
    landmarks = _spread(66, rng)
    found = lift_landmarks(*_wall(), landmarks)
    torch.testing.assert_close(found, _expected(landmarks), atol=0.02, rtol=0)


def test_a_list_of_vertices_does_as_well(rng):
    points, valid, pixels = _wall()
    order = torch.randperm(valid.numel(), generator=rng)
    landmarks = _spread(20, rng)
    parts = (points.flatten(0, 1)[order], valid.flatten()[order], pixels.flatten(0, 1)[order])
    torch.testing.assert_close(lift_landmarks(*parts, landmarks), lift_landmarks(points, valid, pixels, landmarks))


def test_no_point_off_the_scan_or_over_a_hole(rng):
    points, valid, pixels = _wall()
    valid[20:40, 15:35] = False
    points[~valid] = torch.nan
    hole = pixels[30, 25]
    landmarks = torch.stack([hole, _CENTRE + 1000, torch.tensor([torch.nan, 3.0]), pixels[5, 5], pixels[19, 20] + 4.0])
    found = lift_landmarks(points, valid, pixels, landmarks)
    assert torch.isnan(found).all(1).tolist() == [True, True, True, False, False]
    torch.testing.assert_close(found[3], points[5, 5], atol=0.01, rtol=0)
    torch.testing.assert_close(found[4:], _expected(landmarks[4:]), atol=0.3, rtol=0)


def test_the_front_surface_is_taken(rng):
    back, valid, pixels = _wall(depth=-640.0)
    front, _, _ = _wall()
    landmarks = _spread(30, rng)
    both = [torch.cat([a, b]) for a, b in ((back, front), (valid, valid), (pixels, pixels + 0.5))]
    found = lift_landmarks(*both, landmarks)
    torch.testing.assert_close(found, _expected(landmarks - 0.5), atol=0.05, rtol=0)


def test_a_scan_of_few_points_lifts_nothing():
    points, valid, pixels = _wall()
    valid[:] = False
    valid[0, :5] = True
    assert torch.isnan(lift_landmarks(points, valid, pixels, pixels[0, :5])).all()


def test_shapes_are_checked():
    points, valid, pixels = _wall()
    with pytest.raises(ValueError, match="pixels"):
        lift_landmarks(points, valid, pixels[:-1], torch.zeros(66, 2))
    with pytest.raises(ValueError, match="landmarks"):
        lift_landmarks(points, valid, pixels, torch.zeros(66, 3))


def test_the_answer_follows_its_input(device, dtype, rng):
    points, valid, pixels = (x.to(device) for x in _wall())
    found = lift_landmarks(points.to(dtype), valid, pixels, _spread(5, rng).to(device))
    assert (found.device.type, found.dtype) == (device.type, dtype)
