"""Measures of plausibility: their values, and what they say of faces and of landmarks in wrong orders."""

import logging
import pickle
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.accuracy.plausibility import spoilt
from facerecon_torch.cascade.plausibility import TRAINED_DEGREES, Plausibility, is_unsure, measure_plausibility
from facerecon_torch.cascade.reconstruction import KnownSize, Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix, matrix_to_euler
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import Camera, FaceParameters
from facerecon_torch.synthetic.people.sampling import POSE_LIMIT_DEGREES
from tests.cascade.test_reconstructor import Known
from tests.tiny_model import tiny_bilinear, tiny_linear

FIELDS = ("residual", "contour_residual", "shape_distance", "view_angle", "proportion", "reprojection", "pose_excess")
WRONG_ORDERS = (
    "contour first",
    "reversed order",
    "shifted by one",
    "random order",
    "all x, then all y",
    "y before x",
    "mirrored",
    "y upwards",
    "random points",
)


def drawn(model, n, rng, dtype):
    """Faces with drawn parameters and cameras, and landmarks beside them; the second has no contour."""
    draw = lambda *shape: torch.randn(n, *shape, generator=rng).to(dtype)  # noqa: E731
    parameters = FaceParameters(
        model.identity_mean + draw(model.n_identity), model.expression_mean + draw(model.n_expression)
    )
    camera = Camera(
        rotation=euler_to_matrix(draw(), draw(), draw()), scale=draw().exp(), translation=100 * draw(2),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )  # fmt: skip
    shapes = model.vertices(parameters.identity, parameters.expression)[:, model.topology.landmark_vertices]
    projected = project(shapes, camera)
    landmarks = projected + 5 * draw(66, 2)
    landmarks[1, 49:] = torch.nan
    return parameters, camera, projected, landmarks, draw().exp()


def slow_measures(parameters, camera, projected, landmarks, size, model, k):
    """The measures of face k, in plain numpy."""

    def distance(weights, mean, variance):
        terms = [(w - m) ** 2 / v for w, m, v in zip(weights.tolist(), mean.tolist(), variance.tolist())]
        return np.sqrt(np.mean(terms))

    per_mm = float(camera.scale[k]) * float(size[k])
    offsets = [np.hypot(*(p - q)) / per_mm for p, q in zip(projected[k].numpy(), landmarks[k].numpy())]
    seen = [d for d in offsets[49:] if not np.isnan(d)]
    front = camera.rotation[k].numpy() @ [0.0, 0.0, 1.0]
    angles = [float(torch.rad2deg(angle)) for angle in matrix_to_euler(camera.rotation[k])]
    mean = model.vertices(model.identity_mean, model.expression_mean)[model.topology.landmark_vertices[:49]].numpy()
    design = np.concatenate([mean, np.ones((49, 1))], axis=1)
    affine = np.linalg.lstsq(design, landmarks[k, :49].numpy(), rcond=None)[0][:3]
    values = np.linalg.svd(affine, compute_uv=False)
    return {
        "residual": np.sqrt(np.mean(np.square(offsets[:49]))),
        "contour_residual": np.sqrt(np.mean(np.square(seen))) if seen else 0.0,
        "shape_distance": max(
            distance(parameters.identity[k], model.identity_mean, model.identity_variance),
            distance(parameters.expression[k], model.expression_mean, model.expression_variance),
        ),
        "view_angle": np.degrees(np.arccos(front[2])),
        "proportion": values[1] / values[0],
        "reprojection": per_mm * np.sqrt(np.nanmean(np.square(offsets))),
        "pose_excess": max(0.0, *(abs(a) - most for a, most in zip(angles, (60.0, 25.0, 15.0)))),
    }


