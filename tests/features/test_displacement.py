import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.features.joint import displacement


def landmarks():
    """Landmarks whose contour is a circle at equal angles, where chords are parallel to tangents; and its normals."""
    angle = torch.linspace(0, math.pi, 17, dtype=torch.float64)
    normal = torch.stack([-torch.cos(angle), torch.sin(angle)], dim=-1)
    inner = torch.linspace(-30, 30, 98, dtype=torch.float64).reshape(49, 2)
    return torch.cat([inner, 100 * normal]), normal


def test_displacement_is_in_millimetres(rng):
    projected, _ = landmarks()
    moved = torch.randn(2, 66, 2, generator=rng, dtype=torch.float64)
    scale = torch.tensor([1.4, 0.7], dtype=torch.float64)
    got = displacement(projected + moved * scale[:, None, None], projected.expand(2, 66, 2), scale, "full")
    assert_close(got, moved)


def test_displacement_does_not_know_the_image_size(rng):
    projected, _ = landmarks()
    detected = projected + torch.randn(66, 2, generator=rng, dtype=torch.float64)
    scale = torch.tensor(1.3, dtype=torch.float64)
    assert_close(displacement(3 * detected, 3 * projected, 3 * scale), displacement(detected, projected, scale))


def test_only_the_component_across_the_contour_is_kept(rng):
    projected, normal = landmarks()
    tangent = torch.stack([-normal[:, 1], normal[:, 0]], dim=-1)
    along, across = torch.randn(2, 17, 1, generator=rng, dtype=torch.float64)
    inner = torch.randn(49, 2, generator=rng, dtype=torch.float64)
    detected = projected + torch.cat([inner, along * tangent + across * normal])
    got = displacement(detected, projected, torch.tensor(1.0, dtype=torch.float64), "normal")
    assert_close(got[:49], inner)
    assert_close(got[50:65], (across * normal)[1:-1])
    ends = got[[49, 65]]
    chord = projected[[50, 65]] - projected[[49, 64]]
    assert_close((ends * chord).sum(-1), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_point_without_a_contour_direction_keeps_everything(rng):
    projected = torch.zeros(66, 2, dtype=torch.float64)
    detected = torch.randn(66, 2, generator=rng, dtype=torch.float64)
    assert_close(displacement(detected, projected, torch.tensor(1.0, dtype=torch.float64)), detected)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_every_batch_shape(batch, device, dtype, rng):
    detected, projected = torch.randn(2, *batch, 66, 2, generator=rng).to(device, dtype)
    scale = torch.rand(batch, generator=rng).to(device, dtype) + 0.5
    got = displacement(detected, projected, scale)
    assert got.shape == (*batch, 66, 2)
    assert got.dtype == dtype
    for i in itertools.product(*map(range, batch)):
        assert_close(got[i], displacement(detected[i], projected[i], scale[i]))


def test_gradcheck(rng):
    detected, projected = torch.randn(2, 66, 2, generator=rng, dtype=torch.float64)
    inputs = (detected.requires_grad_(), projected.requires_grad_(), torch.tensor(1.3, dtype=torch.float64))
    assert torch.autograd.gradcheck(displacement, inputs)


def test_an_unknown_component_is_refused():
    points = torch.zeros(66, 2)
    with pytest.raises(ValueError, match="normal or full"):
        displacement(points, points, torch.tensor(1.0), "tangent")
