"""Landmarks that a source does not give: the fit and the camera ignore them, and their displacement is zero."""

from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade.reconstruction import extent
from facerecon_torch.commands.train.methods import train_methods
from facerecon_torch.features.joint import displacement
from facerecon_torch.landmarks.scheme import from_paper66
from tests.tiny_world import make_samples

INNER, CONTOUR = slice(0, 49), slice(49, 66)


@pytest.fixture
def model(tiny_outcome):
    return deepcopy(tiny_outcome.reconstructor)


@pytest.fixture
def mixed(photographs):
    """Five faces, the first and the fourth without contour."""
    images, landmarks = photographs
    landmarks = landmarks.clone()
    landmarks[[0, 3], CONTOUR] = torch.nan
    return images, landmarks


def test_a_missing_contour_is_a_weight_of_zero(mixed, photographs, model):
    _, landmarks = mixed
    fitter, cropper = model.solvers.fitter, model.solvers.cropper
    weights = torch.ones(5, 66)
    weights[[0, 3], CONTOUR] = 0
    fit, expected = fitter.fit(landmarks), fitter.fit(photographs[1], weights)
    assert torch.equal(fit.parameters.flat, expected.parameters.flat)
    assert torch.equal(fit.camera.rotation, expected.camera.rotation)
    assert torch.equal(cropper.camera(landmarks).scale, cropper.camera(photographs[1], weights).scale)
    assert not torch.equal(fit.parameters.flat[[0, 3]], fitter.fit(photographs[1]).parameters.flat[[0, 3]])
    assert fit.contour_residual[[0, 3]].tolist() == [0, 0]


def test_a_batch_may_mix_faces_with_and_without_contour(mixed, photographs, model):
    images, landmarks = mixed
    faces, whole = model.reconstruct(images, landmarks), model.reconstruct(images, photographs[1])
    assert not faces.camera.degenerate.any()
    for values in (faces.parameters.flat, faces.projected_2d, faces.landmarks_3d, faces.boxes, faces.vertices):
        assert bool(torch.isfinite(values).all())
    assert torch.equal(faces.landmarks.isnan(), landmarks.isnan())
    assert_close(faces.parameters.flat[[1, 2, 4]], whole.parameters.flat[[1, 2, 4]], rtol=0, atol=1e-5)
    assert float((faces.projected_2d - landmarks)[:, INNER].norm(dim=-1).mean()) < 3
    given = [from_paper66(points) for points in photographs[1]]
    given[0], given[3] = given[0][17:], given[3][17:]  # 51 points
    for k, face in enumerate(model.predict(images, landmarks=given)):
        assert_close(face.parameters.flat[0], faces.parameters.flat[k], rtol=0, atol=1e-5)
    (again,) = model.predict(images[0], landmarks=[faces.landmarks[0]])
    assert_close(again.parameters.flat[0], faces.parameters.flat[0], rtol=0, atol=1e-4)


def test_training_takes_samples_without_contour(tiny_setup):
    samples = {k: make_samples(tiny_setup, people=8, images=3, seed=k, first_subject=100 * k) for k in (1, 2)}
    for each in samples.values():
        each.landmarks[::2, CONTOUR] = torch.nan
    outcome = train_methods(tiny_setup, samples[1], {"test": samples[2]}, names=("landmark_fit", "cascade"))
    for stage in outcome.reconstructor.cascade.stages:
        assert bool(torch.isfinite(stage.ridge.weight).all())
    model = outcome.reconstructor
    faces = model.reconstruct(list(torch.rand(24, 3, 160, 160)), samples[2].landmarks)
    assert bool(torch.isfinite(faces.parameters.flat).all())


def test_too_few_landmarks_are_a_degenerate_face(photographs, model):
    images, landmarks = photographs
    few = landmarks[:2].clone()
    few[0] = torch.nan
    few[1, 3:] = torch.nan
    faces = model.reconstruct(images[:2], few)
    assert faces.camera.degenerate.tolist() == [True, True]
    assert bool(faces.boxes[0].isnan().all())
    assert_close(faces.boxes[1], torch.cat([few[1, :3].amin(0), few[1, :3].amax(0)]))


@pytest.mark.parametrize("component", ["normal", "full"])
def test_a_missing_landmark_is_displaced_by_nothing(component, rng):
    detected, projected = torch.randn(2, 3, 66, 2, generator=rng, dtype=torch.float64)
    whole = displacement(detected, projected, torch.full((3,), 0.7, dtype=torch.float64), component)
    missing = torch.zeros(3, 66, dtype=torch.bool)
    missing[0, CONTOUR], missing[2, 5] = True, True
    detected[missing] = torch.nan
    inputs = [detected, projected, torch.full((3,), 0.7, dtype=torch.float64)]
    for tensor in inputs:
        tensor.requires_grad_()
    moved = displacement(*inputs, component)
    assert_close(moved, whole.masked_fill(missing[..., None], 0))
    gradients = torch.autograd.grad(moved.square().sum(), inputs)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert bool((gradients[0][missing] == 0).all())


def test_the_box_is_that_of_the_points_that_are_there():
    points = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [torch.nan, 9.0]], [[torch.nan, torch.nan]] * 3])
    boxes = extent(points)
    assert boxes[0].tolist() == [1, 1, 3, 2]
    assert bool(boxes[1].isnan().all())
