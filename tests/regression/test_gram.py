"""Second moments: streamed equals in memory, centring is exact, float32 chunks keep their digits."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression.gram import centre_in_place, combine_blocks, compute_moments, compute_sample_gram


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr("facerecon_torch.regression.gram.TILE_ROWS", 7)
    monkeypatch.setattr("facerecon_torch.regression.gram.TILE_COLUMNS", 5)
    monkeypatch.setattr("facerecon_torch.regression.gram.MOMENT_COLUMNS", 4)
    monkeypatch.setattr("facerecon_torch.regression.gram.MOMENT_ROWS", 3)
    monkeypatch.setattr("facerecon_torch.regression.gram.chunk_rows", lambda *_: 9)
    monkeypatch.setattr("facerecon_torch.regression.streaming.chunk_rows", lambda *_: 9)


@pytest.mark.parametrize("shift", [False, True], ids=["raw", "shifted"])
@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "streamed"])
def test_sample_gram_is_the_product_of_each_block(streamed, shift, small_tiles, rng, device):
    x = torch.randn(23, 31, generator=rng, dtype=torch.float64).to(device) + 3.0
    features = (lambda: iter(x.split(4))) if streamed else x
    gram = compute_sample_gram(features, 23, block_sizes=(12, 19), shift=shift, band_rows=10)
    expected = torch.stack([part @ part.mT for part in x.split((12, 19), dim=1)])
    if not shift:
        assert_close(gram.blocks, expected, rtol=1e-12, atol=1e-12)
        assert gram.centred(bias=False) is gram.blocks
    assert_close(gram.blocks, gram.blocks.mT, rtol=0, atol=0)
    centred = torch.stack([part @ part.mT for part in (x - x.mean(0)).split((12, 19), dim=1)])
    assert_close(gram.centred(bias=True), centred, rtol=1e-11, atol=1e-11)


def test_selecting_samples_equals_computing_on_them(rng):
    x = torch.randn(20, 31, generator=rng, dtype=torch.float64) + 3.0
    rows = torch.randperm(20, generator=rng)[:13]
    whole, part = compute_sample_gram(x, 20).select(rows), compute_sample_gram(x[rows], 13)
    assert_close(whole.centred(bias=True), part.centred(bias=True), rtol=1e-11, atol=1e-11)


def test_blocks_combine_as_scaled_features(rng):
    x = torch.randn(9, 11, generator=rng, dtype=torch.float64)
    scales = torch.tensor([0.3, 2.0], dtype=torch.float64)
    gram = compute_sample_gram(x, 9, block_sizes=(4, 7), shift=False)
    scaled = torch.cat([x[:, :4] * 0.3, x[:, 4:] * 2.0], dim=1)
    assert_close(combine_blocks(gram.blocks, scales), scaled @ scaled.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "streamed"])
@pytest.mark.parametrize("bias", [False, True], ids=["through origin", "bias"])
def test_moments_are_those_about_the_mean(bias, streamed, small_tiles, rng, device):
    x = torch.randn(50, 6, generator=rng, dtype=torch.float64).to(device) + 3.0
    y = torch.randn(50, 2, generator=rng, dtype=torch.float64).to(device) - 1.0
    moments = compute_moments((lambda: iter(x.split(8))) if streamed else x, y, bias=bias)
    mean, target_mean = (x.mean(0), y.mean(0)) if bias else (torch.zeros_like(x[0]), torch.zeros_like(y[0]))
    assert_close(moments.feature_mean, mean, rtol=1e-12, atol=1e-12)
    assert_close(moments.target_mean, target_mean, rtol=1e-12, atol=1e-12)
    assert_close(moments.gram.full(), (x - mean).mT @ (x - mean), rtol=1e-11, atol=1e-11)
    assert_close(moments.cross, (x - mean).mT @ (y - target_mean), rtol=1e-11, atol=1e-11)


def test_float32_chunks_survive_a_mean_that_dwarfs_the_spread(rng):
    x = torch.randn(300, 3000, generator=rng) + 1000.0
    exact = x.double() - x.double().mean(0)
    wanted = exact @ exact.mT
    gram = compute_sample_gram(x, 300).centred(bias=True)[0]
    assert float((gram - wanted).norm() / wanted.norm()) < 1e-6
    tall = x[:, :40].contiguous()
    moments = compute_moments(tall, torch.zeros(300, 1))
    exact = tall.double() - tall.double().mean(0)
    assert float((moments.gram.full() - exact.mT @ exact).norm() / (exact.mT @ exact).norm()) < 1e-6


def test_float64_products_on_request(rng):
    x = torch.randn(30, 500, generator=rng)
    wanted = x.double() @ x.double().mT
    gram = compute_sample_gram(x, 30, shift=False, product_dtype=torch.float64)
    assert_close(gram.blocks[0], wanted, rtol=1e-12, atol=1e-12)


def test_half_precision_features_are_multiplied_in_float32(rng):
    x = torch.randn(30, 500, generator=rng).half()
    gram = compute_sample_gram(x, 30, shift=False)
    assert_close(gram.blocks[0], x.double() @ x.double().mT, rtol=1e-5, atol=1e-3)


def test_centring_removes_every_row_mean(rng):
    blocks = torch.randn(2, 5, 5, generator=rng, dtype=torch.float64)
    blocks = centre_in_place(blocks @ blocks.mT)
    assert_close(blocks.sum(1), torch.zeros(2, 5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_bad_requests_are_refused():
    x = torch.zeros(6, 4)
    with pytest.raises(ValueError, match=r"add up to 4 features; got \(1, 2\)"):
        compute_sample_gram(x, 6, block_sizes=(1, 2))
    with pytest.raises(ValueError, match="must hold 5 rows; got 6"):
        compute_sample_gram(x, 5)
    with pytest.raises(ValueError, match=r"yield 5 rows.*got 6"):
        compute_sample_gram(lambda: [x], 5)
    with pytest.raises(ValueError, match=r"yield 7 rows.*got 6"):
        compute_moments(x, torch.zeros(7, 1))
    with pytest.raises(ValueError, match="shift=False; got shift=True"):
        compute_sample_gram(x, 6).centred(bias=False)


def test_a_source_that_cannot_be_read_twice_is_refused():
    once = iter([torch.randn(6, 4)])
    with pytest.raises(ValueError, match=r"on every pass; got 0"):
        compute_sample_gram(lambda: once, 6)
