"""Photometric variation: its range, and that it depends on a crop's place in the set alone."""

import pytest
import torch

from facerecon_torch.images.photometric import PhotometricVariation


@pytest.fixture
def crops():
    draw = torch.Generator().manual_seed(3)
    coarse = torch.rand(12, 3, 6, 6, generator=draw)
    return torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear").clamp(0.05, 0.95)


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_change_within_their_range_and_stay_the_same_pictures(crops, channels):
    crops = crops[:, :channels]
    varied = PhotometricVariation(count=12, seed=0)(crops, torch.arange(12))
    assert varied.shape == crops.shape
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1
    change = (varied - crops).flatten(1).norm(dim=1) / crops.flatten(1).norm(dim=1)
    assert (change > 0.005).all()
    assert (change < 0.5).all()
    for before, after in zip(crops.flatten(1), varied.flatten(1)):
        assert float(torch.corrcoef(torch.stack([before, after]))[0, 1]) > 0.9


def test_the_place_in_the_set_alone_decides(crops):
    vary, rows = PhotometricVariation(count=12, seed=0), torch.arange(12)
    whole = vary(crops, rows)
    parts = torch.cat([vary(crops[part], rows[part]) for part in (slice(0, 5), slice(5, 6), slice(6, 12))])
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    assert not torch.equal(vary(crops, rows.flip(0)), whole)


def test_seeds_differ_and_one_seed_repeats(crops):
    rows = torch.arange(12)
    first, again, other = (PhotometricVariation(count=12, seed=seed)(crops, rows) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.005


def test_some_crops_are_sharper_and_some_softer_than_before(crops):
    count = 200
    rows = torch.arange(count)
    detail = 0.05 * torch.randn(crops[:1].shape, generator=torch.Generator().manual_seed(4))
    one = (crops[:1] + detail).clamp(0, 1).expand(count, -1, -1, -1)
    varied = PhotometricVariation(count=count, seed=0)(one, rows)

    def edges(images):
        return (images[..., 1:, 1:] - images[..., :-1, :-1]).flatten(1).norm(dim=1)

    ratio = edges(varied) / edges(one)
    assert float(ratio.quantile(0.1)) < 0.95
    assert float(ratio.quantile(0.9)) > 1.2
