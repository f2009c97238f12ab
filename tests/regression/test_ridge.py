"""Ridge: stationary, equal to scikit-learn, the same by either form, from a matrix or a source, in either precision."""

import math
import sys
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch.testing import assert_close

from facerecon_torch.regression import fit_ridge
from facerecon_torch.regression.ridge import PenalisedFactor

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
def test_a_source_equals_the_matrix(n, d, bias, rng, monkeypatch, tolerance, dtype):
    monkeypatch.setattr("facerecon_torch.regression.moments.TILE_ROWS", 2)
    monkeypatch.setattr("facerecon_torch.regression.moments.chunk_rows", lambda *_: 3)
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
    exact = fit_ridge(x, y.float(), 0.5)  # float64 features are multiplied in float64
    assert_close(exact.weight.double(), double.weight, rtol=1e-6, atol=1e-6)


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


@pytest.mark.parametrize("d", [3, 8, 23])
def test_one_buffer_holds_the_factor_of_one_penalty_after_the_other(d, rng, device, monkeypatch):
    monkeypatch.setattr("facerecon_torch.regression.ridge.PANEL", 4)
    x = torch.randn(40, d, generator=rng, dtype=torch.float64).to(device)
    scales = torch.rand(d, generator=rng, dtype=torch.float64).to(device) + 0.5
    right = torch.randn(d, 2, generator=rng, dtype=torch.float64).to(device)
    factor = PenalisedFactor(x.mT @ x)
    for penalty in (0.1, 7.0, 0.1):
        assert factor.factorise(scales, penalty)
        upper = factor.upper
        expected = (x * scales).mT @ (x * scales) + penalty * torch.eye(d).to(x)
        assert_close(upper.mT @ upper, expected, rtol=1e-12, atol=1e-12)
        assert not upper.tril(-1).any()
        assert_close(upper.mT @ factor.forward(right), right, rtol=1e-11, atol=1e-11)
        assert_close(upper @ factor.backward(right), right, rtol=1e-11, atol=1e-11)
        rows = right.mT.clone()
        assert factor.turn_(rows).data_ptr() == rows.data_ptr()
        assert_close(rows @ upper, right.mT, rtol=1e-11, atol=1e-11)
    assert_close(factor.gram, x.mT @ x, rtol=0, atol=0)


def test_what_is_not_positive_definite_has_no_factor(rng):
    x = torch.randn(5, 11, generator=rng, dtype=torch.float64)
    factor = PenalisedFactor(x.mT @ x - 0.1 * torch.eye(11, dtype=torch.float64))
    ones = torch.ones(11, dtype=torch.float64)
    assert factor.factorise(ones, 0.2)
    assert not factor.factorise(ones, 0.05)
    assert factor.factorise(ones, 0.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_factor_is_made_in_place(rng):
    """A cascade of 32,868 features has room for its Gram matrix and one factor, not for a third matrix."""
    gram = torch.eye(3000, dtype=torch.float64) * 2.0
    factor = PenalisedFactor(gram)
    factor.upper.zero_()  # its pages are counted before
    peak_bytes()
    before = peak_bytes()
    assert factor.factorise(torch.ones(3000, dtype=torch.float64), 1.0)
    factor.backward(factor.forward(torch.ones(3000, 3, dtype=torch.float64)))
    assert peak_bytes() - before < 0.4 * gram.numel() * 8


def peak_bytes():
    """The largest size that this process has had since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


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