@pytest.mark.parametrize("make", [tiny_bilinear, tiny_linear])
def test_measures_are_those_of_plain_loops(make, dtype, rng):
    model = make().to(dtype)
    faces = drawn(model, 4, rng, dtype)
    measures = measure_plausibility(*faces, model)
    for k in range(4):
        for name, value in slow_measures(*faces, model, k).items():
            got = getattr(measures, name)[k]
            assert got.dtype == dtype
            assert float(got) == pytest.approx(float(value), rel=2e-3 if dtype == torch.float32 else 1e-9), name


def test_a_batch_measures_as_its_faces_one_by_one(dtype, rng):
    model = tiny_bilinear().to(dtype)
    parameters, camera, projected, landmarks, size = drawn(model, 4, rng, dtype)
    together = measure_plausibility(parameters, camera, projected, landmarks, size, model)
    for k in range(4):
        for row in (k, slice(k, k + 1)):
            alone = measure_plausibility(parameters[row], camera[row], projected[row], landmarks[row], size[row], model)
            for name in FIELDS:
                assert_close(getattr(alone, name), getattr(together[row], name))


def test_measures_without_points_are_finite(rng):
    model = tiny_bilinear()
    parameters, camera, projected, landmarks, size = drawn(model, 3, rng, torch.float32)
    landmarks[0], landmarks[1, :49] = torch.nan, 7.0
    measures = measure_plausibility(parameters, camera, projected, landmarks, size, model)
    assert all(bool(torch.isfinite(getattr(measures, name)).all()) for name in FIELDS)
    assert (float(measures.residual[0]), measures.proportion[:2].tolist()) == (0.0, [1.0, 1.0])


def measures_of(**changes):
    good = {"residual": 2.0, "contour_residual": 3.0, "shape_distance": 0.5, "view_angle": 20.0, "proportion": 0.9}
    good |= {"reprojection": 3.0, "disagreement": 3.0, "pose_excess": 0.0, "score": 1.0, "predicted_error": 1.5}
    values = {name: torch.tensor(value) for name, value in {**good, **changes}.items()}
    unsure = is_unsure(values["score"], "mediapipe")
    return Plausibility(**{"degenerate": torch.tensor(False), "unsure": unsure, **values})


def test_margins_of_dlib_are_not_judged_by_the_limit_of_mediapipe(rng):
    model = tiny_bilinear()
    scores = torch.tensor([0.02, 0.3, 1.4])
    for convention, unsure in (("mediapipe", [True, True, False]), ("ibug", [False, False, False])):
        measures = measure_plausibility(
            *drawn(model, 3, rng, torch.float32), model, scores=scores, convention=convention
        )
        assert measures.unsure.tolist() == unsure


@pytest.mark.parametrize(
    ("changes", "impossible", "reason"),
    [
        ({}, False, None),
        ({"residual": 10.0}, False, "residual 10.0 mm; are the points in another order"),
        ({"residual": 41.0}, True, "residual 41.0 mm"),
        ({"shape_distance": 5.0}, False, "5.0 standard deviations"),
        ({"shape_distance": 40.0}, True, "40.0 standard deviations"),
        ({"view_angle": 100.0}, False, "view angle 100 degrees; are x and y exchanged"),
        ({"view_angle": 170.0}, True, "mirrored"),
        ({"proportion": 0.5}, False, "a stretched face: proportion 0.50"),
        ({"proportion": 0.5, "view_angle": 70.0}, False, None),
        ({"degenerate": True}, True, "degenerate"),
        ({"residual": float("nan")}, True, "residual nan"),
        ({"disagreement": 12.0}, False, "disagree by 12.0 mm"),
        ({"pose_excess": 20.0}, False, "20 degrees outside of the training range"),
        ({"score": 0.3}, False, "unsure: score 0.30"),
        ({"predicted_error": 4.0}, False, "probably 4.0 mm off"),
    ],
)
def test_marks_and_reasons(changes, impossible, reason):
    measures = measures_of(**changes)
    assert bool(measures.plausible) == (reason is None)
    assert bool(measures.impossible) == impossible
    listed = measures.reasons()
    assert len(listed) == (reason is not None)
    assert reason is None or reason in listed[0]


