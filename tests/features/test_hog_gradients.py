"""Derivatives of HOG with respect to images and positions; kornia's gradients against the fused ones."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.features.hog import HogSpec, dense, gradients, hog, hog_maps
from facerecon_torch.features.hog.gradients import differences, kornia_gradients, repeat_border
from tests.features.test_patch_hog import smooth_images

EVALUATIONS = ["dense", "patch_halo", "patch"]


def small_spec(variant, evaluation):
    return HogSpec(variant=variant, patch_px=4, cell_px=2, stride=2, evaluation=evaluation)


@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_gradcheck(variant, evaluation, rng):
    spec = small_spec(variant, evaluation)
    crops = torch.rand(1, 3, 7, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[[3.3, 4.4]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, p: hog(c, p, spec), (crops, points), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
@pytest.mark.parametrize("vote", ["linear", "hard"])
@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_flat_pictures_have_finite_slopes(variant, vote, evaluation, dtype):
    spec = HogSpec(variant=variant, patch_px=8, cell_px=4, stride=2, vote=vote, evaluation=evaluation)
    crops = torch.full((1, 3, 12, 12), 0.5, dtype=dtype, requires_grad=True)
    points = torch.full((1, 1, 2), 6.3, dtype=dtype, requires_grad=True)
    hog(crops, points, spec).sum().backward()
    assert torch.isfinite(crops.grad).all()
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("shape", [(2, 3, 9, 12), (1, 1, 1, 5), (1, 3, 2, 1)], ids=str)
def test_kornias_differences_are_the_slices_to_the_bit(shape, dtype, rng):
    """At the border too: both repeat it. Values and slopes, on 8-bit levels where a rounding error would show."""
    images = (torch.randint(0, 256, shape, generator=rng).to(dtype) / 255).requires_grad_()
    weights = torch.randn(2, *shape, generator=rng, dtype=torch.float64).to(dtype)
    by_kornia, by_slices = (
        torch.stack(pair) for pair in (kornia_gradients(images), differences(repeat_border(images)))
    )
    assert torch.equal(by_kornia, by_slices)
    slopes = [torch.autograd.grad((pair * weights).sum(), images)[0] for pair in (by_kornia, by_slices)]
    assert_close(slopes[0], slopes[1], rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    assert slopes[0].abs().max() > 0.1 or max(shape[2:]) == 1


@pytest.mark.parametrize("evaluation", EVALUATIONS)
@pytest.mark.parametrize("vote", ["linear", "hard"])
@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
def test_the_fused_path_is_the_path_through_kornia(variant, vote, evaluation, dtype, rng, monkeypatch):
    """Descriptors and slopes with respect to image and positions, inside, at the border and beyond it."""
    spec = HogSpec(variant=variant, vote=vote, evaluation=evaluation, patch_px=32, cell_px=8)
    crops = smooth_images(2, 3, 48, rng, dtype).requires_grad_()
    points = torch.tensor([[20.3, 24.0], [3.0, 46.5], [-6.2, 20.0], [40.0, 40.0]], dtype=dtype).expand(2, 4, 2)
    points = points.clone().requires_grad_()
    used = []
    monkeypatch.setattr(gradients, "spatial_gradient", counted(gradients.spatial_gradient, used))
    answers = []
    for fused in (False, True):
        if fused:
            for module in (gradients, dense):
                monkeypatch.setattr(module, "needs_slope", lambda _: False)
        calls = len(used)
        described = hog(crops, points, spec)
        assert (len(used) == calls) == fused
        weights = torch.linspace(-1, 1, described.numel(), dtype=dtype).reshape(described.shape)
        answers.append((described.detach(), *torch.autograd.grad((described * weights).sum(), (crops, points))))
    for by_kornia, fused in zip(*answers):
        bound = 1e-6 if dtype == torch.float32 else 1e-12
        assert_close(by_kornia, fused, rtol=0, atol=bound * max(1.0, float(fused.abs().max())))
        assert fused.abs().max() > 0.01


def counted(function, calls):
    def call(*arguments, **options):
        calls.append(options)
        return function(*arguments, **options)

    return call


def test_kornia_serves_only_crops_that_need_a_slope(monkeypatch, rng):
    used = []
    monkeypatch.setattr(gradients, "spatial_gradient", counted(gradients.spatial_gradient, used))
    crops = smooth_images(1, 3, 32, rng, torch.float32)
    hog_maps(crops, HogSpec())
    with torch.no_grad():
        hog_maps(crops.requires_grad_(), HogSpec())
    assert used == []
    hog_maps(crops, HogSpec())
    assert [call["mode"] for call in used] == ["diff"]
