"""The penalties of Eq. 7 are those with the least error on the faces given."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.fitting.penalties import select_penalties
from facerecon_torch.model.tiny import tiny_bilinear
from tests.fitting.test_coefficients import draw

GRID = (0.01, 3.0, 3000.0)


@pytest.fixture(scope="module")
def model():
    return tiny_bilinear().to(torch.float64)


def faces(model, n, rng, noise):
    truth, camera, landmarks = draw(model, n, rng, FitSpec(), noise=noise)
    return landmarks, model.vertices(truth.identity, truth.expression), camera.scale


def test_the_best_pair_is_chosen(model, rng):
    landmarks, truth, scale = faces(model, 40, rng, noise=2.0)
    choice = select_penalties(model, landmarks, truth, FitSpec(), identity_grid=GRID, expression_grid=GRID, scale=scale)
    assert choice.error.shape == (3, 3)
    best = (GRID.index(choice.spec.identity_penalty), GRID.index(choice.spec.expression_penalty))
    assert choice.error[best] == choice.error.min()
    fit = LandmarkFitter(model, choice.spec).fit(landmarks, scale=scale).parameters
    found = model.vertices(fit.identity, fit.expression)
    rows = model.topology.whole_vertices
    assert_close((found - truth)[:, rows].norm(dim=-1).mean(), choice.error.min())


def test_noisier_landmarks_ask_for_more_penalty(model, rng):
    chosen = []
    for noise in (0.05, 20.0):
        landmarks, truth, scale = faces(model, 40, rng, noise)
        choice = select_penalties(
            model, landmarks, truth, FitSpec(), identity_grid=GRID, expression_grid=GRID, scale=scale
        )
        chosen.append(choice.spec.identity_penalty)
    assert chosen[0] < chosen[1]


def test_wrong_input_is_refused(model, rng):
    landmarks, truth, _ = faces(model, 3, rng, noise=1.0)
    with pytest.raises(ValueError, match="truth must"):
        select_penalties(model, landmarks, truth[:, :5], FitSpec())
    with pytest.raises(ValueError, match="grid"):
        select_penalties(model, landmarks, truth, FitSpec(), identity_grid=())
