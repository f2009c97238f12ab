"""Leave one group out: both closed forms equal refitting without the group, re-centred."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import leave_group_out_dual, leave_group_out_primal
from facerecon_torch.regression.gram import compute_moments, compute_sample_gram
from facerecon_torch.regression.selection import equal_size_batches, number_groups
from tests.reference.ridge_refit import refit_without_each_group

PENALTIES = (0.02, 1.0, 300.0)
SIZES = {"unequal": [1, 5, 2, 2, 9, 1, 3, 7], "two groups": [3, 27], "singles": [1] * 30, "equal": [6] * 5}
SHAPES = pytest.mark.parametrize("d", [7, 90], ids=["tall", "wide"])
BIASED = pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])
GROUPED = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())


def problem(d, sizes, rng):
    """30 samples whose groups are shuffled and whose names are neither sorted nor dense."""
    names = torch.randperm(1000, generator=rng)[: len(sizes)] - 500
    groups = names.repeat_interleave(torch.tensor(sizes))[torch.randperm(sum(sizes), generator=rng)]
    x = torch.randn(len(groups), d, generator=rng, dtype=torch.float64) + 2.0
    y = torch.randn(len(groups), 3, generator=rng, dtype=torch.float64) - 1.0 + 0.5 * x[:, :1]
    return x, y, groups


def dual(x, y, groups, bias, penalties=PENALTIES, factorisation="eigen"):
    gram = compute_sample_gram(x, len(y), shift=bias).centred(bias)[0]
    return list(leave_group_out_dual(gram, y, groups, penalties, bias=bias, factorisation=factorisation))


def primal(x, y, groups, bias, penalties=PENALTIES, factorisation="eigen", features=None):
    return list(
        leave_group_out_primal(
            x if features is None else features,
            compute_moments(x, y, bias=bias),
            y,
            groups,
            penalties,
            scales=torch.ones_like(x[0], dtype=torch.float64),
            factorisation=factorisation,
        )
    )


def dual_cholesky(x, y, groups, bias, penalties=PENALTIES):
    return dual(x, y, groups, bias, penalties, "cholesky")


def primal_cholesky(x, y, groups, bias, penalties=PENALTIES, features=None):
    return primal(x, y, groups, bias, penalties, "cholesky", features)


@SHAPES
@BIASED
@GROUPED
@pytest.mark.parametrize("closed_form", [dual, dual_cholesky, primal, primal_cholesky])
def test_equals_refitting_without_the_group(closed_form, d, bias, sizes, rng, device):
    x, y, groups = problem(d, sizes, rng)
    found = [table.cpu() for table in closed_form(x.to(device), y.to(device), groups.to(device), bias)]
    for table, penalty in zip(found, PENALTIES, strict=True):
        assert_close(table, refit_without_each_group(x, y, groups, penalty, bias), rtol=1e-10, atol=1e-10)


@SHAPES
@pytest.mark.parametrize("closed_form", [dual, dual_cholesky, primal, primal_cholesky])
def test_infinite_penalty_is_the_mean_of_the_others(closed_form, d, rng):
    x, y, groups = problem(d, SIZES["unequal"], rng)
    table = closed_form(x, y, groups, True, (math.inf,))[0]
    for group in groups.unique():
        others = y[groups != group].mean(0)
        assert_close(table[groups == group], others.expand(int((groups == group).sum()), 3), rtol=1e-10, atol=1e-10)
    assert float(closed_form(x, y, groups, False, (math.inf,))[0].abs().max()) < 1e-12


@SHAPES
@pytest.mark.parametrize("closed_form", [dual, dual_cholesky, primal, primal_cholesky])
def test_small_batches_of_groups_change_nothing(closed_form, d, rng, monkeypatch):
    x, y, groups = problem(d, SIZES["unequal"], rng)
    whole = closed_form(x, y, groups, True)
    monkeypatch.setattr("facerecon_torch.regression.selection.BUCKET_NUMBERS", 1)
    monkeypatch.setattr("facerecon_torch.regression.streaming.chunk_rows", lambda *_: 4)
    assert_close(closed_form(x, y, groups, True), whole, rtol=1e-10, atol=1e-10)


def test_primal_reads_a_source(rng, monkeypatch):
    monkeypatch.setattr("facerecon_torch.regression.streaming.chunk_rows", lambda *_: 4)
    x, y, groups = problem(7, SIZES["unequal"], rng)
    streamed = primal(x, y, groups, True, features=lambda: iter(x.split(7)))
    assert_close(streamed, primal(x, y, groups, True), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("closed_form", "d"), [(primal, 7), (primal_cholesky, 7), (dual, 90), (dual_cholesky, 90)])
def test_float32_follows_float64(closed_form, d, rng):
    x, y, groups = problem(d, SIZES["unequal"], rng)
    single, double = closed_form(x.float(), y.float(), groups, True), closed_form(x, y, groups, True)
    assert all(table.dtype == torch.float32 for table in single)
    assert_close([table.double() for table in single], double, rtol=2e-4, atol=2e-4)


def test_batches_hold_each_sample_once_beside_its_group(rng):
    _, _, groups = problem(2, SIZES["unequal"], rng)
    index, counts = number_groups(groups)
    batches = equal_size_batches(index, 10)
    assert sorted(batch.shape[1] for batch in batches) == sorted(set(SIZES["unequal"]))
    assert torch.cat([batch.flatten() for batch in batches]).sort().values.tolist() == list(range(30))
    for batch in batches:
        assert bool((groups[batch] == groups[batch[:, :1]]).all())
        assert bool((counts[index[batch[:, 0]]] == batch.shape[1]).all())


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="at least 2 groups; got 1"):
        number_groups(torch.zeros(5, dtype=torch.int64))
