"""Derivatives of linear-vote HOG with respect to pictures and positions."""

import pytest
import torch

from facerecon_torch.features.hog import HogSpec, hog

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
