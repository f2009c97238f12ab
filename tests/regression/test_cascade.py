"""The cascade inverts sin(x), does not learn from its own overfitting, and stops where nothing more is gained."""

import json
import math
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import CascadeSpec, RidgeSpec, compute_sample_gram, train_cascade
from tests.reference.ridge_refit import refit_without_each_group


def inverse_sine(n, rng, dtype=torch.float64):
    """(observe, start, truth): find x from phi = sin(x), seeing only phi - sin(x now)."""
    truth = (torch.rand(n, 2, generator=rng, dtype=torch.float64) * 2 - 1).to(dtype) * 1.4
    start = (torch.rand(n, 2, generator=rng, dtype=torch.float64) * 2 - 1).to(dtype) * 1.4
    seen = truth.sin()
    return (lambda x, k: seen.to(x.device) - x.sin()), start, truth


def distance_to(truth):
    return lambda x: (x - truth).abs().mean()


def overfitting(n, d, rng):
    """5 noisy features tell what x still lacks, all others are clutter; noise and clutter stay with a sample."""
    mix = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    clutter = torch.randn(n, d, generator=rng, dtype=torch.float64)

    def observe(x, k):
        return torch.cat([(truth - x) @ mix + clutter[:, :5], clutter[:, 5:]], 1)

    return observe, torch.zeros_like(truth), truth


