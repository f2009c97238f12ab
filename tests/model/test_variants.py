"""What a bilinear model is compared with: the same without its gauge, and its linear part."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model.linear import LinearModel
from facerecon_torch.model.variants import model_variant
from tests.tiny_model import tiny_bilinear, tiny_linear


@pytest.fixture
def model(device, dtype):
    return tiny_bilinear().to(device, dtype)


def draw(model, rng, n=4):
    sizes = (model.n_identity, model.n_expression)
    return [torch.randn(n, size, generator=rng, dtype=torch.float64).to(model.identity_mean) for size in sizes]


def test_the_model_itself(model):
    assert model_variant(model, "own") is model


def test_the_linear_part_touches_the_bilinear_shapes_along_both_axes(model, rng, tolerance):
    linear = model_variant(model, "linear")
    assert isinstance(linear, LinearModel)
    assert (linear.n_identity, linear.n_expression) == (model.n_identity, model.n_expression)
    assert (linear.dtype, linear.device) == (model.dtype, model.device)
    alpha, beta = draw(model, rng)
    for weights in ((alpha, model.expression_mean), (model.identity_mean, beta)):
        assert_close(linear.vertices(*weights), model.vertices(*weights), rtol=0, atol=100 * tolerance)
    both, sum_of_both = linear.vertices(alpha, beta), model.vertices(alpha, model.expression_mean)
    sum_of_both = sum_of_both + model.vertices(model.identity_mean, beta)
    mean = model.vertices(model.identity_mean, model.expression_mean)
    assert_close(both, sum_of_both - mean, rtol=0, atol=100 * tolerance)
    assert float((both - model.vertices(alpha, beta)).abs().max()) > 1.0  # mm: people do not all smile alike
    for name in ("identity_mean", "identity_variance", "expression_mean", "expression_variance"):
        assert torch.equal(getattr(linear, name), getattr(model, name))


def test_named_expressions_stay(model):
    linear = model_variant(model, "linear")
    assert linear.expression_names == model.expression_names
    ours, theirs = (m.expression_weights(linear.expression_rows) for m in (linear, model))
    assert_close(ours, theirs, rtol=0, atol=1e-3)
    assert float(ours.amax()) > 0.9


def test_a_free_gauge_leaves_weights_and_shapes_as_they_are(model, rng, tolerance):
    free = model_variant(model, "free_gauge")
    alpha, beta = draw(model, rng)
    assert_close(free.vertices(alpha, beta), model.vertices(alpha, beta), rtol=0, atol=100 * tolerance)
    assert torch.equal(free.fix_gauge(alpha, beta)[1], beta)
    assert not torch.equal(model.fix_gauge(alpha, beta)[1], beta)
    assert torch.equal(free.whole_topology("faces").triangles, model.whole_topology("faces").triangles)


@pytest.mark.parametrize("name", ["free_gauge", "linear"])
def test_variants_of_a_linear_model_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is compared with a bilinear model; this one is a LinearModel"):
        model_variant(tiny_linear(), name)


def test_unknown_variants_are_refused(model):
    with pytest.raises(ValueError, match="must be one of own, free_gauge, linear; got 'quadratic'"):
        model_variant(model, "quadratic")
