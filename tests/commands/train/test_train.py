from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.commands.train import methods
from facerecon_torch.commands.train.methods import train_methods
from facerecon_torch.commands.train.train import cross_validate
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.evaluation.errors import SetErrors, method_errors, summary
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.structures import FaceParameters
from tests.tiny_model import tiny_linear
from tests.tiny_world import make_samples, make_setup


def test_every_method_is_measured(tiny_outcome):
    assert tuple(tiny_outcome.errors["test"].methods) == methods.METHODS
    for errors in tiny_outcome.errors["test"].methods.values():
        for key, value in errors.mae.items():
            assert value.shape == (18,)
            assert bool(torch.isfinite(value).all()), key


def test_a_cascade_learns_what_only_the_picture_tells(tiny_outcome):
    mae = {k: float(e.mae["none", "M", "whole"].mean()) for k, e in tiny_outcome.errors["test"].methods.items()}
    assert mae["landmark_fit"] < mae["mean_face"]
    assert mae["hog_only"] < 0.9 * mae["landmark_fit"]
    assert mae["cascade"] < 0.9 * mae["landmark_fit"]


@pytest.mark.parametrize("form", ["dual", "primal"])
def test_stages_can_do_without_a_bias(tiny_setup, form):
    ridge = replace(tiny_setup.cascade.ridge, bias=False, form=form)
    small = replace(tiny_setup.spec, features=JointSpec(hog=HogSpec(patch_px=16, cell_px=16)))  # D = 2,178
    cascade = replace(tiny_setup.cascade, ridge=ridge, stages=1, cross_fit=False)
    setup = replace(tiny_setup, spec=small, cascade=cascade)
    train = make_samples(setup, people=6, images=3, seed=1)
    test = make_samples(setup, people=3, images=2, seed=2, first_subject=100)
    outcome = train_methods(setup, train, {"test": test}, names=("cascade",))
    (stage,) = outcome.reconstructor.cascade.stages
    assert not bool(stage.ridge.bias.any())
    assert bool(stage.ridge.weight.any())


def test_a_model_of_faces_at_rest_is_trained_and_its_faces_are_plausible(tiny_setup):
    """Models without expressions, as the Basel Face Model of 2009 is imported."""
    given = tiny_linear()
    model = LinearModel(given.mean, given.identity_basis, given.expression_basis[..., :0], given.topology)
    small = replace(tiny_setup.spec, features=JointSpec(hog=HogSpec(patch_px=16, cell_px=16)))
    setup = replace(tiny_setup, model=model, spec=small, cascade=replace(tiny_setup.cascade, stages=1))
    train, test = (make_samples(setup, people=6, images=3, seed=seed, first_subject=100 * seed) for seed in (1, 2))
    outcome = train_methods(setup, train, {"test": test}, names=("landmark_fit", "cascade"))
    mae = {k: float(e.mae["none", "M", "whole"].mean()) for k, e in outcome.errors["test"].methods.items()}
    assert mae["cascade"] <= mae["landmark_fit"] < 5
    size = setup.spec.crop.size
    faces = outcome.reconstructor(torch.full((3, 3, size, size), 0.5), test.landmarks[:3])
    assert bool(torch.isfinite(faces.plausibility.shape_distance).all())
    assert not faces.plausibility.impossible.any()
    assert faces.expression_weights == {}


def test_stage_entries_tell_what_happened(tiny_outcome):
    first = tiny_outcome.stages[0]
    assert {"relative_penalty", "cross_fitted_mae_mm", "test_mae_mm", "kept"} <= set(first)
    assert first["kept"]
    last = [s for s in tiny_outcome.stages if s["kept"]][-1]
    final = tiny_outcome.errors["test"].methods["cascade"].mae["none", "M", "whole"].mean()
    assert_close(torch.tensor(last["test_mae_mm"]), final, rtol=1e-4, atol=0.0)


def test_the_bias_baseline_is_a_constant_learned_in_training():
    start = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert_close(methods.bias_fit(start, start + torch.tensor([0.5, -1.0])), torch.tensor([0.5, -1.0]))


def test_errors_of_the_truth_are_zero_and_size_is_signed(tiny_setup):
    samples = make_samples(tiny_setup, people=3, images=2, seed=4)
    truth = samples.parameters
    exact = summary(method_errors(tiny_setup.model, truth, samples))
    assert exact["mae_mm"]["none"]["M"]["whole"] < 1e-4
    larger = FaceParameters(identity=1.1 * truth.identity, expression=truth.expression)
    scaled = summary(method_errors(tiny_setup.model, larger, samples))
    assert scaled["size_error_percent"] == pytest.approx(10.0, abs=1e-2)
    assert scaled["mae_mm"]["similarity"]["M"]["whole"] < 1e-4 < scaled["mae_mm"]["translation"]["M"]["whole"]


def test_cross_validation_measures_every_sample_once(tiny_setup, generator):
    samples = make_samples(tiny_setup, people=6, images=2, seed=3)
    errors = cross_validate(tiny_setup, samples, 3, generator)
    assert sorted(errors.subjects.tolist()) == sorted(samples.subjects.tolist())
    report = errors.report(generator)
    interval = report["comparisons"]["interval_mm"]["cascade"]["none"]
    assert interval["low"] <= report["methods"]["cascade"]["mae_mm"]["none"]["M"]["whole"] <= interval["high"]


def test_pooling_keeps_every_error(tiny_outcome):
    both = SetErrors.cat([tiny_outcome.errors["test"]] * 2)
    assert len(both.subjects) == 36
    assert len(both.methods["cascade"].mae["none", "M", "whole"]) == 36


def test_some_vertices_of_some_samples(tiny_setup):
    samples = make_samples(tiny_setup, people=3, images=2, seed=8)
    vertices, rows = torch.tensor([5, 0, 9]), torch.tensor([4, 1, 3])
    for some, table in ((samples, samples.meshes), (samples[rows], samples.meshes[rows])):
        assert torch.equal(some.true_meshes(slice(1, 3), table, vertices), table[1:3][:, vertices])


@pytest.mark.parametrize("evaluation", ["patch", "patch_halo"])
def test_patch_evaluations_train_too(evaluation):
    setup = make_setup(evaluation)
    train = make_samples(setup, people=5, images=3, seed=6)
    test = make_samples(setup, people=3, images=2, seed=7, first_subject=50)
    outcome = train_methods(setup, train, {"test": test}, names=("landmark_fit", "cascade"))
    assert bool(torch.isfinite(outcome.errors["test"].methods["cascade"].mae["none", "M", "whole"]).all())


@pytest.mark.parametrize("deterministic", [False, True])
def test_training_twice_is_identical(tiny_setup, deterministic):
    RuntimeSpec(device="cpu", deterministic=deterministic).apply()
    train = make_samples(tiny_setup, people=5, images=3, seed=6)
    test = make_samples(tiny_setup, people=3, images=2, seed=7, first_subject=50)
    first, again = (train_methods(tiny_setup, train, {"test": test}, names=("cascade",)) for _ in range(2))
    RuntimeSpec(device="cpu").apply()
    for a, b in zip(first.reconstructor.cascade.stages, again.reconstructor.cascade.stages, strict=True):
        assert torch.equal(a.ridge.weight, b.ridge.weight)