def test_reasons_are_those_of_one_face():
    with pytest.raises(ValueError, match="a batch of 2"):
        Plausibility.stack([measures_of(), measures_of()]).reasons()


@pytest.fixture(scope="module")
def default_faces():
    """The default face, its landmark fit, and landmarks of 24 people in poses up to 50 degrees, off by 2 mm."""
    model = load_default_face()
    fitter = LandmarkFitter(model, FitSpec(identity_penalty=64.0, expression_penalty=64.0))
    generator, n = torch.Generator().manual_seed(3), 24
    weights = [
        mean + 0.5 * variance.sqrt() * torch.randn(n, len(mean), generator=generator)
        for mean, variance in (
            (model.identity_mean, model.identity_variance),
            (model.expression_mean, model.expression_variance),
        )
    ]
    yaw, pitch, roll = (torch.rand(3, n, generator=generator) - 0.5) * torch.tensor([1.7, 0.6, 0.6])[:, None]
    camera = Camera(
        rotation=euler_to_matrix(yaw, pitch, roll), scale=torch.full((n,), 1.5),
        translation=torch.full((n, 2), 320.0), degenerate=torch.zeros(n, dtype=torch.bool),
    )  # fmt: skip
    shapes, _ = fitter.landmarks(FaceParameters(*model.fix_gauge(*weights)), camera)
    landmarks = project(shapes, camera)
    return model, fitter, landmarks + 2.1 * torch.randn(landmarks.shape, generator=generator)


def fitted(model, fitter, landmarks):
    fit = fitter.fit(landmarks)
    projected = project(fitter.landmarks(fit.parameters, fit.camera)[0], fit.camera)
    ones = torch.ones_like(fit.camera.scale)
    return measure_plausibility(fit.parameters, fit.camera, projected, landmarks, ones, model, convention="ibug")


def test_wrong_orders_are_impossible_and_faces_are_plausible(default_faces):
    model, fitter, landmarks = default_faces
    assert bool(fitted(model, fitter, landmarks).plausible.all())
    kinds = dict(spoilt(landmarks, torch.Generator().manual_seed(0)))
    for name in WRONG_ORDERS:
        assert bool(fitted(model, fitter, kinds[name]).impossible.all()), name
    for name in ("x stretched by 2", "y stretched by 2"):
        measures = fitted(model, fitter, kinds[name])
        assert not bool((measures.plausible & (measures.view_angle < 40)).any()), name
    assert bool(fitted(model, fitter, kinds["of the next image"]).plausible.all())  # these are faces
    turned = fitted(model, fitter, kinds["upside down"])  # so are these, in a pose that no cascade was trained for
    assert not bool((turned.plausible | turned.impossible).any())
    assert "outside of the training range" in turned[0].reasons()[0]


def test_the_size_of_faces_changes_no_measure(photographs, tiny_outcome):
    images, landmarks = photographs
    one = tiny_outcome.reconstructor.reconstruct(images, landmarks)
    for size in (KnownSize(px_per_mm=0.1), KnownSize(interpupillary_mm=400)):
        other = tiny_outcome.reconstructor.reconstruct(images, landmarks, size=size)
        for name in FIELDS:
            assert_close(getattr(other.plausibility, name), getattr(one.plausibility, name), rtol=1e-3, atol=1e-3)
    bigger = tiny_outcome.reconstructor.reconstruct(
        [image.repeat_interleave(2, 1).repeat_interleave(2, 2) for image in images], 2 * landmarks + 0.5
    )
    assert_close(bigger.plausibility.residual, one.plausibility.residual, rtol=0.1, atol=0.1)


