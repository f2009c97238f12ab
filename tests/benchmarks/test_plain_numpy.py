"""The plain pipeline is the method: it agrees with the product to rounding."""

import numpy as np
import torch
from torch.testing import assert_close

from benchmarks.speed import plain_numpy
from benchmarks.speed.data import LowRank, draw_faces, waves
from facerecon_torch.features.hog import HogSpec, patch_hog
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from tests.tiny_model import tiny_bilinear


def test_the_landmark_fit_agrees():
    model = tiny_bilinear().to(torch.float64)
    faces = draw_faces(model, 3, seed=2)
    spec = FitSpec(contour="fixed")
    fit = LandmarkFitter(model, spec).fit(faces.landmarks)
    plain = plain_numpy.PlainModel.of(model)
    for k, landmarks in enumerate(faces.landmarks.numpy()):
        one = plain_numpy.fit_landmarks(plain, landmarks, spec)
        assert_close(torch.from_numpy(one.identity), fit.parameters.identity[k], rtol=1e-8, atol=1e-8)
        assert_close(torch.from_numpy(one.expression), fit.parameters.expression[k], rtol=1e-8, atol=1e-8)
        assert_close(torch.from_numpy(one.camera.rotation), fit.camera.rotation[k], rtol=1e-8, atol=1e-8)


def test_the_descriptor_agrees_inside_and_at_the_border():
    crop = waves(1, size=128)[0].double()
    points = torch.tensor([[64.0, 64.0], [60.3, 70.8], [5.0, 120.6], [-3.2, 40.0]], dtype=torch.float64)
    spec = HogSpec(evaluation="patch_halo")
    own = patch_hog(crop[None], points[None], spec, halo=True)[0]
    picture = crop.permute(1, 2, 0).numpy()
    plain = np.stack([plain_numpy.describe_patch(picture, point, spec) for point in points.numpy()])
    assert_close(torch.from_numpy(plain), own, rtol=0, atol=1e-9)


def test_low_rank_features_are_the_same_at_every_reading_and_of_low_rank():
    source = LowRank(300, 80, chunk=128, rank=8, noise=0.01)
    assert [len(chunk) for chunk in source()] == [128, 128, 44]
    assert_close(source.matrix(), torch.cat(list(source())), rtol=0, atol=0)
    values = torch.linalg.svdvals(source.matrix())
    assert values[7] > 10 * values[8]
    assert source.y.shape == (300, 75)
    assert source.groups.max() == 24
