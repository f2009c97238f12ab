"""Eq. 7: equal to the slow twin, stationary, exact without noise, safe with missing points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.testing import assert_close

from facerecon_torch.fitting.designs import solve_normal
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.gauge import gauge_component
from facerecon_torch.structures import Camera, FaceParameters
from tests.reference.landmark_fit_twin import fit_slowly
from tests.tiny_model import tiny_bilinear, tiny_linear

EXACT = FitSpec(contour="fixed", contour_component="full", identity_penalty=1e-9, expression_penalty=1e-9)


@pytest.fixture(scope="module")
def model():
    return tiny_bilinear().to(torch.float64)


def draw(model, n, rng, spec=EXACT, turn=0.6, noise=0.0):
    """Faces drawn from the prior, seen by random cameras: (parameters, camera, landmarks in px)."""

    def normal(mean, variance):
        return mean + variance.sqrt() * torch.randn(n, len(mean), generator=rng, dtype=torch.float64)

    pair = model.fix_gauge(
        normal(model.identity_mean, model.identity_variance),
        normal(model.expression_mean, model.expression_variance),
    )
    angles = turn * (2 * torch.rand(3, n, generator=rng, dtype=torch.float64) - 1)
    camera = Camera(
        rotation=euler_to_matrix(angles[0], 0.5 * angles[1], angles[2]),
        scale=0.7 + torch.rand(n, generator=rng, dtype=torch.float64),
        translation=200 + 50 * torch.randn(n, 2, generator=rng, dtype=torch.float64),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )
    parameters = FaceParameters(*pair)
    points, _ = LandmarkFitter(model, spec).landmarks(parameters, camera)
    seen = project(points, camera)
    return parameters, camera, seen + noise * torch.randn(seen.shape, generator=rng, dtype=torch.float64)


def test_exact_landmarks_give_back_the_face(rng):
    # With more identity weights the alternation ends in the same place, after thousands of rounds.
    model = tiny_bilinear(n_identity=2, n_expression=3).to(torch.float64)
    truth, camera, landmarks = draw(model, 4, rng)
    fit = LandmarkFitter(model, replace(EXACT, rounds=100)).fit(landmarks, scale=camera.scale)
    assert_close(fit.camera.rotation, camera.rotation, atol=1e-9, rtol=0)
    assert_close(fit.parameters.flat, truth.flat, atol=1e-7, rtol=1e-7)
    assert fit.inner_residual.max() < 1e-7
    assert fit.contour_residual.max() < 1e-7


SPECS = {
    "fixed-full": FitSpec(contour="fixed", contour_component="full", identity_penalty=3.0),
    "fixed-normal": FitSpec(contour="fixed", contour_weight=0.4, rounds=2),
    "marching-full": FitSpec(contour="marching", contour_component="full", expression_penalty=0.5),
    "marching-normal": FitSpec(contour="marching", inner_weight=2.0),
}


@pytest.mark.parametrize("known", [False, True], ids=["free", "known scale"])
@pytest.mark.parametrize("kind", [tiny_bilinear, tiny_linear])
@pytest.mark.parametrize("name", SPECS)
def test_a_fit_equals_the_slow_twin(name, kind, known, rng):
    model, spec = kind().to(torch.float64), SPECS[name]
    _, camera, landmarks = draw(model, 3, rng, FitSpec(), noise=1.0)
    weights = 0.2 + torch.rand(3, 66, generator=rng, dtype=torch.float64)
    fit = LandmarkFitter(model, spec).fit(landmarks, weights, scale=camera.scale if known else None)
    for k in range(3):
        scale = float(camera.scale[k]) if known else None
        slow = fit_slowly(model, spec, landmarks[k].numpy(), weights[k].numpy(), scale)
        assert_close(fit.parameters.identity[k].numpy(), slow.alpha, atol=1e-7, rtol=1e-7)
        assert_close(fit.parameters.expression[k].numpy(), slow.beta, atol=1e-7, rtol=1e-7)
        assert_close(fit.camera.rotation[k].numpy(), slow.camera.rotation, atol=1e-8, rtol=0)
        assert_close(float(fit.camera.scale[k]), slow.camera.scale, atol=1e-8, rtol=1e-8)
        assert_close(fit.contour_vertices[k].numpy(), slow.contour)


def test_a_ridge_solve_is_the_minimum_scipy_finds(rng):
    design, goal, mean = (torch.randn(*n, generator=rng, dtype=torch.float64) for n in ((30, 5), (30,), (5,)))
    penalty = torch.rand(5, generator=rng, dtype=torch.float64) + 0.1

    def cost(g):
        error = design.numpy() @ g - goal.numpy()
        return error @ error + penalty.numpy() @ (g - mean.numpy()) ** 2

    found = minimize(cost, np.zeros(5), tol=1e-14).x
    answer = solve_normal(design.mT @ design, design.mT @ goal, penalty, mean)
    assert_close(answer.numpy(), found, atol=1e-6, rtol=0)


def test_residuals_are_those_of_the_answer(model, rng):
    spec = SPECS["marching-full"]
    _, _, landmarks = draw(model, 5, rng, spec, noise=2.0)
    fitter = LandmarkFitter(model, spec)
    fit = fitter.fit(landmarks)
    points, vertices = fitter.landmarks(fit.parameters, fit.camera)
    face = model.vertices(fit.parameters.identity, fit.parameters.expression)
    chosen = torch.cat([model.topology.landmark_vertices[:49].expand(5, 49), fit.contour_vertices], dim=1)
    at = face.gather(1, chosen[..., None].expand(5, 66, 3))
    error = (project(at, fit.camera) - landmarks) / fit.camera.scale[:, None, None]
    square = error.square().sum(-1)
    assert_close(fit.inner_residual, square[:, :49].mean(-1).sqrt())
    assert_close(fit.contour_residual, square[:, 49:].mean(-1).sqrt())
    assert_close(points[:, :49], at[:, :49])
    assert vertices.shape == (5, 17)


def test_the_gauge_is_fixed(model, rng):
    _, _, landmarks = draw(model, 6, rng, noise=2.0)
    fit = LandmarkFitter(model, FitSpec()).fit(landmarks)
    component = gauge_component(fit.parameters.expression, model.gauge_direction)
    assert_close(component, torch.ones(6, dtype=torch.float64))


def test_a_strong_prior_gives_the_mean(model, rng):
    _, _, landmarks = draw(model, 3, rng)
    fit = LandmarkFitter(model, FitSpec(identity_penalty=1e9, expression_penalty=1e9)).fit(landmarks)
    mean = model.fix_gauge(model.identity_mean, model.expression_mean)
    assert_close(fit.parameters.identity, mean[0].expand(3, -1), atol=1e-4, rtol=1e-4)
    assert_close(fit.parameters.expression, mean[1].expand(3, -1), atol=1e-4, rtol=1e-4)


def test_marching_explains_turned_faces_better(model, rng):
    truth, camera, landmarks = draw(model, 40, rng, FitSpec(), turn=1.0, noise=0.5)
    want = model.vertices(truth.identity, truth.expression)
    error = {}
    for contour in ("fixed", "marching"):
        fit = LandmarkFitter(model, FitSpec(contour=contour)).fit(landmarks, scale=camera.scale)
        found = model.vertices(fit.parameters.identity, fit.parameters.expression)
        error[contour] = float((found - want).norm(dim=-1).mean())
    assert error["marching"] < 0.92 * error["fixed"]


def test_a_known_scale_fixes_the_size(model, rng):
    truth, camera, landmarks = draw(model, 30, rng, FitSpec(), noise=0.5)
    want = model.vertices(truth.identity, truth.expression).std(dim=1).norm(dim=-1)
    fitter = LandmarkFitter(model, FitSpec())
    error = []
    for scale in (None, camera.scale):
        fit = fitter.fit(landmarks, scale=scale)
        size = model.vertices(fit.parameters.identity, fit.parameters.expression).std(dim=1).norm(dim=-1)
        error.append(float((size / want - 1).abs().mean()))
    assert_close(fit.camera.scale, camera.scale)
    assert error[1] < 0.3 * error[0]


def test_batch_and_chunk_sizes_change_nothing(model, rng):
    _, _, landmarks = draw(model, 64, rng, noise=1.0)
    whole = LandmarkFitter(model, FitSpec(chunk=64)).fit(landmarks)
    pieces = LandmarkFitter(model, FitSpec(chunk=13)).fit(landmarks)
    single = LandmarkFitter(model, FitSpec()).fit(landmarks[40:41])
    for left, right in ((whole, pieces), (whole[40:41], single)):
        assert_close(left.parameters.flat, right.parameters.flat, atol=1e-9, rtol=1e-9)
        assert_close(left.camera.rotation, right.camera.rotation, atol=1e-9, rtol=1e-9)
        assert torch.equal(left.contour_vertices, right.contour_vertices)
    assert LandmarkFitter(model, FitSpec()).fit(landmarks[:0]).parameters.flat.shape[0] == 0


def test_dtype_and_device_follow_the_landmarks(rng, dtype, device):
    model = tiny_bilinear().to(device)
    _, _, landmarks = draw(tiny_bilinear().double(), 4, rng, noise=1.0)
    fit = LandmarkFitter(model, FitSpec()).fit(landmarks.to(device, dtype))
    wide = LandmarkFitter(tiny_bilinear(), FitSpec()).fit(landmarks)
    assert fit.parameters.identity.dtype == fit.camera.scale.dtype == dtype
    assert fit.inner_residual.device.type == device.type
    loose = 1e-9 if dtype == torch.float64 else 2e-4
    assert_close(fit.parameters.flat.cpu().double(), wide.parameters.flat, atol=loose, rtol=loose)
    assert model.dtype == torch.float32


def test_missing_and_degenerate_landmarks_harm_nobody(model, rng):
    _, _, landmarks = draw(model, 4, rng, noise=1.0)
    fitter = LandmarkFitter(model, FitSpec())
    weights = torch.ones(4, 66, dtype=torch.float64)
    weights[1, [5, 52]] = 0
    weights[2, 3:] = 0
    clean = fitter.fit(landmarks, weights)
    spoiled = landmarks.clone()
    spoiled[1, [5, 52]] = torch.nan
    spoiled[3, 10, 0] = torch.inf
    fit = fitter.fit(spoiled, weights)
    assert fit.camera.degenerate.tolist() == [False, False, True, True]
    assert_close(fit[:3].parameters.flat, clean[:3].parameters.flat)
    mean = torch.cat(model.fix_gauge(model.identity_mean, model.expression_mean))
    assert_close(fit[2:].parameters.flat, mean.expand(2, -1), atol=1e-5, rtol=1e-5)
    for value in (fit.parameters.flat, fit.camera.rotation, fit.inner_residual, fit.contour_residual):
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("contour", ["fixed", "marching"])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_landmarks_of_any_batch_shape(model, contour, batch, rng):
    fitter = LandmarkFitter(model, FitSpec(contour=contour))
    truth, camera, _ = draw(model, 6, rng, FitSpec(), turn=1.0)
    n = torch.Size(batch).numel()
    flat = (truth[:n], camera[:n])
    points, vertices = fitter.landmarks(
        FaceParameters(
            identity=truth.identity[:n].reshape(*batch, -1), expression=truth.expression[:n].reshape(*batch, -1)
        ),
        Camera(
            rotation=camera.rotation[:n].reshape(*batch, 3, 3),
            scale=camera.scale[:n].reshape(batch),
            translation=camera.translation[:n].reshape(*batch, 2),
            degenerate=camera.degenerate[:n].reshape(batch),
        ),
    )
    want = fitter.landmarks(*flat)
    assert_close(points, want[0].reshape(*batch, 66, 3))
    assert torch.equal(vertices, want[1].reshape(*batch, 17))
    face = model.vertices(truth.identity[:n], truth.expression[:n])
    assert_close(points.reshape(n, 66, 3)[0, 49:], face[0, vertices.reshape(n, 17)[0]])


def test_landmarks_are_differentiable_in_the_parameters(model, rng):
    truth, camera, _ = draw(model, 2, rng, FitSpec())
    fitter = LandmarkFitter(model, FitSpec())

    def points(identity, expression):
        return fitter.landmarks(FaceParameters(identity=identity, expression=expression), camera)[0]

    inputs = (truth.identity.requires_grad_(), truth.expression.requires_grad_())
    assert torch.autograd.gradcheck(points, inputs)


def test_a_camera_is_refined_for_new_parameters(model, rng):
    truth, camera, landmarks = draw(model, 5, rng, FitSpec())
    fitter = LandmarkFitter(model, FitSpec())
    start = fitter.fit(landmarks).camera
    for _ in range(3):
        start = fitter.refine(truth, landmarks, start)[0]
    assert_close(start.rotation, camera.rotation, atol=1e-6, rtol=0)
    assert_close(start.scale, camera.scale, atol=1e-6, rtol=1e-6)


def test_a_model_without_topology_is_refused(model):
    with pytest.raises(ValueError, match="topology"):
        LandmarkFitter(model.restrict(torch.arange(3)), FitSpec())


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"chunk": 0},
        {"identity_penalty": 0.0},
        {"expression_penalty": float("nan")},
        {"contour_weight": float("inf")},
        {"contour": "sliding"},
        {"contour_component": "tangent"},
    ],
)
def test_wrong_specs_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitSpec(**wrong)
