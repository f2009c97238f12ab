"""Vertices by few terms: exact where the core has that structure, refused where it has not."""

import pytest
import torch

from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.factored import FactoredVertices, factor_vertices


def _model(core, rng, dtype):
    """A model around `core`, its expressions spread about a mean that is not zero."""
    identities = torch.randn(30, core.shape[2], generator=rng, dtype=torch.float64)
    expressions = 0.3 * torch.randn(20, core.shape[3], generator=rng, dtype=torch.float64)
    expressions[:, 0] += 1.0
    names = ["neutral", *(f"e{k}" for k in range(1, 20))]
    return BilinearModel(core.to(dtype), identities.to(dtype), expressions.to(dtype), None, expression_names=names)


def _bent(rng, vertices=700, identities=12, expressions=9, terms=3):
    """Every vertex moves along `terms` directions that identity bends, as in a face made by carrying expressions over:
    beside a shape that all expressions share."""

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    bends, moves = draw(vertices, 3, identities, terms), draw(vertices, terms, expressions)
    return 50 * torch.einsum("vki,e->vkie", draw(vertices, 3, identities), draw(expressions)) + torch.einsum(
        "vkit,vte->vkie", bends, moves
    )


def _faces(model, n, rng):
    identity = model.identity_mean + model.identity_variance.sqrt() * torch.randn(
        n, model.n_identity, generator=rng, dtype=model.dtype
    )
    expression = model.expression_mean + model.expression_variance.sqrt() * torch.randn(
        n, model.n_expression, generator=rng, dtype=model.dtype
    )
    return identity, expression


@pytest.mark.parametrize("n", [1, 5, 300])  # less and more than one tile of faces; 700 vertices are two tiles
def test_a_core_with_the_structure_is_met_exactly(n, rng):
    # With a shared shape beside them the three directions are four: the mean expression is not its direction.
    model = _model(_bent(rng), rng, torch.float64)
    fast = FactoredVertices(model, 4)
    identity, expression = _faces(model, n, rng)
    torch.testing.assert_close(fast(identity, expression), model.vertices(identity, expression), rtol=1e-10, atol=1e-8)


def test_any_weights_are_met_not_only_likely_ones(rng):
    model = _model(_bent(rng), rng, torch.float64)
    fast = FactoredVertices(model, 4)
    identity, expression = (
        30 * torch.randn(4, 12, generator=rng).double(),
        -5 * torch.randn(4, 9, generator=rng).double(),
    )
    torch.testing.assert_close(fast(identity, expression), model.vertices(identity, expression), rtol=1e-9, atol=1e-6)


def test_all_terms_are_the_dense_product(rng):
    core = torch.randn(40, 3, 6, 5, generator=rng, dtype=torch.float64)
    model = _model(core, rng, torch.float64)
    identity, expression = _faces(model, 7, rng)
    full = FactoredVertices(model, 5)(identity, expression)
    torch.testing.assert_close(full, model.vertices(identity, expression), rtol=1e-10, atol=1e-9)


def test_the_deviation_told_is_that_of_the_error(rng):
    core = torch.randn(40, 3, 12, 9, generator=rng, dtype=torch.float64)
    model = _model(core, rng, torch.float64)
    fast = FactoredVertices(model, 4)
    identity, expression = _faces(model, 4000, rng)
    error = fast(identity, expression) - model.vertices(identity, expression)
    worst = error.square().sum(-1).mean(0).sqrt().max()
    torch.testing.assert_close(float(worst), fast.deviation_mm, rtol=0.1, atol=0.0)


def test_a_core_without_the_structure_is_refused(rng):
    model = _model(torch.randn(40, 3, 12, 9, generator=rng, dtype=torch.float64), rng, torch.float64)
    assert factor_vertices(model, 0.02) is None
    with pytest.raises(ValueError, match=r"tolerance_mm must be positive; got 0"):
        factor_vertices(model, 0)


def test_an_empty_batch(rng):
    model = _model(_bent(rng), rng, torch.float32)
    assert FactoredVertices(model, 4)(torch.zeros(0, 12), torch.zeros(0, 9)).shape == (0, 700, 3)


def test_the_default_face_within_a_fiftieth_of_a_millimetre(device, rng):
    whole = load_default_face()
    model = whole.restrict(torch.arange(0, whole.n_vertices, 8)).to(device)
    fast = factor_vertices(model)
    assert fast is not None
    assert fast.terms == 3
    drawn = [weights.to(device) for weights in _faces(whole, 1000, rng)]
    rows = model.identity_rows[:47], model.expression_rows
    for identity, expression in (drawn, rows):
        gap = fast(identity, expression) - model.vertices(identity, expression)
        assert 0 < gap.norm(dim=-1).max() < 0.02
