"""Copies of training samples that start elsewhere."""

from dataclasses import replace

import pytest
import torch

from facerecon_torch.cascade.start import Perturbation
from facerecon_torch.commands.train.first_stage import FirstStageCache
from facerecon_torch.commands.train.methods import learned_from, train_methods
from facerecon_torch.config.train import FaceCascadeSpec
from tests.tiny_world import make_samples, make_setup

COPIES = 3


@pytest.fixture(scope="module")
def setup():
    return replace(make_setup(), perturbation=Perturbation(copies=COPIES, deviations=0.5, seed=4))


@pytest.fixture(scope="module")
def people(setup):
    return make_samples(setup, people=6, images=4, seed=1)


def learned(setup, samples):
    return learned_from(setup, FirstStageCache().split(setup, samples))


def test_the_samples_themselves_stay_and_copies_are_spread_as_asked(setup, people):
    state, n = learned(setup, people), len(people)
    start = FirstStageCache().split(setup, people).x
    assert torch.allclose(state.x[:n], start, atol=1e-6)
    model = setup.model
    fixed = state.retract(state.x)
    assert torch.allclose(fixed, state.x, atol=1e-4)  # in the gauge
    spread = torch.cat([model.identity_variance, model.expression_variance]).sqrt()
    shifts = setup.perturbation.shifts(model, people.places, len(people.meshes))
    assert shifts.shape == (COPIES, n, len(spread))
    assert 0.45 < float((shifts / spread).std()) < 0.55  # of 720 numbers
    assert torch.equal(state.x[n:], state.retract(start.repeat(COPIES, 1) + shifts.flatten(0, 1)))


def test_targets_and_people_are_those_of_the_samples(setup, people):
    state = learned(setup, people)
    assert torch.equal(state.target, people.parameters.flat.repeat(1 + COPIES, 1))
    assert torch.equal(state.samples.subjects, people.subjects.repeat(1 + COPIES))


def test_features_are_those_of_the_shifted_starts(setup, people):
    state = learned(setup, people)
    state.begin(("hog", "ld"))
    seen = state.observe(state.x, 0)
    plain = FirstStageCache().split(setup, people)
    plain.begin(("hog", "ld"))
    own, n = plain.observe(plain.x, 0), len(people)
    assert torch.allclose(seen[:n], own, atol=1e-4)
    assert float((seen[n : 2 * n] - own).abs().amax(dim=1).min()) > 0.01


def test_the_shift_of_a_sample_does_not_depend_on_the_split(setup, people):
    some = people[torch.tensor([9, 2, 17])]
    whole = setup.perturbation.shifts(setup.model, people.places, len(people.meshes))
    part = setup.perturbation.shifts(setup.model, some.places, len(some.meshes))
    assert torch.equal(part, whole[:, [9, 2, 17]])


def test_cascades_are_trained_on_them_and_baselines_are_not(setup, people):
    test = {"test": make_samples(setup, people=4, images=3, seed=2, first_subject=50)}
    names = ("landmark_fit_bias", "cascade")
    plain = replace(setup, perturbation=Perturbation())
    with_copies, without = (train_methods(s, people, test, names=names).errors["test"] for s in (setup, plain))
    mae = [errors.methods["landmark_fit_bias"].mae["none", "M", "whole"] for errors in (with_copies, without)]
    assert torch.equal(*mae)
    mae = [errors.methods["cascade"].mae["none", "M", "whole"] for errors in (with_copies, without)]
    assert not torch.equal(*mae)
    assert float(mae[0].mean()) < 1.5 * float(mae[1].mean())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"perturbed_copies": -1}, "cascade.perturbed_copies must be .*; got -1"),
        ({"perturbation": 0.0}, "cascade.perturbation must be a positive number; got 0.0"),
        ({"perturbation": float("nan")}, "cascade.perturbation must be a positive number; got nan"),
    ],
)
def test_wrong_numbers_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        FaceCascadeSpec(**words)
