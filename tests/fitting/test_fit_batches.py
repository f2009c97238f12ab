"""The landmark fit in pieces: chunks, blocks, traces and shared evaluations change no answer."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.fitting import camera as eq6
from facerecon_torch.fitting import designs
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.tiny import tiny_bilinear, tiny_linear
from facerecon_torch.structures import Camera, FaceParameters
from tests.fitting.test_coefficients import draw


def noisy_landmarks(model, n, rng):
    truth, _, _ = draw(model, n, rng, FitSpec(), turn=0.0)
    angles = 0.6 * (2 * torch.rand(3, n, generator=rng, dtype=torch.float64) - 1)
    camera = Camera(
        rotation=euler_to_matrix(*angles),
        scale=torch.full((n,), 1.3, dtype=torch.float64),
        translation=torch.full((n, 2), 160.0, dtype=torch.float64),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )
    points, _ = LandmarkFitter(model, FitSpec()).landmarks(truth, camera)
    seen = project(points, camera)
    return truth, camera, seen + torch.randn(seen.shape, generator=rng, dtype=torch.float64)


def same(left, right):
    assert_close(left.parameters.flat, right.parameters.flat, atol=1e-9, rtol=1e-9)
    assert_close(left.camera.rotation, right.camera.rotation, atol=1e-9, rtol=1e-9)
    assert_close(left.contour_residual, right.contour_residual, atol=1e-9, rtol=1e-9)
    assert torch.equal(left.contour_vertices, right.contour_vertices)


@pytest.mark.parametrize("kind", [tiny_bilinear, tiny_linear])
@pytest.mark.parametrize("contour", ["fixed", "marching"])
def test_any_chunk_and_the_whole_batch_give_the_same(kind, contour, rng):
    model = kind().to(torch.float64)
    _, _, landmarks = noisy_landmarks(model, 40, rng)
    spec = FitSpec(contour=contour)
    assert spec.chunk is None
    whole = LandmarkFitter(model, spec).fit_batch(landmarks)
    for chunk in (None, 1, 7, 128):
        same(LandmarkFitter(model, replace(spec, chunk=chunk)).fit(landmarks), whole)


def test_blocks_of_contour_rows_change_nothing(rng, monkeypatch):
    model = tiny_bilinear().to(torch.float64)
    _, _, landmarks = noisy_landmarks(model, 9, rng)
    fitter = LandmarkFitter(model, FitSpec())
    whole = fitter.fit(landmarks)
    monkeypatch.setattr(designs, "_BLOCK", 2)
    same(fitter.fit(landmarks), whole)


def test_camera_and_landmarks_come_from_one_evaluation(rng):
    model = tiny_bilinear().to(torch.float64)
    truth, camera, landmarks = noisy_landmarks(model, 6, rng)
    fitter = LandmarkFitter(model, FitSpec())
    found, points, vertices = fitter.refine(truth, landmarks, camera)
    alone = fitter.refine(truth, landmarks, camera)[0]
    want = fitter.landmarks(FaceParameters(identity=truth.identity, expression=truth.expression), alone)
    assert_close(found.rotation, alone.rotation, atol=0, rtol=0)
    assert_close(points, want[0], atol=0, rtol=0)
    assert torch.equal(vertices, want[1])


def test_ranks_are_those_of_the_eigenvalues(rng):
    def grams(size):
        basis = torch.linalg.qr(torch.randn(4000, size, size, generator=rng, dtype=torch.float64))[0]
        ratio = torch.full((4000,), 1e-8, dtype=torch.float64)
        ratio = ratio * torch.where(torch.rand(4000, generator=rng) < 0.5, 0.999, 1.001)  # either side of the limit
        middle = ratio + (1 - ratio) * torch.rand(4000, generator=rng, dtype=torch.float64) ** 8
        values = torch.stack([torch.ones(4000).double(), middle, ratio][:: 1 if size == 3 else 2], dim=-1)
        scale = 10 ** (6 * torch.rand(4000, 1, 1, generator=rng, dtype=torch.float64) - 3)
        return scale * (basis * values[:, None]) @ basis.mT, ratio < 1e-8

    (solid, flat), (plane, thin) = grams(3), grams(2)
    unit3, unit2 = torch.eye(3).double().expand_as(solid), torch.eye(2).double().expand_as(plane)
    assert torch.equal(eq6._lacks_rank(solid, unit2), flat)
    assert torch.equal(eq6._lacks_rank(unit3, plane), thin)
    assert 1000 < flat.sum() < 3000
