"""The linear model against its formula spelled out, and its constructor's refusals."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model.linear import LinearModel
from tests.reference.model_loops import linear_vertices
from tests.tiny_model import tiny_linear

BATCHES = pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)


@pytest.fixture
def model(device, dtype):
    return tiny_linear().to(device, dtype)


def draw(model, batch, rng):
    sizes = (model.n_identity, model.n_expression)
    drawn = (torch.randn(*batch, n, generator=rng, dtype=torch.float64) for n in sizes)
    return [weights.to(model.mean).requires_grad_() for weights in drawn]


def bases(model):
    return model.mean, model.identity_basis, model.expression_basis


@BATCHES
def test_vertices_and_gradients_equal_the_formula(model, batch, rng, tolerance):
    weights = draw(model, batch, rng)
    fast, slow = model.vertices(*weights), linear_vertices(*bases(model), *weights)
    assert fast.shape == (*batch, model.n_vertices, 3)
    assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    cotangent = torch.randn(fast.shape, generator=rng, dtype=torch.float64).to(fast)
    for a, b in zip(*(torch.autograd.grad((s * cotangent).sum(), weights) for s in (fast, slow))):
        assert_close(a, b, rtol=10 * tolerance, atol=10 * tolerance)


@BATCHES
def test_designs_reproduce_the_vertices(model, batch, rng, tolerance):
    identity, expression = draw(model, batch, rng)
    expected = linear_vertices(*bases(model), identity, expression)
    for (matrix, offset), weights in (
        (model.identity_design(expression), identity),
        (model.expression_design(identity), expression),
    ):
        answer = torch.einsum("...vdk,...k->...vd", matrix, weights) + offset
        assert_close(answer, expected, rtol=tolerance, atol=tolerance)


def test_factors_broadcast(model, rng, tolerance):
    identity, expression = draw(model, (), rng)[0], draw(model, (5,), rng)[1]
    expected = linear_vertices(*bases(model), identity.expand(5, -1), expression)
    assert_close(model.vertices(identity, expression), expected, rtol=tolerance, atol=tolerance)


def test_restrict_equals_slicing(model, rng, tolerance):
    weights, rows = draw(model, (2,), rng), torch.tensor([9, 2, 9], device=model.device)
    part = model.restrict(rows)
    assert part.topology is None
    assert_close(part.vertices(*weights), model.vertices(*weights)[:, rows], rtol=tolerance, atol=tolerance)
    tint = torch.ones(2, device=model.device, dtype=model.dtype)
    assert_close(part.colours(tint), model.colours(tint)[rows], rtol=tolerance, atol=tolerance)
    assert_close(part.expression_weights(weights[1]), model.expression_weights(weights[1]), rtol=0, atol=0)


def test_colours_are_mean_plus_basis(model, tolerance):
    weights = torch.tensor([[1.0, -2.0], [0.0, 0.5]], dtype=model.dtype, device=model.device)
    expected = model.texture_mean + torch.einsum("vck,bk->bvc", model.texture_basis, weights)
    assert_close(model.colours(weights), expected, rtol=tolerance, atol=tolerance)


def test_without_texture_there_are_no_colours():
    model = LinearModel(torch.zeros(4, 3), torch.ones(4, 3, 2), torch.ones(4, 3, 1), None)
    with pytest.raises(ValueError, match="texture_mean and texture_basis"):
        model.colours(torch.zeros(0))


def test_defaults_are_the_standard_normal_prior(rng):
    model = LinearModel(torch.zeros(4, 3), torch.ones(4, 3, 2), torch.ones(4, 3, 1), None)
    assert_close(model.identity_mean, torch.zeros(2))
    assert_close(model.identity_variance, torch.ones(2))
    assert_close(model.expression_variance, torch.ones(1))
    weights = draw(model, (3,), rng)
    assert model.expression_weights(weights[1]).shape == (3, 0)
    for kept, given in zip(model.fix_gauge(*weights), weights):
        assert kept is given


def test_gradcheck(rng):
    model = tiny_linear().double().restrict(torch.tensor([0, 7]))
    assert torch.autograd.gradcheck(model.vertices, draw(model, (2,), rng))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": torch.zeros(5, 3)}, "identity_basis must have trailing shape"),
        ({"identity_basis": torch.ones(4, 2, 2)}, "identity_basis must have trailing shape"),
        ({"identity_variance": torch.tensor([1.0, 0.0])}, "identity_variance must be positive"),
        ({"expression_mean": torch.zeros(3)}, "expression_mean must have trailing shape"),
        ({"expression_rows": torch.ones(2, 1)}, "expression_rows must have trailing shape"),
        ({"mean": torch.full((4, 3), torch.inf)}, "mean must be finite"),
        ({"texture_mean": torch.zeros(4, 3)}, "given together"),
        ({"topology": tiny_linear().topology}, "topology must have 4 vertices"),
        ({"mean": torch.zeros(1, 4, 3)}, "mean must have trailing shape"),
    ],
)
def test_refuses_arrays_that_do_not_fit(changes, message):
    arrays = {
        "mean": torch.zeros(4, 3),
        "identity_basis": torch.ones(4, 3, 2),
        "expression_basis": torch.ones(4, 3, 1),
        "topology": None,
    }
    with pytest.raises(ValueError, match=message):
        LinearModel(**{**arrays, **changes})


def test_refuses_mixed_precision():
    with pytest.raises(TypeError, match="identity_basis must be float32 or float64"):
        LinearModel(torch.zeros(4, 3), torch.ones(4, 3, 2).double(), torch.ones(4, 3, 1), None)
