"""A stage: penalty and block weights of least out-of-group error, blocks on one scale, the exact zero update."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import RidgeSpec, compute_sample_gram, fit_ridge, fit_stage, predict, select_rows
from tests.reference.ridge_refit import refit_ridge, refit_without_each_group

SHAPES = pytest.mark.parametrize("d", [8, 90], ids=["tall", "wide"])
BIASED = pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])


def problem(d, rng, n=36, dtype=torch.float64):
    """Two blocks (a quarter, the rest) on very different scales; groups of 1 to 5."""
    x = torch.randn(n, d, generator=rng, dtype=torch.float64) + 1.0
    x[:, : d // 4] *= 50.0
    y = x @ torch.randn(d, 3, generator=rng, dtype=torch.float64) / d + torch.randn(n, 3, generator=rng)
    groups = torch.arange(10).repeat_interleave(torch.tensor([5, 1, 3, 5, 2, 4, 5, 5, 1, 5]))
    return x.to(dtype), y.to(dtype), groups[torch.randperm(n, generator=rng)]


def mean_distance(truth):
    return lambda predictions: (predictions - truth).norm(dim=1).mean()


def scaled(x, d, bias, weights):
    """The features a stage fits, spelled out: each block about its mean, over its RMS norm, times its weight."""
    spread = x - x.mean(0) if bias else x
    sizes = (d // 4, d - d // 4)
    scales = [w / spread_b.square().sum(1).mean().sqrt() for w, spread_b in zip(weights, spread.split(sizes, 1))]
    parts = [part * scale for part, scale in zip(x.split(sizes, 1), scales)]
    trace = float(sum((part * scale).square().sum() for part, scale in zip(spread.split(sizes, 1), scales)))
    return torch.cat(parts, 1), trace / d, torch.stack(scales)


@SHAPES
@BIASED
def test_chosen_candidate_has_the_least_refitted_error(d, bias, rng):
    x, y, groups = problem(d, rng)
    penalties, grid = (0.01, 1.0, 100.0), ((1.0, 0.2), (1.0, 1.0), (0.0, 1.0))
    spec = RidgeSpec(relative_penalties=penalties, block_sizes=(d // 4, d - d // 4), block_weights_grid=grid, bias=bias)
    fit = fit_stage(x, y, groups, mean_distance(y), spec)
    tried = {}
    for weights in grid:
        features, unit, _ = scaled(x, d, bias, weights)
        for penalty in penalties:
            predictions = refit_without_each_group(features, y, groups, penalty * unit, bias)
            tried[penalty, weights] = (float(mean_distance(y)(predictions)), predictions)
    for point in fit.path:
        assert point.error == pytest.approx(tried[point.relative_penalty, point.block_weights][0], rel=1e-9)
    best = min(tried, key=lambda key: tried[key][0])
    assert (fit.relative_penalty, fit.block_weights) == best
    assert {weights for _, weights in tried} == {point.block_weights for point in fit.path}
    assert fit.error == min(point.error for point in fit.path)
    assert_close(fit.out_of_group, tried[best][1], rtol=1e-9, atol=1e-9)


@SHAPES
@BIASED
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_stage_is_the_ridge_of_scaled_features(d, bias, form, rng):
    x, y, groups = problem(d, rng)
    weights = (1.0, 0.3)
    spec = RidgeSpec(
        relative_penalty=0.5, block_sizes=(d // 4, d - d // 4), block_weights_grid=(weights,), bias=bias, form=form
    )
    fit = fit_stage(x, y, groups, mean_distance(y), spec)
    features, unit, scales = scaled(x, d, bias, weights)
    weight, offset = refit_ridge(features, y, 0.5 * unit, bias)
    assert fit.stage.ridge.penalty == pytest.approx(0.5 * unit, rel=1e-10)
    assert fit.stage.ridge.form == form
    assert_close(fit.stage.block_scales, scales, rtol=1e-10, atol=0)
    assert_close(fit.stage.ridge.weight, weight, rtol=1e-8, atol=1e-9)
    assert_close(fit.stage(x), features @ weight + offset, rtol=1e-9, atol=1e-9)
    assert_close(fit.in_sample, fit.stage(x), rtol=1e-9, atol=1e-9)


def test_unscaled_blocks_are_left_as_they_are(rng):
    x, y, groups = problem(8, rng)
    spec = RidgeSpec(relative_penalty=0.5, block_sizes=(2, 6), scale_blocks=False)
    fit = fit_stage(x, y, groups, mean_distance(y), spec)
    penalty = 0.5 * float((x - x.mean(0)).square().sum()) / 8
    assert_close(fit.stage(x), fit_ridge(x, y, penalty)(x), rtol=1e-9, atol=1e-9)


@SHAPES
def test_rescaling_a_block_changes_nothing(d, rng):
    x, y, groups = problem(d, rng)
    spec = RidgeSpec(block_sizes=(d // 4, d - d // 4))
    before = fit_stage(x, y, groups, mean_distance(y), spec)
    x[:, d // 4 :] *= 1e-3
    after = fit_stage(x, y, groups, mean_distance(y), spec)
    assert after.relative_penalty == before.relative_penalty
    assert_close(after.out_of_group, before.out_of_group, rtol=1e-7, atol=1e-8)
    assert_close(after.stage(x), before.in_sample, rtol=1e-7, atol=1e-8)


@SHAPES
@BIASED
def test_a_constant_block_says_nothing(d, bias, rng):
    x, y, groups = problem(d, rng)
    x[:, : d // 4] = 7.3 if bias else 0.0
    fit = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(block_sizes=(d // 4, d - d // 4), bias=bias))
    assert float(fit.stage.block_scales[0]) == 0.0
    alone = fit_stage(x[:, d // 4 :], y, groups, mean_distance(y), RidgeSpec(bias=bias))
    assert_close(fit.stage(x).square().sum(), fit.in_sample.square().sum(), rtol=1e-9, atol=0)
    factor = d / (d - d // 4)  # the penalty is shared out over all columns, silent ones included
    assert alone.stage.ridge.penalty / alone.relative_penalty == pytest.approx(
        factor * fit.stage.ridge.penalty / fit.relative_penalty
    )


@SHAPES
def test_features_without_any_spread_leave_the_mean(d, rng):
    _, y, groups = problem(d, rng)
    fit = fit_stage(torch.ones(36, d, dtype=torch.float64), y, groups, mean_distance(y), RidgeSpec())
    assert_close(fit.in_sample, y.mean(0).expand_as(y), rtol=1e-12, atol=1e-12)
    assert torch.isfinite(fit.out_of_group).all()


@SHAPES
def test_zero_update_is_exact_and_wins_where_nothing_helps(d, rng):
    x, _, groups = problem(d, rng)
    noise = torch.randn(36, 3, generator=rng, dtype=torch.float64)
    spec = RidgeSpec(relative_penalties=(0.1, 1.0, math.inf), bias=False)
    fit = fit_stage(x - x.mean(0), noise, groups, lambda p: (p - noise).square().mean() + p.abs().sum(), spec)
    assert fit.relative_penalty is None
    assert fit.path[0].relative_penalty is None
    for table in (fit.out_of_group, fit.in_sample, fit.stage(x)):
        assert not table.any()
    assert math.isinf(fit.stage.ridge.penalty)


@SHAPES
def test_streamed_equals_in_memory(d, rng, dtype, tolerance, device):
    x, y, groups = problem(d, rng, dtype=dtype)
    x, y = x.to(device), y.to(device)
    spec = RidgeSpec(block_sizes=(d // 4, d - d // 4), block_weights_grid=((1.0, 1.0), (1.0, 0.5)))
    whole = fit_stage(x, y, groups, mean_distance(y), spec)
    streamed = fit_stage(lambda: iter(x.split(5)), y, groups, mean_distance(y), spec)
    assert (streamed.relative_penalty, streamed.block_weights) == (whole.relative_penalty, whole.block_weights)
    assert whole.out_of_group.dtype == dtype
    assert whole.stage.ridge.weight.device.type == device.type
    assert_close(streamed.out_of_group, whole.out_of_group, rtol=10 * tolerance, atol=10 * tolerance)
    assert_close(
        predict(streamed.stage, lambda: iter(x.split(5))), whole.stage(x), rtol=10 * tolerance, atol=10 * tolerance
    )
    assert_close(streamed.in_sample, whole.in_sample, rtol=10 * tolerance, atol=10 * tolerance)


@BIASED
@pytest.mark.parametrize("shift", [True, False], ids=["shifted", "raw"])
def test_a_fold_from_the_gram_matrix_of_all(bias, shift, rng):
    x, y, groups = problem(90, rng)
    rows = torch.nonzero(groups != 3)[:, 0]
    spec = RidgeSpec(block_sizes=(22, 68), bias=bias)
    gram = compute_sample_gram(x, 36, block_sizes=(22, 68), bias=shift).select(rows)
    error = mean_distance(y[rows])
    if shift and not bias:
        with pytest.raises(ValueError, match="bias=False"):
            fit_stage(x[rows], y[rows], groups[rows], error, spec, shared=gram)
        return
    alone = fit_stage(x[rows], y[rows], groups[rows], error, spec)
    shared = fit_stage(select_rows(x, rows), y[rows], groups[rows], error, spec, shared=gram)
    assert shared.relative_penalty == alone.relative_penalty
    assert_close(shared.out_of_group, alone.out_of_group, rtol=1e-8, atol=1e-8)
    assert_close(shared.stage.ridge.weight, alone.stage.ridge.weight, rtol=1e-7, atol=1e-8)


def test_one_candidate_needs_no_groups(rng):
    x, y, groups = problem(90, rng)
    fit = fit_stage(x, y, None, mean_distance(y), RidgeSpec(relative_penalty=2))
    grouped = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(relative_penalty=2))
    assert fit.out_of_group is None
    assert fit.error is None
    assert fit.path == ()
    assert_close(fit.stage.ridge.weight, grouped.stage.ridge.weight, rtol=0, atol=0)
    with pytest.raises(ValueError, match="several candidates"):
        fit_stage(x, y, None, mean_distance(y), RidgeSpec(relative_penalties=(1, 2)))


def test_ties_go_to_the_stronger_penalty(rng):
    x, y, groups = problem(8, rng)
    fit = fit_stage(x, y, groups, lambda predictions: 1.0, RidgeSpec(relative_penalties=(0.1, 10.0, 1.0)))
    assert fit.relative_penalty == 10.0


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_prediction_for_every_batch_shape(batch, rng):
    x, y, groups = problem(8, rng, dtype=torch.float32)
    stage = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(block_sizes=(2, 6))).stage
    points = torch.randn(*batch, 8, generator=rng)
    one_by_one = torch.stack([stage(point) for point in points.reshape(-1, 8)]).reshape(*batch, 3)
    assert_close(stage(points), one_by_one)
    assert stage(points.double()).dtype == torch.float64
    assert stage(points.half()).dtype == torch.float32


def test_bad_input_is_refused(rng):
    x, y, groups = problem(8, rng)
    for penalties in ((), (0.0,), (1.0, math.nan), (-1.0,)):
        with pytest.raises(ValueError, match="relative_penalties must be positive"):
            RidgeSpec(relative_penalties=penalties)
    for penalty in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"relative_penalty must be positive, or null to choose it; got {penalty}"):
            RidgeSpec(relative_penalty=penalty)
    with pytest.raises(ValueError, match="form must be auto, primal or dual; got 'x'"):
        RidgeSpec(form="x")
    for grid in ((), ((1.0, -1.0),), ((math.inf,),)):
        with pytest.raises(ValueError, match="block_weights_grid must hold"):
            RidgeSpec(block_weights_grid=grid)
    with pytest.raises(ValueError, match="must have 2 weights"):
        fit_stage(x, y, groups, mean_distance(y), RidgeSpec(block_sizes=(2, 6), block_weights_grid=((1.0,),)))
    with pytest.raises(ValueError, match="groups must be 36 integers"):
        fit_stage(x, y, groups[:5], mean_distance(y), RidgeSpec())
    with pytest.raises(ValueError, match="got NaN at relative penalty"):
        fit_stage(x, y, groups, lambda p: p.sum() * math.nan, RidgeSpec())
    with pytest.raises(ValueError, match="dual form only"):
        fit_stage(x, y, groups, mean_distance(y), RidgeSpec(form="primal"), shared=compute_sample_gram(x, 36))
    with pytest.raises(ValueError, match="gram must be of 36 samples"):
        fit_stage(x, y, groups, mean_distance(y), RidgeSpec(), shared=compute_sample_gram(x[:9], 9))