def test_measures_travel_with_their_faces(photographs, tiny_outcome):
    images, landmarks = photographs
    faces = tiny_outcome.reconstructor.reconstruct(images, landmarks)
    want = faces.plausibility.residual
    assert_close(faces[1].plausibility.residual, want[1])
    assert_close(Reconstruction.cat([faces[3:], faces[:1]]).plausibility.residual, want[[3, 4, 0]])
    assert_close(pickle.loads(pickle.dumps(replace(faces))).plausibility.residual, want)
    assert faces.to(torch.float64).plausibility.residual.dtype == torch.float64


def test_predict_leaves_out_detections_that_are_no_faces(photographs, tiny_outcome):
    images, landmarks = photographs
    model = deepcopy(tiny_outcome.reconstructor)
    model.detector = Known(landmarks[0], landmarks[0].flip(-1))
    (faces,) = model.predict(images[0])
    assert len(faces) == 1
    assert bool(faces.plausibility.plausible.all())


def test_predict_keeps_given_landmarks_and_says_what_is_wrong(photographs, tiny_outcome, caplog):
    images, landmarks = photographs
    given = [landmarks[:1], torch.stack([landmarks[1], landmarks[1].roll(17, 0)])]
    with caplog.at_level(logging.WARNING):
        one, two = tiny_outcome.reconstructor.predict(images[:2], landmarks=given)
    assert one.plausibility.impossible.tolist() == [False]
    assert two.plausibility.impossible.tolist() == [False, True]
    (record,) = [r for r in caplog.records if "fit no face" in r.getMessage()]
    assert record.getMessage().startswith("image 1, face 1: ")


def test_the_training_range_is_that_of_the_synthetic_sets():
    assert TRAINED_DEGREES == POSE_LIMIT_DEGREES


def test_a_reconstruction_tells_its_disagreement_with_the_landmark_fit(photographs, tiny_outcome):
    images, landmarks = photographs
    model = tiny_outcome.reconstructor
    faces, fitter = model.reconstruct(images, landmarks), model.solvers.fitter
    _, fit = model.locate(landmarks)
    start = fitter.landmarks(fit.parameters, fit.camera)[0][:, :49]
    apart = (faces.landmarks_3d[:, :49] - start).norm(dim=-1).square().mean(1).sqrt()
    assert float(apart.min()) > 0.01
    assert_close(faces.plausibility.disagreement, apart, rtol=1e-3, atol=1e-3)


def test_the_predicted_error_is_that_of_the_landmarks_convention(rng):
    faces = drawn(tiny_bilinear(), 4, rng, torch.float32)
    one, other = (measure_plausibility(*faces, tiny_bilinear(), convention=name) for name in ("mediapipe", "ibug"))
    assert bool((one.predicted_error != other.predicted_error).all())
    assert_close(one.residual, other.residual)
    with pytest.raises(ValueError, match="must be mediapipe or ibug; got 'dlib'"):
        measure_plausibility(*faces, tiny_bilinear(), convention="dlib")


def test_faces_know_the_convention_of_their_landmarks(default_faces):
    landmarks, grey = default_faces[2][:2], torch.full((3, 640, 640), 0.5)
    for detector, convention in (("mediapipe", "mediapipe"), ("dlib", "ibug")):
        model = FaceReconstructor.from_pretrained(detector=detector)
        faces = model.reconstruct([grey, grey], landmarks)
        assert faces[0].convention == model.reconstruct([], landmarks[:0]).convention == convention
        known = (faces.parameters, faces.camera, faces.projected_2d, faces.landmarks, faces.size, model.face_model)
        expected = measure_plausibility(*known, disagreement=faces.disagreement, convention=convention)
        assert_close(faces.plausibility.predicted_error, expected.predicted_error)


def test_worse_landmarks_have_a_larger_predicted_error(default_faces):
    model, fitter, landmarks = default_faces
    noise = torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(4))
    errors = [fitted(model, fitter, landmarks + size * noise).predicted_error.mean() for size in (0.0, 3.0, 9.0)]
    assert errors[0] < errors[1] < errors[2]
