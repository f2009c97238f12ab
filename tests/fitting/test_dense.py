"""S* of a known mesh: exact inside the model, optimal outside it."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.testing import assert_close

from facerecon_torch.fitting.dense_fit import DenseFitter, DenseSpec
from facerecon_torch.model.gauge import gauge_component
from facerecon_torch.structures import FaceParameters
from tests.tiny_model import tiny_bilinear, tiny_linear

KINDS = [tiny_bilinear, tiny_linear]


def draw(model, n, rng):
    def normal(mean, variance):
        return mean + variance.sqrt() * torch.randn(n, len(mean), generator=rng, dtype=torch.float64)

    pair = model.fix_gauge(
        normal(model.identity_mean, model.identity_variance),
        normal(model.expression_mean, model.expression_variance),
    )
    return FaceParameters(*pair)


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_of_the_model_is_found_exactly(kind, rng):
    model = kind().to(torch.float64)
    truth = draw(model, 6, rng)
    spec = DenseSpec(identity_penalty=1e-12, expression_penalty=1e-12, rounds=60)
    found = DenseFitter(model, spec)(model.vertices(truth.identity, truth.expression))
    assert_close(found.flat, truth.flat, atol=1e-6, rtol=1e-6)


def test_the_linear_answer_is_the_minimum_scipy_finds(rng):
    model = tiny_linear().to(torch.float64)
    truth = draw(model, 1, rng)
    mesh = model.vertices(truth.identity, truth.expression)
    mesh = mesh + torch.randn(mesh.shape, generator=rng, dtype=torch.float64)
    spec = DenseSpec(identity_penalty=0.02, expression_penalty=0.05, rounds=200)
    found = DenseFitter(model, spec)(mesh).flat[0]
    priors = [(model.identity_mean, model.identity_variance, 0.02)]
    priors += [(model.expression_mean, model.expression_variance, 0.05)]

    def cost(flat):
        parameters = FaceParameters.from_flat(flat, model.n_identity)
        distance = (model.vertices(parameters.identity, parameters.expression) - mesh[0]).square().sum(-1)
        prior = sum(
            penalty * ((g - mean).square() / variance).sum()
            for g, (mean, variance, penalty) in zip((parameters.identity, parameters.expression), priors)
        )
        return distance.mean() + prior

    def with_gradient(flat):
        x = torch.from_numpy(flat).requires_grad_()
        value = cost(x)
        value.backward()
        return value.item(), x.grad.numpy()

    start = torch.cat([model.identity_mean, model.expression_mean]).numpy()
    answer = minimize(with_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    assert np.abs(with_gradient(found.numpy())[1]).max() < 1e-6
    assert_close(cost(found).item(), answer.fun, atol=1e-9, rtol=1e-9)


def test_one_expression_step_equals_dense_least_squares(rng):
    model = tiny_bilinear().to(torch.float64)
    mesh = 5 * torch.randn(2, model.n_vertices, 3, generator=rng, dtype=torch.float64)
    mesh = mesh + model.vertices(model.identity_mean, model.expression_mean)
    spec = DenseSpec(rounds=1, identity_penalty=0.3, expression_penalty=0.7)
    found = DenseFitter(model, spec)(mesh)
    root = model.n_vertices**0.5
    for k in range(2):
        design = model.expression_design(model.identity_mean)[0].flatten(0, 1) / root
        penalty = (0.7 / model.expression_variance).sqrt()
        rows = torch.cat([design, penalty.diag()])
        goal = torch.cat([mesh[k].flatten() / root, penalty * model.expression_mean])
        beta = torch.linalg.lstsq(rows, goal[:, None]).solution[:, 0]
        _, beta = model.fix_gauge(model.identity_mean, beta)
        assert_close(found.expression[k], beta, atol=1e-8, rtol=1e-8)
        design = model.identity_design(beta)[0].flatten(0, 1) / root
        penalty = (0.3 / model.identity_variance).sqrt()
        rows = torch.cat([design, penalty.diag()])
        goal = torch.cat([mesh[k].flatten() / root, penalty * model.identity_mean])
        alpha = torch.linalg.lstsq(rows, goal[:, None]).solution[:, 0]
        assert_close(found.identity[k], alpha, atol=1e-8, rtol=1e-8)


def test_the_gauge_is_fixed(rng):
    model = tiny_bilinear().to(torch.float64)
    mesh = 1.2 * model.vertices(*(getattr(draw(model, 3, rng), name) for name in ("identity", "expression")))
    component = gauge_component(DenseFitter(model)(mesh).expression, model.gauge_direction)
    assert_close(component, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_dtype_and_device(kind, rng, dtype, device):
    wide = kind().to(torch.float64)
    truth = draw(wide, 9, rng)
    mesh = wide.vertices(truth.identity, truth.expression) + 0.3
    whole = DenseFitter(wide)(mesh)
    pieces = DenseFitter(kind().to(device), DenseSpec(chunk=4))(mesh.to(device, dtype))
    assert pieces.identity.dtype == dtype
    assert pieces.identity.device.type == device.type
    loose = 1e-9 if dtype == torch.float64 else 1e-4
    assert_close(pieces.flat.cpu().double(), whole.flat, atol=loose, rtol=loose)
    assert DenseFitter(wide)(mesh[:0]).flat.shape[0] == 0


def test_wrong_input_is_refused():
    model = tiny_bilinear()
    with pytest.raises(ValueError, match="vertices must"):
        DenseFitter(model)(torch.zeros(2, 7, 3))
    with pytest.raises(ValueError, match="finite"):
        DenseFitter(model)(torch.full((1, model.n_vertices, 3), torch.nan))
    for wrong in ({"rounds": 0}, {"identity_penalty": 0.0}, {"expression_penalty": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DenseSpec(**wrong)


def test_other_models_are_refused():
    from facerecon_torch.model.base import FaceModel

    class Other(FaceModel):
        n_vertices = 2
        vertices = identity_design = expression_design = None
        restrict = expression_weights = factors = None

        def __init__(self):
            nn.Module.__init__(self)

    with pytest.raises(TypeError, match="Other"):
        DenseFitter(Other())(torch.zeros(1, 2, 3))
