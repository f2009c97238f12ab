import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.align import align_rigid, align_similarity, align_translation
from facerecon_torch.geometry.rotation import axis_angle_to_matrix


def _moved(rng, shape, n=12, scale=True):
    source = 50 * torch.randn(*shape, n, 3, generator=rng, dtype=torch.float64)
    rotation = axis_angle_to_matrix(2 * torch.randn(*shape, 3, generator=rng, dtype=torch.float64))
    shift = 100 * torch.randn(*shape, 3, generator=rng, dtype=torch.float64)
    factor = torch.rand(shape, generator=rng, dtype=torch.float64) + 0.5 if scale else torch.ones(shape).double()
    target = factor[..., None, None] * source @ rotation.mT + shift[..., None, :]
    return source, target, factor, rotation, shift


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_similarity_recovers_an_exact_motion(shape, rng, device):
    source, target, factor, rotation, shift = _moved(rng, shape)
    found = align_similarity(source.to(device), target.to(device))
    assert_close(found.scale.cpu(), factor)
    assert_close(found.rotation.cpu(), rotation)
    assert_close(found.translation.cpu(), shift)
    assert_close(found.apply(source.to(device)).cpu(), target)
    assert_close(found.inverse().apply(target.to(device)).cpu(), source)


def test_rigid_recovers_an_exact_motion_without_scale(rng):
    source, target, _, rotation, shift = _moved(rng, (4,), scale=False)
    found = align_rigid(source, target)
    assert_close(found.rotation, rotation)
    assert_close(found.translation, shift)
    assert_close(align_rigid(source, 2 * target).scale, torch.ones(4, dtype=torch.float64))


def test_translation_brings_weighted_centroids_together(rng):
    source, target, *_ = _moved(rng, (2,))
    weights = torch.rand(2, 12, generator=rng, dtype=torch.float64)
    moved = align_translation(source, target, weights).apply(source)
    share = weights[..., None]
    assert_close((share * moved).sum(1), (share * target).sum(1))
    assert_close(moved - moved[:, :1], source - source[:, :1])


def test_zero_weights_leave_points_out(rng):
    source, target, factor, rotation, _ = _moved(rng, (3,), n=15)
    weights = torch.ones(3, 15, dtype=torch.float64)
    weights[:, 10:] = 0
    target[:, 10:] += 1000
    found = align_similarity(source, target, weights)
    assert_close(found.rotation, rotation)
    assert_close(found.scale, factor)


def test_weights_are_repetitions(rng):
    source, target = torch.randn(2, 8, 3, generator=rng, dtype=torch.float64)
    weights = torch.tensor([2.0, 1, 1, 3, 1, 1, 1, 1], dtype=torch.float64)
    rows = torch.repeat_interleave(torch.arange(8), weights.long())
    once, often = align_similarity(source, target, weights), align_similarity(source[rows], target[rows])
    assert_close(once.apply(source), often.apply(source))


@pytest.mark.parametrize("flat", [False, True], ids=["solid", "planar"])
def test_a_mirror_image_is_never_answered_by_a_reflection(flat, rng):
    source = torch.randn(10, 3, generator=rng, dtype=torch.float64)
    if flat:
        source[:, 2] = 0
    found = align_rigid(source, source * torch.tensor([-1.0, 1, 1]))
    assert_close(torch.linalg.det(found.rotation), torch.tensor(1.0, dtype=torch.float64))


def test_no_other_rotation_scale_or_shift_fits_better(rng):
    source, target = torch.randn(2, 20, 3, generator=rng, dtype=torch.float64)
    weights = torch.rand(20, generator=rng, dtype=torch.float64)

    def cost(points):
        return (weights * (points - target).square().sum(-1)).sum()

    found = align_similarity(source, target, weights)
    best = cost(found.apply(source))
    for _ in range(50):
        step = 1e-3 * torch.randn(7, generator=rng, dtype=torch.float64)
        turned = found.apply(source) @ axis_angle_to_matrix(step[:3]).mT
        assert cost((1 + step[3]) * turned + step[4:]) > best


def test_float32_far_from_the_origin_loses_nothing_to_the_solve(rng):
    source, target, factor, rotation, _ = _moved(rng, (2,))
    found = align_similarity((source + 1e4).float(), target.float())
    assert found.rotation.dtype == torch.float32
    assert_close(found.rotation.double(), rotation, atol=1e-4, rtol=0)
    assert_close(found.scale.double(), factor, atol=1e-4, rtol=0)


def test_points_without_extent_give_scale_one_and_no_nan():
    same = torch.ones(4, 3)
    found = align_similarity(same, 3 * same)
    assert_close(found.scale, torch.tensor(1.0))
    assert_close(found.apply(same), 3 * same)
    nothing = align_similarity(same, 3 * same, torch.zeros(4))
    assert torch.isfinite(nothing.rotation).all()
    assert torch.isfinite(nothing.translation).all()
