import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from facerecon_torch.geometry.rotation import (
    axis_angle_to_matrix,
    euler_to_matrix,
    matrix_to_axis_angle,
    matrix_to_euler,
)


def _vectors(rng, shape, longest):
    direction = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=rng, dtype=torch.float64), dim=-1)
    return direction * longest * torch.rand(*shape, 1, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_axis_angle_agrees_with_scipy(shape, rng, device, dtype, tolerance):
    vector = _vectors(rng, shape, 6.0)
    expected = torch.from_numpy(Rotation.from_rotvec(vector.reshape(-1, 3).numpy()).as_matrix()).reshape(*shape, 3, 3)
    matrix = axis_angle_to_matrix(vector.to(device, dtype))
    assert matrix.dtype == dtype
    assert_close(matrix.cpu().double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 1e-3, 1e-2, 1.0, 3.0, math.pi - 1e-6, math.pi - 1e-12])
def test_round_trip_from_zero_to_pi(angle, rng):
    vector = torch.nn.functional.normalize(torch.randn(50, 3, generator=rng, dtype=torch.float64), dim=-1) * angle
    assert_close(matrix_to_axis_angle(axis_angle_to_matrix(vector)), vector, atol=1e-9, rtol=0)


def test_half_turns_return_one_of_the_two_axes():
    vector = math.pi * torch.eye(3, dtype=torch.float64)
    back = matrix_to_axis_angle(axis_angle_to_matrix(vector))
    assert_close(back.abs(), vector, atol=1e-9, rtol=0)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-3, 1.0, 3.1])
def test_axis_angle_gradcheck(length):
    vector = (length * torch.tensor([[0.6, -0.48, 0.64]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(axis_angle_to_matrix, vector)
    assert torch.autograd.gradgradcheck(axis_angle_to_matrix, vector)


@pytest.mark.parametrize("length", [0.0, 1e-5, 1e-3, 1.0, 3.0])
def test_matrix_to_axis_angle_gradcheck(length):
    matrix = axis_angle_to_matrix(length * torch.tensor([[0.6, -0.48, 0.64]], dtype=torch.float64))
    assert torch.autograd.gradcheck(matrix_to_axis_angle, matrix.requires_grad_())


@pytest.mark.parametrize("axis", range(3))
def test_gradients_stay_finite_at_half_turns(axis, dtype):
    vector = torch.zeros(1, 3, dtype=dtype)
    vector[0, axis] = math.pi
    vector.requires_grad_()
    matrix_to_axis_angle(axis_angle_to_matrix(vector)).square().sum().backward()
    assert torch.isfinite(vector.grad).all()


@pytest.mark.parametrize(
    ("angles", "point", "moved"),
    [
        ((0.4, 0, 0), (0, 0, 1), (math.sin(0.4), 0, math.cos(0.4))),
        ((0, 0.4, 0), (0, 0, 1), (0, math.sin(0.4), math.cos(0.4))),
        ((0, 0, 0.4), (1, 0, 0), (math.cos(0.4), math.sin(0.4), 0)),
    ],
    ids=["yaw turns the nose right", "pitch lifts the nose", "roll is counter-clockwise"],
)
def test_euler_signs(angles, point, moved):
    yaw, pitch, roll = (torch.tensor(a, dtype=torch.float64) for a in angles)
    turned = euler_to_matrix(yaw, pitch, roll) @ torch.tensor(point, dtype=torch.float64)
    assert_close(turned, torch.tensor(moved, dtype=torch.float64))


def test_euler_order_is_roll_pitch_yaw(rng):
    yaw, pitch, roll = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    zero = torch.zeros_like(yaw)
    product = euler_to_matrix(zero, zero, roll) @ euler_to_matrix(zero, pitch, zero) @ euler_to_matrix(yaw, zero, zero)
    assert_close(euler_to_matrix(yaw, pitch, roll), product)


def test_euler_round_trip(rng):
    yaw, roll = (2 * torch.rand(2, 100, generator=rng, dtype=torch.float64) - 1) * math.pi
    pitch = (torch.rand(100, generator=rng, dtype=torch.float64) - 0.5) * math.pi
    back = matrix_to_euler(euler_to_matrix(yaw, pitch, roll))
    for angle, expected in zip(back, (yaw, pitch, roll), strict=True):
        assert_close(angle, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_locked_pitch_keeps_the_matrix_and_finite_gradients(sign):
    yaw = torch.tensor([0.3, -0.7], dtype=torch.float64)
    matrix = euler_to_matrix(yaw, torch.full_like(yaw, sign * math.pi / 2), 2 * yaw).requires_grad_()
    angles = matrix_to_euler(matrix)
    assert_close(angles[0], torch.zeros_like(yaw))
    assert_close(euler_to_matrix(*angles), matrix)
    sum(a.sum() for a in angles).backward()
    assert torch.isfinite(matrix.grad).all()