@pytest.mark.parametrize("cross_fit", [True, False], ids=["cross-fitted", "in-sample"])
def test_it_inverts_the_sine(cross_fit, rng, device, dtype):
    observe, start, truth = inverse_sine(400, rng, dtype)
    groups = (torch.arange(400) // 4).to(device)
    spec = CascadeSpec(stages=8, cross_fit=cross_fit)
    truth = truth.to(device)
    cascade, reports = train_cascade(observe, start.to(device), truth, groups, distance_to(truth), spec)
    errors = [report.cross_fitted_error for report in reports if report.kept]
    assert len(errors) == 8
    assert all(later < earlier for earlier, later in pairwise(errors))
    observe_new, x, unseen = inverse_sine(200, rng, dtype)
    x, unseen = x.to(device), unseen.to(device)
    path = [float(distance_to(unseen)(x))]
    for k in range(len(cascade.stages)):
        x = cascade.step(x, observe_new, k)
        path.append(float(distance_to(unseen)(x)))
    assert all(later < earlier for earlier, later in pairwise(path))
    assert path[-1] < 0.1 * path[0]
    assert x.dtype == dtype


def test_run_is_all_steps(rng):
    observe, start, truth = inverse_sine(60, rng)
    cascade, _ = train_cascade(observe, start, truth, torch.arange(60), distance_to(truth), CascadeSpec(stages=3))
    x = start
    for k in range(3):
        x = cascade.step(x, observe, k)
    assert_close(cascade.run(start, observe), x, rtol=0, atol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cross_fitting_prevents_overfitting(seed):
    """In-sample, training error falls to a tenth of the test error while that rises with every stage; cross-fitted,
    training tells the test error and stops after the one stage that helps."""
    errors = {}
    for cross_fit in (False, True):
        rng = torch.Generator().manual_seed(seed)
        observe, start, truth = overfitting(80, 200, rng)
        spec = CascadeSpec(stages=3, cross_fit=cross_fit, ridge=RidgeSpec(relative_penalty=1.0))
        cascade, reports = train_cascade(observe, start, truth, torch.arange(80), distance_to(truth), spec)
        observe_new, x, unseen = overfitting(2000, 200, rng)
        errors[cross_fit] = []
        for k, report in enumerate(reports):
            if report.kept:
                x = cascade.step(x, observe_new, k)
                errors[cross_fit].append((report, float(distance_to(unseen)(x))))
    assert [test for _, test in errors[False]] == sorted(test for _, test in errors[False])
    assert errors[False][-1][0].in_sample_error < 0.12 * errors[False][-1][1]
    ((report, test),) = errors[True]
    assert report.cross_fitted_error == pytest.approx(test, rel=0.1)
    assert test < errors[False][-1][1]


def test_the_paper_s_algorithm_keeps_every_stage_and_updates_in_sample(rng):
    observe, start, truth = inverse_sine(30, rng)
    states = []

    def watched(x, k):
        states.append(x)
        return observe(x, k)

    spec = CascadeSpec(stages=4, cross_fit=False, ridge=RidgeSpec(relative_penalty=0.5))
    cascade, reports = train_cascade(watched, start, truth, None, distance_to(truth), spec)
    assert [report.kept for report in reports] == [True] * 4
    assert [report.relative_penalty for report in reports] == [0.5] * 4
    assert all(report.cross_fitted_error is None for report in reports)
    assert all(bool(stage.ridge.bias.any()) for stage in cascade.stages)
    for k, report in enumerate(reports[:-1]):
        assert_close(states[k + 1], cascade.step(states[k], observe, k), rtol=1e-10, atol=1e-10)
        assert reports[k + 1].start_error == report.in_sample_error


def test_cross_fitted_training_updates_by_the_predictions_of_the_others(rng):
    observe, start, truth = inverse_sine(30, rng)
    groups = torch.arange(30) // 3
    states = []

    def watched(x, k):
        states.append(x)
        return observe(x, k)

    spec, answers = CascadeSpec(stages=2, ridge=RidgeSpec(relative_penalty=0.5)), []
    train_cascade(watched, start, truth, groups, distance_to(truth), spec)
    once = CascadeSpec(stages=1, ridge=spec.ridge)
    train_cascade(observe, start, truth, groups, distance_to(truth), once, on_answers=answers.append)
    features = observe(start, 0)
    spread = (features - features.mean(0)).square().sum()
    features = features / (spread / 30).sqrt()
    others = refit_without_each_group(features, truth - start, groups, 0.5 * 30 / 2, bias=True)
    assert_close(states[1], start + others, rtol=1e-10, atol=1e-10)
    assert_close(answers, [start + others], rtol=1e-10, atol=1e-10)


def test_later_stages_have_no_bias_and_may_do_nothing(rng):
    observe, start, truth = overfitting(40, 60, rng)
    first_only = CascadeSpec(stages=5, ridge=RidgeSpec(relative_penalties=(1.0, 10.0)))
    assert first_only.stage(0).bias
    assert first_only.stage(0).relative_penalties == (1.0, 10.0)
    assert not first_only.stage(1).bias
    assert first_only.stage(1).candidates == (math.inf, 10.0, 1.0)
    seen = []

    def noise_after_the_first(x, k):
        return observe(x, k) if k == 0 else torch.randn(40, 60, generator=rng, dtype=torch.float64)

    cascade, reports = train_cascade(
        noise_after_the_first, start, truth, torch.arange(40) // 2, distance_to(truth), first_only,
        on_stage=lambda k, candidate, report: seen.append((k, len(candidate.stages), report.kept)),
    )  # fmt: skip
    assert seen == [(0, 1, True), (1, 2, False)]
    assert [report.kept for report in reports] == [True, False]
    assert len(cascade.stages) == 1
    assert not (reports[1].relative_penalty is None and reports[1].cross_fitted_error != reports[1].start_error)


@pytest.mark.parametrize(("min_gain", "kept"), [(0.0, 6), (0.8, 1)])
def test_a_stage_must_gain_enough(min_gain, kept, rng):
    observe, start, truth = inverse_sine(100, rng)
    spec = CascadeSpec(stages=6, min_gain=min_gain)
    cascade, reports = train_cascade(observe, start, truth, torch.arange(100), distance_to(truth), spec)
    assert len(cascade.stages) == kept
    assert all(r.cross_fitted_error <= (1 - min_gain) * r.start_error for r in reports if r.kept)
    assert all(r.cross_fitted_error > (1 - min_gain) * r.start_error for r in reports if not r.kept)


def test_retracting_after_every_update(rng):
    observe, start, truth = inverse_sine(100, rng)
    target = truth.sign() * 0.5

    def retract(x):
        return x.clamp(-0.5, 0.5)

    spec = CascadeSpec(stages=3)
    cascade, reports = train_cascade(
        observe, start, target, torch.arange(100), distance_to(target), spec, retract=retract
    )
    x = cascade.step(start, observe, 0)
    assert float(x.abs().max()) == 0.5
    inside = float(distance_to(target)(retract(start + cascade.stages[0](observe(start, 0)))))
    assert reports[0].in_sample_error == pytest.approx(inside, rel=1e-9)


@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "streamed"])
def test_sources_and_a_shared_gram_matrix_give_the_same_cascade(streamed, rng):
    observe, start, truth = inverse_sine(40, rng)
    spec = CascadeSpec(stages=3, ridge=RidgeSpec(relative_penalty=0.1, form="dual"))
    groups = torch.arange(40) // 2
    plain, _ = train_cascade(observe, start, truth, groups, distance_to(truth), spec)

    def in_chunks(x, k):
        features = observe(x, k)
        return lambda: iter(features.split(7))

    gram = compute_sample_gram(observe(start, 0), 40)
    other, _ = train_cascade(
        in_chunks if streamed else observe, start, truth, groups, distance_to(truth), spec, first=gram
    )
    assert_close(other.run(start, in_chunks), plain.run(start, observe), rtol=1e-9, atol=1e-9)


def test_reports_are_plain_json(rng):
    observe, start, truth = overfitting(40, 60, rng)
    _, reports = train_cascade(observe, start, truth, torch.arange(40), distance_to(truth), CascadeSpec())
    rows = json.loads(json.dumps([asdict(report) for report in reports], allow_nan=False))
    assert rows[0]["form"] == "dual"
    assert rows[0]["seconds"] > 0
    assert rows[1]["path"][0]["relative_penalty"] is None


def test_bad_requests_are_refused(rng):
    observe, start, truth = inverse_sine(10, rng)
    with pytest.raises(ValueError, match="stages must be an integer of at least 1; got 0"):
        CascadeSpec(stages=0)
    with pytest.raises(ValueError, match="min_gain must be in"):
        CascadeSpec(min_gain=1.0)
    with pytest.raises(ValueError, match="needs groups"):
        train_cascade(observe, start, truth, None, distance_to(truth), CascadeSpec())
    with pytest.raises(ValueError, match="of one shape"):
        train_cascade(observe, start, truth[:, :1], torch.arange(10), distance_to(truth), CascadeSpec())
    with pytest.raises(ValueError, match="at least 2 groups; got 1"):
        train_cascade(observe, start, truth, torch.zeros(10, dtype=torch.int64), distance_to(truth), CascadeSpec())
