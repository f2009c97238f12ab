"""The walk along the relative penalties, and the choice of the form by sizes and memory."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import RidgeSpec, choose_form, fit_stage
from facerecon_torch.regression.stage import walk
from tests.regression.test_stage import mean_distance, problem

SHAPES = pytest.mark.parametrize("d", [8, 90], ids=["tall", "wide"])
FORMS = pytest.mark.parametrize("form", ["primal", "dual"])
BIASED = pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("least", range(9))
def test_a_walk_finds_the_only_minimum_and_knows_both_neighbours(start, least):
    asked = []

    def value(k):
        asked.append(k)
        return abs(k - least)

    assert walk(9, start, value) == least
    assert len(asked) == len(set(asked)) <= abs(start - least) + 3
    assert {k for k in (least - 1, least, least + 1) if 0 <= k < 9} <= set(asked)


def test_a_walk_over_equal_values_ends_at_the_strongest():
    assert walk(5, 2, lambda k: 1.0) == 0
    assert walk(5, 2, lambda k: math.inf if k < 2 else 1.0) == 2


@SHAPES
@BIASED
def test_both_forms_agree(d, bias, rng):
    x, y, groups = problem(d, rng)
    tiny = (
        1e-6 if d < 36 else 1e-3
    )  # where D > n, 1 - leverage is as small as the penalty, and rounding is divided by it
    candidates = (tiny, 0.1, 1.0, 10.0, 1e8, *((math.inf,) if bias else ()))
    blocks = {"block_sizes": (2, d - 2), "bias": bias}
    for relative_penalty in candidates:  # one at a time: the search need not try them all
        one, other = (
            fit_stage(
                x, y, groups, mean_distance(y),
                RidgeSpec(relative_penalty=relative_penalty, block_weights_grid=((1.0, 0.3),), form=form, **blocks),
            )
            for form in ("primal", "dual")
        )  # fmt: skip
        assert_close(one.out_of_group, other.out_of_group, rtol=1e-9, atol=1e-9)
        assert_close(one.stage.ridge.weight, other.stage.ridge.weight, rtol=1e-9, atol=1e-9)
        assert one.error == pytest.approx(other.error, rel=1e-9)
    one, other = (
        fit_stage(x, y, groups, mean_distance(y), RidgeSpec(relative_penalties=candidates, form=form, **blocks))
        for form in ("primal", "dual")
    )
    assert one.relative_penalty == other.relative_penalty
    assert_close(one.stage.ridge.weight, other.stage.ridge.weight, rtol=1e-9, atol=1e-9)


@SHAPES
@FORMS
def test_the_search_ends_at_the_best_of_all_candidates(d, form, rng):
    x, y, groups = problem(d, rng)
    errors = {
        p: fit_stage(x, y, groups, mean_distance(y), RidgeSpec(relative_penalty=p, form=form)).error
        for p in RidgeSpec().candidates
    }
    for start in (None, 1e-3, 1e5):
        found = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(form=form), start=start)
        assert found.relative_penalty == min(errors, key=lambda p: errors[p])
        assert [point.relative_penalty for point in found.path] == sorted(
            (point.relative_penalty for point in found.path), reverse=True
        )
        for point in found.path:
            assert point.error == pytest.approx(errors[point.relative_penalty], rel=1e-9)


def test_a_search_from_the_best_tries_three_candidates_in_a_pass_each(rng):
    x, y, groups = problem(8, rng)
    best = fit_stage(x, y, groups, mean_distance(y), RidgeSpec(form="primal")).relative_penalty
    passes = []

    def source():
        passes.append(0)
        return iter(x.split(5))

    found = fit_stage(source, y, groups, mean_distance(y), RidgeSpec(form="primal"), start=best)
    assert (found.relative_penalty, len(found.path)) == (best, 3)
    assert len(passes) == 1 + 1 + 3 + 1  # a look at the first rows, moments, a pass for each penalty, in-sample


@FORMS
def test_what_cholesky_cannot_factorise_is_no_candidate(form, rng):
    """Rank 3 in float32 products: a tiny penalty drowns in their rounding."""
    _, y, groups = problem(8, rng, dtype=torch.float32)
    low = (torch.randn(36, 3, generator=rng) @ torch.randn(3, 60, generator=rng) * 100).float()

    def fit(relative_penalties):
        spec = RidgeSpec(relative_penalties=relative_penalties, form=form, bias=False)
        return fit_stage(low, y, groups, mean_distance(y), spec)

    found = fit((1e-12, 1.0))
    assert found.relative_penalty == 1.0
    assert [point.relative_penalty for point in found.path] == [1.0]
    with pytest.raises(ValueError, match="no candidate could be factorised"):
        fit((1e-12, 2e-12))


def test_the_form_follows_shape_and_memory():
    assert choose_form(10, 20, "auto") == "dual"
    assert choose_form(20, 10, "auto") == "primal"
    assert choose_form(30_000, 32_868, "auto", blocks=2, memory=14 * 10**9) == "primal"  # 40 GB against 17
    assert choose_form(30_000, 32_868, "auto", blocks=2, memory=64 * 10**9) == "dual"
    assert choose_form(4_000, 32_868, "auto", blocks=2, memory=10**8) == "dual"  # neither fits: the smaller
    assert choose_form(30_000, 32_868, "dual", memory=10**9) == "dual"
    with pytest.raises(ValueError, match="form must be auto, primal or dual; got 'tall'"):
        choose_form(1, 1, "tall")
