"""The walk along the rhos, the plan by operations and memory, and both factorisations of either form."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import StageSpec, fit_stage
from facerecon_torch.regression.plan import choose_factorisation, choose_form
from facerecon_torch.regression.search import walk
from tests.regression.test_stage import mean_distance, problem

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPES = pytest.mark.parametrize("d", [8, 90], ids=["tall", "wide"])
FORMS = pytest.mark.parametrize("form", ["primal", "dual"])
BIASED = pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("least", range(9))
def test_a_walk_finds_the_only_minimum_and_knows_both_neighbours(start, least):
    seen = []

    def value(k):
        seen.append(k)
        return abs(k - least)

    assert walk(9, start, value) == least
    assert len(seen) == len(set(seen)) <= abs(start - least) + 3
    assert {k for k in (least - 1, least, least + 1) if 0 <= k < 9} <= set(seen)


def test_a_walk_over_equal_values_ends_at_the_strongest():
    assert walk(5, 2, lambda k: 1.0) == 0
    assert walk(5, 2, lambda k: math.inf if k < 2 else 1.0) == 2


@SHAPES
@FORMS
@BIASED
def test_both_factorisations_agree(d, form, bias, rng):
    x, y, groups = problem(d, rng)
    tiny = 1e-6 if d < 36 else 1e-3  # where D > n, 1 - leverage is as small as rho, and rounding is divided by it
    rhos = (tiny, 0.1, 1.0, 10.0, 1e8, *((math.inf,) if bias else ()))
    tables, fits = {}, {}
    for factorisation in ("eigen", "cholesky"):
        seen = tables.setdefault(factorisation, {})
        for rho in rhos:  # one at a time: a walk need not try them all
            spec = StageSpec(
                rhos=rho, block_sizes=(2, d - 2), block_weights_grid=((1.0, 0.3),), bias=bias, form=form,
                factorisation=factorisation,
            )  # fmt: skip
            seen[rho] = fit_stage(x, y, groups, mean_distance(y), spec)
        spec = StageSpec(rhos=rhos, block_sizes=(2, d - 2), bias=bias, form=form, factorisation=factorisation)
        fits[factorisation] = fit_stage(x, y, groups, mean_distance(y), spec)
    for rho in rhos:
        one, other = (tables[factorisation][rho] for factorisation in ("eigen", "cholesky"))
        assert_close(one.out_of_group, other.out_of_group, rtol=1e-9, atol=1e-9)
        assert_close(one.stage.ridge.weight, other.stage.ridge.weight, rtol=1e-9, atol=1e-9)
        assert one.error == pytest.approx(other.error, rel=1e-9)
    assert fits["eigen"].rho == fits["cholesky"].rho
    assert_close(fits["eigen"].stage.ridge.weight, fits["cholesky"].stage.ridge.weight, rtol=1e-9, atol=1e-9)


def test_a_walk_tries_fewer_and_says_which(rng):
    x, y, groups = problem(8, rng)
    spec = {name: StageSpec(form="primal", factorisation=name) for name in ("eigen", "cholesky")}
    whole = fit_stage(x, y, groups, mean_distance(y), spec["eigen"])
    passes = []

    def source():
        passes.append(0)
        return iter(x.split(5))

    walked = fit_stage(source, y, groups, mean_distance(y), spec["cholesky"], start_rho=whole.rho)
    assert walked.rho == whole.rho
    assert [point.rho for point in walked.path] == sorted((point.rho for point in walked.path), reverse=True)
    assert len(walked.path) == 3
    assert {point.rho: pytest.approx(point.error, rel=1e-9) for point in whole.path}.items() >= {
        point.rho: point.error for point in walked.path
    }.items()
    assert len(passes) == 2 + 1 + 3 + 1  # two looks at the first rows, moments, a pass for each penalty, in-sample


def test_predictions_of_few_candidates_at_a_time_change_nothing(rng, monkeypatch):
    x, y, groups = problem(8, rng)
    spec = StageSpec(form="primal", factorisation="eigen")
    whole = fit_stage(x, y, groups, mean_distance(y), spec)
    monkeypatch.setattr("facerecon_torch.regression.row_pass.TABLE_BYTES", 3 * y.numel() * y.element_size())
    parts = fit_stage(x, y, groups, mean_distance(y), spec)
    assert parts.path == whole.path
    assert_close(parts.out_of_group, whole.out_of_group, rtol=0, atol=0)


def test_what_cholesky_cannot_factorise_is_left_out(rng):
    """Rank 3 in float32 products: a tiny penalty drowns in their rounding."""
    _, y, groups = problem(8, rng, dtype=torch.float32)
    low = (torch.randn(36, 3, generator=rng) @ torch.randn(3, 60, generator=rng) * 100).float()

    def fit(rhos, form):
        spec = StageSpec(rhos=rhos, form=form, factorisation="cholesky", bias=False)
        return fit_stage(low, y, groups, mean_distance(y), spec)

    found = fit((1e-12, 1.0), "primal")
    assert found.rho == 1.0
    assert [point.rho for point in found.path] == [1.0]
    with pytest.raises(ValueError, match="no candidate could be factorised"):
        fit((1e-12, 2e-12), "primal")
    assert len(fit((1e-12, 1.0), "dual").path) == 2  # eigenvectors take over


def test_the_form_follows_shape_and_memory():
    assert choose_form(10, 20, "auto") == "dual"
    assert choose_form(20, 10, "auto") == "primal"
    assert choose_form(30_000, 32_868, "auto", blocks=2, memory=14 * 10**9) == "primal"  # 36 GB against 8.6
    assert choose_form(30_000, 32_868, "auto", blocks=2, memory=64 * 10**9) == "dual"
    assert choose_form(30_000, 32_868, "auto", blocks=2, memory=10**9) == "dual"  # neither fits: the smaller
    assert choose_form(30_000, 32_868, "primal") == "primal"


@pytest.mark.parametrize(
    ("form", "n", "d", "penalties", "device", "memory", "wanted"),
    [
        ("dual", 4_200, 32_868, 17, CPU, 10**10, "eigen"),
        ("dual", 4_200, 32_868, 6, CPU, 10**10, "cholesky"),
        ("dual", 4_200, 32_868, 17, CUDA, 10**10, "cholesky"),
        ("primal", 51_000, 8_316, 17, CPU, 3 * 10**9, "eigen"),
        ("primal", 51_000, 8_316, 17, CPU, 2 * 10**9, "cholesky"),
        ("primal", 51_000, 8_316, 17, CUDA, 24 * 10**9, "cholesky"),
        ("primal", 51_000, 32_868, 17, CPU, 14 * 10**9, "cholesky"),
        ("primal", 51_000, 8_316, 1, CPU, 3 * 10**9, "cholesky"),
    ],
)
def test_the_factorisation_follows_operations_and_memory(form, n, d, penalties, device, memory, wanted):
    assert choose_factorisation(form, n, d, penalties, device=device, memory=memory) == wanted
