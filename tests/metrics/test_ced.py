import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.metrics.landmarks import area_under_ced, cumulative_error


def test_shares_include_the_threshold_and_count_nan_as_failure():
    errors = torch.tensor([1.0, 2.0, 3.0, torch.nan])
    assert_close(cumulative_error(errors, torch.tensor([0.5, 1.0, 2.5, 9.0])), torch.tensor([0.0, 0.25, 0.5, 0.75]))


def test_area_is_the_integral_of_the_curve(rng):
    errors = 3 * torch.rand(200, generator=rng, dtype=torch.float64)
    errors[0] = torch.nan
    steps = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000
    curve = torch.searchsorted(errors[1:].sort().values, steps, right=True) / 200
    assert_close(area_under_ced(errors, 2.0), curve.double().mean(), atol=1e-5, rtol=0)
    assert_close(cumulative_error(errors, steps[::1000]), curve.double()[::1000], atol=1e-7, rtol=0)


def test_extremes():
    assert area_under_ced(torch.zeros(5), 1.0) == 1
    assert area_under_ced(torch.full((5,), 7.0), 1.0) == 0
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            area_under_ced(torch.zeros(5), limit)
    with pytest.raises(ValueError, match="got none"):
        cumulative_error(torch.zeros(0), torch.ones(1))
