"""Eq. 7 over several pictures of a person: one alpha from the stacked rows."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.structures import FaceParameters
from tests.fitting.test_fit_batches import noisy_landmarks
from tests.tiny_model import tiny_bilinear, tiny_linear

SPEC = FitSpec(contour="fixed", contour_component="full")


@pytest.mark.parametrize("kind", [tiny_bilinear, tiny_linear])
def test_one_picture_per_person_is_the_fit_of_each(kind, rng):
    model = kind().to(torch.float64)
    _, _, landmarks = noisy_landmarks(model, 6, rng)
    fitter = LandmarkFitter(model, FitSpec())
    joint = fitter.fit_joint(landmarks, torch.randperm(6, generator=rng))
    assert_close(joint.parameters.flat, fitter.fit(landmarks).parameters.flat, atol=1e-9, rtol=1e-9)


def test_people_do_not_mix_and_order_does_not_matter(rng):
    model = tiny_bilinear().to(torch.float64)
    _, _, landmarks = noisy_landmarks(model, 7, rng)
    fitter, subject = LandmarkFitter(model, FitSpec()), torch.tensor([5, 1, 5, 5, 1, 9, 1])
    joint = fitter.fit_joint(landmarks, subject)
    for name in (1, 5, 9):
        rows = subject == name
        alone = fitter.fit_joint(landmarks[rows], subject[rows])
        assert_close(alone.parameters.flat, joint.parameters.flat[rows], atol=1e-9, rtol=1e-9)
        assert_close(joint.parameters.identity[rows], alone.parameters.identity[:1].expand(int(rows.sum()), -1))


@pytest.mark.parametrize("kind", [tiny_bilinear, tiny_linear])
def test_the_last_alpha_solves_the_stacked_rows(kind, rng):
    """With cameras and beta of the answer before the last round, dense least squares over all rows gives alpha."""
    model = kind().to(torch.float64)
    _, _, landmarks = noisy_landmarks(model, 3, rng)
    fitter = LandmarkFitter(model, SPEC)
    first = FaceParameters(model.identity_mean.expand(3, -1), model.expression_mean.expand(3, -1))
    camera, _, _ = fitter.refine(first, landmarks, fitter.fit(landmarks).camera)
    one_round = LandmarkFitter(model, FitSpec(contour="fixed", contour_component="full", rounds=1))
    answer = one_round.fit_joint(landmarks, torch.zeros(3, dtype=torch.int64)).parameters
    vertices = model.topology.landmark_vertices
    design, offset = model.identity_design(answer.expression)
    weights = np.sqrt(np.r_[np.full(49, SPEC.inner_weight), np.full(17, SPEC.contour_weight)])
    rows, goal = [], []
    for k in range(3):
        view = camera.rotation[k, :2].numpy() * np.array([[1.0], [-1.0]])
        for i in range(66):
            point = (landmarks[k, i] - camera.translation[k]).numpy() / float(camera.scale[k])
            rows.append(weights[i] * view @ design[k, vertices[i]].numpy())
            goal.append(weights[i] * (point - view @ offset[k, vertices[i]].numpy()))
    penalty = np.sqrt(SPEC.identity_penalty / model.identity_variance.numpy())
    rows.append(np.diag(penalty))
    goal.append(penalty * model.identity_mean.numpy())
    solved = np.linalg.lstsq(np.concatenate(rows), np.concatenate(goal), rcond=None)[0]
    assert_close(answer.identity[0].numpy(), solved, atol=1e-8, rtol=1e-8)


def test_more_pictures_find_the_identity_better(rng):
    model = tiny_bilinear().to(torch.float64)
    truth, _, landmarks = noisy_landmarks(model, 1, rng)
    many = landmarks.expand(16, -1, -1) + 3 * torch.randn(16, 66, 2, generator=rng, dtype=torch.float64)
    fitter = LandmarkFitter(model, FitSpec())
    single = (fitter.fit(many).parameters.identity - truth.identity).norm(dim=-1).mean()
    joint = (
        fitter.fit_joint(many, torch.zeros(16, dtype=torch.int64)).parameters.identity[0] - truth.identity[0]
    ).norm()
    assert joint < 0.85 * single


def test_a_subject_per_picture_is_required(rng):
    model = tiny_bilinear().to(torch.float64)
    _, _, landmarks = noisy_landmarks(model, 3, rng)
    with pytest.raises(ValueError, match=r"subject must be \[3\], one per picture; got \[2\]"):
        LandmarkFitter(model, FitSpec()).fit_joint(landmarks, torch.tensor([0, 0]))


def test_a_large_penalty_keeps_the_expression_and_a_small_one_fits_the_landmarks(rng):
    model = tiny_bilinear().to(torch.float64)
    truth, camera, landmarks = noisy_landmarks(model, 4, rng)
    fitter = LandmarkFitter(model, SPEC)
    given = FaceParameters(truth.identity, model.expression_mean.expand(4, -1))
    kept = fitter.fit_expression(given, landmarks, camera, 1e12)
    assert_close(kept, given.expression, atol=1e-6, rtol=1e-6)
    near = fitter.fit_expression(given, landmarks, camera, 1e-3)
    assert (near - truth.expression).norm() < 0.5 * (given.expression - truth.expression).norm()
