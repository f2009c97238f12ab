"""A face as its neutral shape and the displacements of named expressions."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model.named_shapes import named_shapes, neutral_vertices
from facerecon_torch.structures import FaceParameters
from tests.tiny_model import tiny_bilinear, tiny_linear, with_gauge

_ROUNDING = 1e-4  # mm: rows are normalised in float32
MODELS = {
    "fixed gauge": lambda: with_gauge(tiny_bilinear(), "fixed"),
    "free gauge": lambda: with_gauge(tiny_bilinear(), "free"),
    "linear": tiny_linear,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().double()


def _identity(model, rng):
    draw = torch.randn(model.n_identity, generator=rng, dtype=torch.float64)
    return model.identity_mean + model.identity_variance.sqrt() * draw


def test_neutral_and_a_displacement_are_the_model_s_own_shape(model, rng):
    identity = _identity(model, rng)
    rows = model.named.origin + model.named.directions
    for k, row in enumerate(rows):
        parameters = FaceParameters(identity, row)
        shapes = named_shapes(model, parameters)
        assert shapes.names == model.expression_names[1:]
        assert shapes.displacements[k].norm() > 1
        assert_close(shapes.neutral + shapes.displacements[k], model.vertices(identity, row), rtol=0, atol=_ROUNDING)


def test_the_neutral_face_keeps_the_person(model, rng):
    identity = _identity(model, rng)
    other = FaceParameters(identity, model.named.origin + 0.4 * model.named.directions[1])
    neutral = model.vertices(identity, model.named.origin)
    assert_close(neutral_vertices(model, other), neutral, rtol=0, atol=_ROUNDING)
    assert_close(named_shapes(model, other).neutral, neutral, rtol=0, atol=_ROUNDING)
    assert (model.vertices(identity, other.expression) - neutral).abs().max() > 0.5


def test_the_split_of_size_between_the_factors_changes_nothing(rng):
    model = with_gauge(tiny_bilinear(), "free").double()
    identity, row = _identity(model, rng), model.named.origin + model.named.directions[0]
    one = named_shapes(model, FaceParameters(identity, row))
    same = named_shapes(model, FaceParameters(identity / 3, 3 * row))
    assert_close(same.neutral, one.neutral, rtol=0, atol=_ROUNDING)
    assert_close(same.displacements, one.displacements, rtol=0, atol=_ROUNDING)
