"""Eq. 6: exact recovery, flagged degenerate rows, weights, gradients."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.structures import Camera
from tests.reference.camera_twin import solve_camera_slowly


def random_view(batch, n, rng, dtype=torch.float64):
    angles = torch.rand(*batch, 3, generator=rng, dtype=dtype) * 2 - 1
    camera = Camera(
        rotation=euler_to_matrix(*(angles * torch.tensor([1.2, 0.6, 2.5], dtype=dtype)).unbind(-1)),
        scale=0.2 + 3 * torch.rand(batch, generator=rng, dtype=dtype),
        translation=500 * torch.randn(*batch, 2, generator=rng, dtype=dtype),
        degenerate=torch.zeros(batch, dtype=torch.bool),
    )
    points3d = 50 * torch.randn(*batch, n, 3, generator=rng, dtype=dtype)
    return points3d, project(points3d, camera), camera


def noisy_view(batch, n, rng):
    points3d, points2d, _ = random_view(batch, n, rng)
    weights = 0.1 + torch.rand(*batch, n, generator=rng, dtype=torch.float64)
    return points3d, points2d + 5 * torch.randn(points2d.shape, generator=rng, dtype=torch.float64), weights


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("n", [4, 66])
def test_exact_views_are_recovered(batch, n, rng, device, dtype):
    points3d, points2d, truth = random_view(batch, n, rng)
    found = solve_camera(points3d.to(device, dtype), points2d.to(device, dtype))
    tight = {"atol": 1e-9, "rtol": 1e-9} if dtype == torch.float64 else {"atol": 2e-3, "rtol": 1e-4}
    assert found.rotation.dtype == dtype
    assert found.rotation.device.type == device.type
    assert not found.degenerate.any()
    assert_close(found.rotation.cpu().double(), truth.rotation, **tight)
    assert_close(found.scale.cpu().double(), truth.scale, **tight)
    assert_close(found.translation.cpu().double(), truth.translation, **tight)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("known", [False, True], ids=["free", "known scale"])
def test_noisy_views_equal_the_slow_twin(batch, known, rng):
    points3d, points2d, weights = noisy_view(batch, 20, rng)
    scale = 0.5 + torch.rand(batch, generator=rng, dtype=torch.float64) if known else None
    fast = solve_camera(points3d, points2d, weights, scale=scale)
    slow = solve_camera_slowly(points3d, points2d, weights, scale)
    for name in ("rotation", "scale", "translation"):
        assert_close(getattr(fast, name), getattr(slow, name), atol=1e-9, rtol=1e-9)


def test_rotation_is_proper_and_mirrored_points_do_not_flip_it(rng):
    points3d, points2d, _ = noisy_view((40,), 12, rng)
    mirrored = points2d * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    rotation = solve_camera(points3d, torch.cat([points2d[:20], mirrored[20:]])).rotation
    unit = torch.eye(3, dtype=torch.float64).expand(40, 3, 3)
    assert_close(rotation @ rotation.mT, unit, atol=1e-12, rtol=0)
    assert_close(torch.linalg.det(rotation), torch.ones(40, dtype=torch.float64), atol=1e-12, rtol=0)


def test_scale_and_shift_are_optimal_for_the_rotation(rng):
    points3d, points2d, weights = noisy_view((5,), 15, rng)
    camera = solve_camera(points3d, points2d, weights)
    scale = camera.scale.clone().requires_grad_()
    shift = camera.translation.clone().requires_grad_()
    seen = project(
        points3d, Camera(rotation=camera.rotation, scale=scale, translation=shift, degenerate=camera.degenerate)
    )
    (weights * (points2d - seen).square().sum(-1)).sum().backward()
    assert_close(scale.grad, torch.zeros_like(scale), atol=1e-8, rtol=0)
    assert_close(shift.grad, torch.zeros_like(shift), atol=1e-8, rtol=0)


def test_a_known_scale_is_kept(rng):
    points3d, points2d, truth = random_view((3,), 10, rng)
    found = solve_camera(points3d, points2d, scale=2 * truth.scale)
    assert_close(found.scale, 2 * truth.scale)
    assert_close(found.rotation, truth.rotation)
    centre = points3d.mean(-2, keepdim=True)
    assert_close(project(centre, found)[:, 0], points2d.mean(-2))


def test_weights_equal_repeated_points(rng):
    points3d, points2d, _ = noisy_view((2,), 8, rng)
    counts = torch.tensor([1, 3, 2, 1, 4, 1, 2, 5])
    weighted = solve_camera(points3d, points2d, counts.double().expand(2, 8))
    repeated = solve_camera(points3d.repeat_interleave(counts, dim=1), points2d.repeat_interleave(counts, dim=1))
    assert_close(weighted.rotation, repeated.rotation)
    assert_close(weighted.scale, repeated.scale)
    assert_close(weighted.translation, repeated.translation)


def test_points_of_weight_zero_are_ignored_even_when_not_finite(rng):
    points3d, points2d, truth = random_view((2,), 10, rng)
    weights = torch.ones(2, 10, dtype=torch.float64)
    weights[0, 3] = 0
    points2d[0, 3] = torch.nan
    points3d[0, 3] = torch.inf
    found = solve_camera(points3d, points2d, weights)
    assert not found.degenerate.any()
    assert_close(found.rotation, truth.rotation)


def spoil(name, points3d, points2d, weights):
    if name == "coplanar":
        points3d[..., 2] = 0.3 * points3d[..., 0]
    elif name == "collinear 3D":
        points3d[..., 1:] = points3d[..., :1]
    elif name == "coincident 3D":
        points3d[...] = 7
    elif name == "collinear 2D":
        points2d[..., 1] = 2 * points2d[..., 0] + 3
    elif name == "coincident 2D":
        points2d[...] = 11
    elif name == "one place but for rounding":
        points2d[...] = 500
        points2d[::2, 0] += 3e-5  # float32 holds steps of 3e-5 there
        points2d[::3, 1] -= 3e-5
    elif name == "three points":
        weights[..., 3:] = 0
    elif name == "no weight":
        weights[...] = 0
    elif name == "negative weight":
        weights[..., 0] = -1
    elif name == "NaN weight":
        weights[..., 0] = torch.nan
    elif name == "NaN point":
        points2d[..., 0, 0] = torch.nan
    else:
        points3d[..., 0, 0] = torch.inf


KINDS = [
    "coplanar", "collinear 3D", "coincident 3D", "collinear 2D", "coincident 2D", "one place but for rounding",
    "three points", "no weight", "negative weight", "NaN weight", "NaN point", "infinite point",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_rows_are_flagged_and_harm_nobody(kind, rng, dtype, device):
    points3d, points2d, _ = random_view((3,), 10, rng)
    weights = torch.ones(3, 10, dtype=torch.float64)
    healthy = solve_camera(points3d, points2d, weights)
    spoil(kind, points3d[1], points2d[1], weights[1])
    inputs = [t.to(device, dtype).requires_grad_() for t in (points3d, points2d, weights)]
    camera = solve_camera(*inputs)
    assert camera.degenerate.tolist() == [False, True, False]
    assert_close(camera.rotation[1].cpu(), torch.eye(3, dtype=dtype))
    assert float(camera.scale[1].detach()) == 1
    assert camera.translation[1].tolist() == [0, 0]
    loose = 1e-9 if dtype == torch.float64 else 1e-4
    assert_close(camera.rotation[[0, 2]].cpu().double(), healthy.rotation[[0, 2]], atol=loose, rtol=loose)
    (camera.rotation.sum() + camera.scale.sum() + camera.translation.sum()).backward()
    for value in inputs:
        assert torch.isfinite(value.grad).all()
        assert (value.grad[1] == 0).all()


def test_fewer_than_four_points_are_degenerate(rng):
    points3d, points2d, _ = random_view((2,), 3, rng)
    assert solve_camera(points3d, points2d).degenerate.all()


def test_nearly_flat_points_are_not_flagged(rng):
    points3d, _, truth = random_view((3,), 20, rng)
    points3d[..., 2] *= 1e-3
    found = solve_camera(points3d, project(points3d, truth))
    assert not found.degenerate.any()
    assert_close(found.rotation, truth.rotation, atol=1e-7, rtol=0)


@pytest.mark.parametrize("known", [False, True], ids=["free", "known scale"])
@pytest.mark.parametrize("exact", [False, True], ids=["noisy", "exact view"])
def test_gradients(known, exact, rng):
    points3d, points2d, weights = noisy_view((2,), 6, rng)
    if exact:
        points3d, points2d, _ = random_view((2,), 6, rng)
    scale = torch.tensor([0.7, 1.4], dtype=torch.float64) if known else None

    def solve(solid, flat, weight):
        camera = solve_camera(solid, flat, weight, scale=scale)
        return camera.rotation, camera.scale, camera.translation

    inputs = tuple(t.requires_grad_() for t in (points3d, points2d, weights))
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-5)


def test_one_shape_serves_many_views(rng):
    points3d, _, _ = random_view((), 12, rng)
    _, _, truth = random_view((4,), 12, rng)
    found = solve_camera(points3d, project(points3d.expand(4, 12, 3), truth))
    assert_close(found.rotation, truth.rotation)


def test_batch_rows_do_not_touch_each_other(rng):
    points3d, points2d, weights = noisy_view((64,), 66, rng)
    together = solve_camera(points3d, points2d, weights)
    alone = solve_camera(points3d[17:18], points2d[17:18], weights[17:18])
    assert_close(together[17:18].rotation, alone.rotation, atol=1e-12, rtol=1e-12)
    assert_close(together[17:18].scale, alone.scale, atol=1e-12, rtol=1e-12)
