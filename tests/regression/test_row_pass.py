"""Passes over the rows: large groups by the smaller system, chunks that do not fit, moments of folds."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import (
    StageSpec,
    compute_moments,
    fit_stage,
    gram,
    leave_group_out_primal,
    row_pass,
    select_rows,
)
from facerecon_torch.regression.row_pass import left_out_residuals
from facerecon_torch.regression.selection import solve_left_out
from tests.regression.test_stage import mean_distance, problem


@pytest.mark.parametrize("share", [0.0, 1 / 700])
@pytest.mark.parametrize("k", [5, 300, 900], ids=["narrow", "medium", "wide"])
@pytest.mark.parametrize("size", [1, 130, 300])
def test_residuals_solve_the_system_spelled_out(size, k, share, rng):
    half = torch.randn(2, size, k, generator=rng, dtype=torch.float64) / (size + k)
    errors = torch.randn(2, size, 3, generator=rng, dtype=torch.float64)
    system = torch.eye(size, dtype=torch.float64) - half @ half.mT - share
    # One by one: LU of a batch on several threads can hang (see solve_left_out).
    expected = torch.stack([torch.linalg.solve(*pair) for pair in zip(system, errors)])
    assert_close(left_out_residuals(half, errors, share), expected, rtol=1e-11, atol=1e-11)
    single = left_out_residuals(half.float(), errors, share)
    assert single.dtype == torch.float64
    assert_close(single, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factorisation", ["eigen", "cholesky"])
def test_chunks_that_do_not_fit_are_done_in_halves(factorisation, rng, monkeypatch):
    """A stand-in for a small GPU: more than 5 rows at a time run out of memory."""
    x, y, groups = problem(8, rng)
    whole = fit_stage(x, y, groups, mean_distance(y), StageSpec(form="primal", factorisation=factorisation))
    refused = []

    def limited(function, rows_of):
        def called(*arguments):
            if rows_of(arguments) > 5:
                refused.append(function.__name__)
                raise torch.cuda.OutOfMemoryError("no room")
            return function(*arguments)

        return called

    monkeypatch.setattr(gram._Sums, "add", limited(gram._Sums.add, lambda a: a[3].stop - a[3].start))
    monkeypatch.setattr(row_pass, "_turned", limited(row_pass._turned, lambda a: a[3].stop - a[3].start))
    limited_solve = limited(row_pass.left_out_residuals, lambda a: len(a[0]) * 3)  # batches of several groups
    monkeypatch.setattr(row_pass, "left_out_residuals", limited_solve)
    parts = fit_stage(x, y, groups, mean_distance(y), StageSpec(form="primal", factorisation=factorisation))
    assert {"add", "_turned", "left_out_residuals"} <= set(refused)
    assert parts.rho == whole.rho
    assert_close(parts.out_of_group, whole.out_of_group, rtol=1e-10, atol=1e-10)
    assert_close(parts.stage.ridge.weight, whole.stage.ridge.weight, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])
def test_moments_of_all_less_those_left_out(bias, rng):
    x, y, groups = problem(8, rng)
    x += 1000.0
    fold = groups % 3 == 0
    left = compute_moments(x, y, bias=bias).without(compute_moments(x[fold], y[fold], bias=bias))
    direct = compute_moments(x[~fold], y[~fold], bias=bias)
    scale = float(x.square().sum())
    assert (left.count, left.centred, left.dtype) == (direct.count, direct.centred, direct.dtype)
    assert_close(left.gram.full(), direct.gram.full(), rtol=0, atol=1e-15 * scale)
    assert_close(left.cross, direct.cross, rtol=1e-10, atol=1e-9)
    assert_close(left.feature_mean, direct.feature_mean, rtol=1e-14, atol=0)
    assert_close(left.target_mean, direct.target_mean, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("factorisation", ["eigen", "cholesky"])
def test_folds_from_shared_moments(factorisation, rng):
    x, y, groups = problem(8, rng)
    spec = StageSpec(form="primal", factorisation=factorisation)
    everyone = compute_moments(x, y)
    for fold in range(2):
        stay, go = (torch.nonzero(keep)[:, 0] for keep in (groups % 2 != fold, groups % 2 == fold))
        first = everyone.without(compute_moments(select_rows(x, go), y[go]))
        shared = fit_stage(select_rows(x, stay), y[stay], groups[stay], mean_distance(y[stay]), spec, first=first)
        alone = fit_stage(x[stay], y[stay], groups[stay], mean_distance(y[stay]), spec)
        assert shared.rho == alone.rho
        assert_close(shared.out_of_group, alone.out_of_group, rtol=1e-9, atol=1e-9)
        assert_close(shared.stage.ridge.weight, alone.stage.ridge.weight, rtol=1e-9, atol=1e-9)


def test_moments_of_other_samples_are_refused(rng):
    x, y, groups = problem(8, rng)
    moments = compute_moments(x, y)
    with pytest.raises(ValueError, match=r"moments must be of .* \(30, 8, 3, True\); got \(36, 8, 3, True\)"):
        fit_stage(x[:30], y[:30], groups[:30], mean_distance(y[:30]), StageSpec(), first=moments)
    with pytest.raises(ValueError, match="got form='dual'"):
        fit_stage(x, y, groups, mean_distance(y), StageSpec(form="dual"), first=moments)
    with pytest.raises(ValueError, match=r"moments to take off 36 rows must be of fewer rows.*got 36 rows"):
        moments.without(moments)
    with pytest.raises(ValueError, match="alike in bias"):
        moments.without(compute_moments(x[:9], y[:9], bias=False))


def test_a_source_that_ends_early_on_a_later_pass_is_refused(rng):
    x, y, groups = problem(8, rng)
    tables = leave_group_out_primal(
        x[:20], compute_moments(x, y), y, groups.sort().values, (1.0,), scales=torch.ones(8, dtype=torch.float64)
    )
    with pytest.raises((ValueError, IndexError)):
        next(tables)
    tables = leave_group_out_primal(
        lambda: iter([x[:20]]), compute_moments(x, y), y, torch.arange(36), (1.0,),
        scales=torch.ones(8, dtype=torch.float64),
    )  # fmt: skip
    with pytest.raises(ValueError, match="must yield 36 rows, one per target, on every pass; got 20"):
        next(tables)


def test_systems_that_rounding_made_indefinite_are_solved_all_the_same(rng):
    good = torch.randn(3, 9, 9, generator=rng, dtype=torch.float64)
    systems = good @ good.mT + torch.eye(9, dtype=torch.float64)
    systems[1] = systems[1] - 2 * torch.linalg.eigvalsh(systems[1])[0] * torch.eye(9, dtype=torch.float64)
    errors = torch.randn(3, 9, 4, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(systems @ solve_left_out(systems, errors), errors, rtol=1e-9, atol=1e-9)
