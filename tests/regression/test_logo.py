"""Leave one group out: both closed forms equal refitting without the group, re-centred, whatever the chunks."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import RidgeSpec, compute_moments, fit_stage, leave_group_out, logo, moments
from facerecon_torch.regression.logo import Groups, equal_size_batches, group_chunks, left_out_residuals, solve_left_out
from facerecon_torch.regression.moments import Rows
from facerecon_torch.regression.ridge import PenalisedFactor, PrimalProblem, make_problem
from tests.reference.ridge_refit import refit_without_each_group
from tests.regression.test_stage import mean_distance
from tests.regression.test_stage import problem as two_blocks

PENALTIES = (0.02, 1.0, 300.0)
SIZES = {"unequal": [1, 5, 2, 2, 9, 1, 3, 7], "two groups": [3, 27], "singles": [1] * 30, "equal": [6] * 5}
SHAPES = pytest.mark.parametrize("d", [7, 90], ids=["tall", "wide"])
BIASED = pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])
GROUPED = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
FORMS = pytest.mark.parametrize("form", ["primal", "dual"])


def problem(d, sizes, rng):
    """30 samples whose groups are shuffled and whose names are neither sorted nor dense."""
    names = torch.randperm(1000, generator=rng)[: len(sizes)] - 500
    groups = names.repeat_interleave(torch.tensor(sizes))[torch.randperm(sum(sizes), generator=rng)]
    x = torch.randn(len(groups), d, generator=rng, dtype=torch.float64) + 2.0
    y = torch.randn(len(groups), 3, generator=rng, dtype=torch.float64) - 1.0 + 0.5 * x[:, :1]
    return x, y, groups


def tables(form, x, y, groups, bias, penalties=PENALTIES):
    made = make_problem(Rows.agree(x, len(y), bias=bias, device=y.device), y, bias=bias, form=form)
    return [leave_group_out(made, groups, torch.ones_like(made.energies), penalty) for penalty in penalties]


@SHAPES
@BIASED
@GROUPED
@FORMS
def test_equals_refitting_without_the_group(form, d, bias, sizes, rng, device):
    x, y, groups = problem(d, sizes, rng)
    found = tables(form, x.to(device), y.to(device), groups.to(device), bias)
    for table, penalty in zip(found, PENALTIES, strict=True):
        assert_close(table.cpu(), refit_without_each_group(x, y, groups, penalty, bias), rtol=1e-10, atol=1e-10)


@SHAPES
@FORMS
def test_infinite_penalty_is_the_mean_of_the_others(form, d, rng):
    x, y, groups = problem(d, SIZES["unequal"], rng)
    table = tables(form, x, y, groups, True, (math.inf,))[0]
    for group in groups.unique():
        others = y[groups != group].mean(0)
        assert_close(table[groups == group], others.expand(int((groups == group).sum()), 3), rtol=1e-10, atol=1e-10)
    assert not tables(form, x, y, groups, False, (math.inf,))[0].any()


@SHAPES
@FORMS
@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "source"])
def test_small_chunks_and_batches_change_nothing(streamed, form, d, rng, monkeypatch):
    x, y, groups = problem(d, SIZES["unequal"], rng)
    expected = tables(form, x, y, groups, True)
    monkeypatch.setattr(logo, "BATCH_NUMBERS", 1)
    monkeypatch.setattr(logo, "PASS_ROWS", 1)
    monkeypatch.setattr(logo, "chunk_rows", lambda *_: 4)
    monkeypatch.setattr(moments, "chunk_rows", lambda *_: 4)
    assert_close(tables(form, (lambda: iter(x.split(7))) if streamed else x, y, groups, True), expected)


@pytest.mark.parametrize(("form", "d"), [("primal", 7), ("dual", 90)])
def test_float32_follows_float64(form, d, rng):
    x, y, groups = problem(d, SIZES["unequal"], rng)
    single, double = tables(form, x.float(), y.float(), groups, True), tables(form, x, y, groups, True)
    assert all(table.dtype == torch.float32 for table in single)
    assert_close([table.double() for table in single], double, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("relative_penalty", "tolerance"), [(1e-3, 1e-4), (1.0, 1e-6)])
def test_what_float32_rows_cost(relative_penalty, tolerance, rng):
    """1,500 rows and 700 features of rank 20 with noise, against float64 rows: rows turned by one factor are off by
    less than the square root of its condition; predictions, whose moments are float32 products too, by `tolerance`."""
    codes = torch.randn(1500, 20, generator=rng)
    x = codes @ torch.randn(20, 700, generator=rng) + 0.5 * torch.randn(1500, 700, generator=rng) + 10.0
    y, groups = codes @ torch.randn(20, 5, generator=rng), torch.arange(1500) // 12
    exact = compute_moments(x.double(), y.double())
    penalty = relative_penalty * float(exact.gram.trace()) / 700
    factor = PenalisedFactor(exact.gram)
    assert factor.factorise(torch.ones(700, dtype=torch.float64), penalty)
    rows = x.double() - exact.feature_mean
    single, double = factor.turn_(rows.float()), factor.turn_(rows)
    assert float((single - double).norm() / double.norm()) < 6e-8 * math.sqrt(1 + 700 / relative_penalty)
    single, double = (
        tables("primal", x.to(t), y.to(t), groups, True, (penalty,))[0] for t in (torch.float32, torch.float64)
    )
    assert float((single - double).norm() / double.norm()) < tolerance


def test_batches_hold_each_sample_once_beside_its_group(rng):
    _, _, names = problem(2, SIZES["unequal"], rng)
    groups = Groups.number(names)
    batches = equal_size_batches(groups.index, 10)
    assert sorted(batch.shape[1] for batch in batches) == sorted(set(SIZES["unequal"]))
    assert torch.cat([batch.flatten() for batch in batches]).sort().values.tolist() == list(range(30))
    for batch in batches:
        assert bool((names[batch] == names[batch[:, :1]]).all())
        assert bool((groups.counts[groups.index[batch[:, 0]]] == batch.shape[1]).all())


@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "source"])
@pytest.mark.parametrize("sorted_groups", [False, True], ids=["mixed", "sorted"])
def test_groups_come_whole_and_once(streamed, sorted_groups, rng):
    index = torch.randint(0, 7, (40,), generator=rng)
    index[:7] = torch.arange(7)
    index = index.sort().values if sorted_groups else index
    counts = torch.bincount(index)
    x = torch.randn(40, 2, generator=rng)
    all_samples, owners = [], []
    for samples, rows in group_chunks((lambda: iter(x.split(5))) if streamed else x, Groups(index, counts), 6):
        assert_close(rows, x[samples], rtol=0, atol=0)
        assert bool((torch.bincount(index[samples], minlength=7)[index[samples]] == counts[index[samples]]).all())
        all_samples.append(samples)
        owners.append(set(index[samples].tolist()))
    assert torch.cat(all_samples).sort().values.tolist() == list(range(40))
    assert len(owners) > 1 or not sorted_groups
    assert sum(len(owner) for owner in owners) == 7


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


def test_chunks_that_do_not_fit_are_done_in_halves(rng, monkeypatch):
    """A stand-in for a small GPU: more than 5 rows at a time run out of memory."""
    x, y, groups = two_blocks(8, rng)
    expected = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(form="primal"))
    refused = set()

    def limited(owner, name, rows_of):
        function = getattr(owner, name)

        def called(*arguments):
            if rows_of(arguments) > 5:
                refused.add(name)
                raise torch.cuda.OutOfMemoryError("no room")
            return function(*arguments)

        monkeypatch.setattr(owner, name, called)

    limited(moments._Sums, "add", lambda a: a[3].stop - a[3].start)
    limited(PrimalProblem, "turn", lambda a: len(a[1]))
    parts = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(form="primal"))
    assert refused == {"add", "turn"}
    assert parts.relative_penalty == expected.relative_penalty
    assert_close(parts.out_of_group, expected.out_of_group, rtol=1e-10, atol=1e-10)
    assert_close(parts.stage.ridge.weight, expected.stage.ridge.weight, rtol=1e-10, atol=1e-10)


def test_a_source_of_another_length_on_a_later_pass_is_refused(rng):
    x, y, groups = two_blocks(8, rng)
    everyone = compute_moments(x, y)
    for length, said in ((20, "20"), (40, "40")):
        rows = Rows.agree(lambda n=length: iter([torch.cat([x, x])[:n]]), 36, bias=True)
        made = make_problem(rows, y, bias=True, shared=everyone)
        with pytest.raises(ValueError, match=f"must yield 36 rows, one per target, on every pass; got {said}"):
            leave_group_out(made, groups.sort().values, torch.ones_like(made.energies), 1.0)


def test_systems_that_rounding_made_indefinite_are_solved_all_the_same(rng):
    good = torch.randn(3, 9, 9, generator=rng, dtype=torch.float64)
    systems = good @ good.mT + torch.eye(9, dtype=torch.float64)
    systems[1] = systems[1] - 2 * torch.linalg.eigvalsh(systems[1])[0] * torch.eye(9, dtype=torch.float64)
    errors = torch.randn(3, 9, 4, generator=rng, dtype=torch.float64)
    assert_close(systems @ solve_left_out(systems, errors), errors, rtol=1e-9, atol=1e-9)


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="at least 2 groups; got 1"):
        Groups.number(torch.zeros(5, dtype=torch.int64))
