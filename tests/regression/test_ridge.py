"""Ridge: stationary, equal to scikit-learn, the same by every form, source and precision."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch.testing import assert_close

from facerecon_torch.regression import fit_ridge

TALL_AND_WIDE = pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40)], ids=["tall", "wide"])
BIASED = pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])


def problem(n, d, rng, dtype=torch.float64, targets=3):
    x = torch.randn(n, d, generator=rng, dtype=torch.float64) + 2.0
    y = torch.randn(n, targets, generator=rng, dtype=torch.float64) - 1.0
    return x.to(dtype), y.to(dtype)


@TALL_AND_WIDE
@BIASED
def test_solution_is_stationary(n, d, bias, rng):
    x, y = problem(n, d, rng)
    fit = fit_ridge(x, y, 0.5, bias=bias)
    residuals = y - fit(x)
    assert_close(x.mT @ residuals, 0.5 * fit.weight, rtol=1e-9, atol=1e-9)
    assert fit.form == ("primal" if n >= d else "dual")
    assert_close(residuals.sum(0) if bias else fit.bias, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)


@TALL_AND_WIDE
@BIASED
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_equals_scikit_learn(n, d, bias, form, rng, device):
    x, y = problem(n, d, rng)
    theirs = SklearnRidge(alpha=0.7, fit_intercept=bias).fit(x.numpy(), y.numpy())
    ours = fit_ridge(x.to(device), y.to(device), 0.7, bias=bias, form=form)
    assert ours.weight.device.type == device.type
    assert ours.form == form
    assert_close(ours.weight.cpu(), torch.from_numpy(theirs.coef_).mT, rtol=1e-9, atol=1e-10)
    intercept = torch.from_numpy(theirs.intercept_) if bias else torch.zeros(3, dtype=torch.float64)
    assert_close(ours.bias.cpu(), intercept, rtol=1e-9, atol=1e-9)


@TALL_AND_WIDE
@BIASED
@pytest.mark.parametrize("band_rows", [2, 100])
def test_streamed_equals_in_memory(n, d, bias, band_rows, rng, monkeypatch, tolerance, dtype):
    monkeypatch.setattr("facerecon_torch.regression.gram.BAND_NUMBERS", band_rows * d)
    monkeypatch.setattr("facerecon_torch.regression.gram.TILE_ROWS", 2)
    monkeypatch.setattr("facerecon_torch.regression.streaming.chunk_rows", lambda *_: 3)
    x, y = problem(n, d, rng, dtype)
    reads = []

    def source():
        reads.append(0)
        return iter(x.split(4))

    streamed, whole = fit_ridge(source, y, 0.5, bias=bias), fit_ridge(x, y, 0.5, bias=bias)
    assert_close(streamed.weight, whole.weight, rtol=tolerance, atol=tolerance)
    assert_close(streamed.bias, whole.bias, rtol=tolerance, atol=tolerance)
    assert streamed.form == whole.form
    assert len(reads) > 1


@TALL_AND_WIDE
def test_float32_follows_float64(n, d, rng):
    x, y = problem(n, d, rng)
    single, double = fit_ridge(x.float(), y.float(), 0.5), fit_ridge(x, y, 0.5)
    assert single.weight.dtype == torch.float32
    assert_close(single(x.float()).double(), double(x), rtol=1e-4, atol=1e-4)
    exact = fit_ridge(x.float(), y.float(), 0.5, product_dtype=torch.float64)
    wanted = fit_ridge(x.float().double(), y.float().double(), 0.5)
    assert_close(exact.weight.double(), wanted.weight, rtol=1e-6, atol=1e-6)


@TALL_AND_WIDE
def test_shifted_targets_move_only_the_bias(n, d, rng):
    x, y = problem(n, d, rng)
    before, after = fit_ridge(x, y, 0.5), fit_ridge(x, y + 10.0, 0.5)
    assert_close(after.weight, before.weight, rtol=1e-9, atol=1e-10)
    assert_close(after.bias, before.bias + 10.0, rtol=1e-9, atol=1e-9)


@TALL_AND_WIDE
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_infinite_penalty_leaves_the_mean(n, d, form, rng):
    x, y = problem(n, d, rng)
    fit = fit_ridge(x, y, math.inf, form=form)
    assert not fit.weight.any()
    assert_close(fit(x), y.mean(0).expand_as(y))
    assert not fit_ridge(x, y, math.inf, bias=False, form=form)(x).any()


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_prediction_for_every_batch_shape(batch, rng, dtype, device, tolerance):
    x, y = problem(9, 5, rng, dtype)
    fit = fit_ridge(x, y, 0.5).to(device=device)
    points = torch.randn(*batch, 5, generator=rng, dtype=torch.float64).to(device, dtype)
    assert fit(points).dtype == dtype
    wanted = torch.einsum("...d,dt->...t", points, fit.weight) + fit.bias
    assert_close(fit(points), wanted, rtol=tolerance, atol=tolerance)


def test_bad_input_is_refused():
    x, y = torch.randn(6, 4), torch.randn(6, 2)
    for penalty in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"penalty must be positive; got {penalty}"):
            fit_ridge(x, y, penalty)
    twins = torch.randn(1, 400).repeat(200, 1)
    with pytest.raises(ValueError, match="exceed the rounding error of the Gram matrix; got 1e-09"):
        fit_ridge(twins + 1e-3 * torch.randn(200, 400), torch.randn(200, 2), 1e-9, bias=False)
    with pytest.raises(ValueError, match="same number of rows; got 6 and 5"):
        fit_ridge(x, y[:5], 1.0)
    with pytest.raises(ValueError, match="1 of 12 values are not"):
        fit_ridge(x, y.index_fill(0, torch.tensor([1]), 0.0) + torch.tensor([[0.0, math.nan]] + [[0.0, 0.0]] * 5), 1.0)
    with pytest.raises(ValueError, match="features must be finite"):
        fit_ridge(torch.full((6, 4), math.nan), y, 1.0)
    with pytest.raises(ValueError, match="features must be finite"):
        fit_ridge(torch.full((6, 40), math.inf), y, 1.0)
