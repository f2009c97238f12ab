import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.metrics.landmarks import errors_by_yaw, landmark_nme


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_both_normalisers_by_hand(shape, rng, dtype):
    truth = 100 * torch.rand(*shape, 68, 2, generator=rng, dtype=torch.float64).to(dtype)
    estimate = truth + torch.tensor([3.0, 4.0], dtype=dtype)
    width, height = (truth.amax(-2) - truth.amin(-2)).unbind(-1)
    assert_close(landmark_nme(estimate, truth), 500 / (width * height).sqrt())
    eyes = (truth[..., 36, :] - truth[..., 45, :]).square().sum(-1).sqrt()
    assert_close(landmark_nme(estimate, truth, normaliser="interocular"), 500 / eyes)


def test_an_error_does_not_depend_on_image_size_or_place(rng):
    truth, noise = torch.rand(2, 5, 68, 2, generator=rng, dtype=torch.float64)
    for normaliser in ("box", "interocular"):
        small = landmark_nme(truth + 0.02 * noise, truth, normaliser=normaliser)
        large = landmark_nme(9 * (truth + 0.02 * noise) + 5, 9 * truth + 5, normaliser=normaliser)
        assert_close(small, large)


def test_unknown_normaliser_is_refused():
    with pytest.raises(ValueError, match="'pupils'"):
        landmark_nme(torch.zeros(68, 2), torch.zeros(68, 2), normaliser="pupils")


def test_yaw_table_weighs_bins_not_images():
    yaw = torch.tensor([0.0, -30.0, 10.0, 30.1, -60.0, 75.0, 90.0, 91.0])
    errors = torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 1000.0])
    table = errors_by_yaw(errors, yaw)
    assert table.counts == (3, 2, 2)
    assert_close(table.bins, torch.tensor([2.0, 5.0, 9.0]))
    assert table.mean == pytest.approx(16 / 3)
    assert table.deviation == pytest.approx(math.sqrt(((2 - 16 / 3) ** 2 + (1 / 3) ** 2 + (9 - 16 / 3) ** 2) / 3))


def test_an_empty_bin_is_not_hidden():
    assert math.isnan(errors_by_yaw(torch.ones(2), torch.tensor([0.0, 40.0])).mean)
