"""The gauge: same shape, component 1 along mu_b, statistics of all pairs, nothing undefined near zero."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.gauge import SMALLEST_COMPONENT, fix_gauge, row_statistics
from tests.reference.model_loops import gauge_statistics
from tests.tiny_model import tiny_bilinear, with_gauge


@pytest.fixture
def model(device, dtype):
    return tiny_bilinear().to(device, dtype)


def component(model, expression):
    return expression @ model.gauge_direction / model.gauge_direction.square().sum()


def draw(model, batch, rng):
    identity = torch.randn(*batch, model.n_identity, generator=rng, dtype=torch.float64)
    step = 0.1 * torch.randn(*batch, model.n_expression, generator=rng, dtype=torch.float64)
    size = torch.rand(*batch, 1, generator=rng, dtype=torch.float64) + 0.5
    return identity.to(model.core), size.to(model.core) * (model.expression_mean + step.to(model.core))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_component_is_one_and_the_shape_stays(model, batch, rng, tolerance):
    weights = draw(model, batch, rng)
    assert not torch.allclose(component(model, weights[1]), model.core.new_ones(()), atol=1e-2)
    fixed = model.fix_gauge(*weights)
    assert_close(component(model, fixed[1]), model.core.new_ones(batch), rtol=0, atol=tolerance)
    assert_close(model.vertices(*fixed), model.vertices(*weights), rtol=tolerance, atol=tolerance)


def test_fixing_twice_changes_nothing(model, rng, tolerance):
    once = model.fix_gauge(*draw(model, (5,), rng))
    for a, b in zip(model.fix_gauge(*once), once):
        assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_one_shape_has_one_pair_of_weights(model, rng, tolerance):
    identity, expression = draw(model, (5,), rng)
    for a, b in zip(model.fix_gauge(-3 * identity, expression / -3), model.fix_gauge(identity, expression)):
        assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("c", [0.0, 1e-30, -1e-3, 0.9 * SMALLEST_COMPONENT])
def test_without_a_usable_component_weights_stay(model, c):
    across = torch.zeros_like(model.gauge_direction)
    across[0], across[1] = model.gauge_direction[1], -model.gauge_direction[0]
    expression = (c * model.gauge_direction + across).requires_grad_()
    identity = model.identity_mean.clone().requires_grad_()
    fixed = model.fix_gauge(identity, expression)
    assert_close(fixed[0], identity)
    assert_close(fixed[1], expression)
    for gradient in torch.autograd.grad(sum(part.square().sum() for part in fixed), [identity, expression]):
        assert bool(torch.isfinite(gradient).all())
    zero = model.fix_gauge(identity, torch.zeros_like(expression))
    assert bool(torch.isfinite(zero[0]).all())
    assert not bool(zero[1].any())


def test_negative_component_flips_both_signs(model, tolerance):
    weights = (model.identity_mean, -model.expression_mean)
    fixed = model.fix_gauge(*weights)
    assert_close(fixed[0], -model.identity_mean)
    assert_close(model.vertices(*fixed), model.vertices(*weights), rtol=tolerance, atol=tolerance)


def test_statistics_are_those_of_all_pairs():
    model = tiny_bilinear().double()
    rows = (model.identity_rows, model.expression_rows)
    expected = gauge_statistics(*(array.numpy() for array in rows))
    fixed = row_statistics(*rows, "fixed")._asdict()
    floors = {"identity_variance": 1e-6, "expression_variance": 2e-6}
    for name, value in expected.items():
        reference = torch.from_numpy(value)
        if name in floors:
            reference = reference.clamp_min(1e-6 * float(reference.mean()))
        assert_close(fixed[name], reference, rtol=1e-9, atol=1e-15)
    assert_close(fixed["identity_mean"], rows[0].mean(dim=0))
    assert_close(component(model, fixed["expression_mean"]), torch.ones((), dtype=torch.float64))


def test_free_statistics_are_those_of_the_rows():
    model = with_gauge(tiny_bilinear().double(), "free")
    assert model.gauge == "free"
    assert_close(model.identity_mean, model.identity_rows.mean(dim=0))
    assert_close(model.expression_mean, model.expression_rows.mean(dim=0))
    assert_close(model.identity_variance, model.identity_rows.var(dim=0, correction=0))
    assert_close(model.expression_variance, model.expression_rows.var(dim=0, correction=0))
    weights = (2 * model.identity_mean, 2 * model.expression_mean)
    for kept, given in zip(model.fix_gauge(*weights), weights):
        assert kept is given


def test_mean_face_lies_in_the_gauge(model, tolerance):
    fixed = model.fix_gauge(model.identity_mean, model.expression_mean)
    assert_close(fixed[1], model.expression_mean, rtol=tolerance, atol=tolerance)


def test_variances_are_positive_even_for_one_row():
    model = BilinearModel(
        torch.ones(4, 3, 2, 2), torch.ones(1, 2), torch.ones(1, 2), None, expression_names=["neutral"]
    )
    for variance in (model.identity_variance, model.expression_variance):
        assert bool((variance > 0).all())
        assert bool(torch.isfinite(1 / variance).all())


def test_centred_rows_work_only_in_the_free_gauge():
    arrays = (torch.ones(4, 3, 2, 2), torch.eye(2), torch.tensor([[1.0, 0.5], [-1.0, -0.5]]))
    names = ["neutral", "smile"]
    with pytest.raises(ValueError, match='use gauge="free"'):
        BilinearModel(*arrays, None, expression_names=names)
    model = BilinearModel(*arrays, None, expression_names=names, gauge="free")
    assert bool(torch.isfinite(model.expression_weights(torch.eye(2))).all())


def test_gradcheck(rng):
    model = tiny_bilinear().double()
    identity, expression = (weights.requires_grad_() for weights in draw(model, (3,), rng))
    direction = model.gauge_direction
    assert torch.autograd.gradcheck(lambda a, b: fix_gauge(a, b, direction), [identity, expression])
