"""At the size of a real training set, float32 products cost no accuracy that matters."""

import pytest
import torch

from facerecon_torch.regression import RidgeSpec, fit_stage


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])
def test_float32_products_at_full_size(bias, rng):
    """105 subjects x 12 images, 32868 non-negative features, 75 targets."""
    groups = torch.arange(1260) // 12
    codes = torch.randn(105, 40, generator=rng)[groups] + 0.5 * torch.randn(1260, 40, generator=rng)
    x = (codes @ torch.randn(40, 32868, generator=rng) + 3.0 * torch.randn(1260, 32868, generator=rng)).abs()
    y = codes @ torch.randn(40, 75, generator=rng)
    fits = [
        fit_stage(
            features,
            y,
            groups,
            lambda predictions: (predictions - y).norm(dim=1).mean(),
            RidgeSpec(block_sizes=(32736, 132), bias=bias),
        )
        for features in (x, x.double())
    ]
    single, double = fits
    assert single.relative_penalty == double.relative_penalty
    for ours, exact in zip(single.path, double.path, strict=True):
        assert ours.error == pytest.approx(exact.error, rel=1e-4)
    assert float((single.out_of_group - double.out_of_group).norm() / double.out_of_group.norm()) < 1e-5
    assert float((single.stage(x) - double.stage(x)).norm() / double.in_sample.norm()) < 1e-5
