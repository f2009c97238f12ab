"""Named expression weights: scipy's non-negative least squares, and the rows themselves come back as one weight."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch.testing import assert_close

from facerecon_torch.model import named_weights
from facerecon_torch.model.named_weights import NamedExpressions, nonnegative_least_squares
from tests.tiny_model import tiny_bilinear, tiny_linear, with_gauge


@pytest.fixture
def exact(monkeypatch):
    """Without the ridge, what was mixed comes back to the digit."""
    monkeypatch.setattr(named_weights, "RIDGE", 1e-6)


def test_the_ridge_keeps_names_from_cancelling(rng, monkeypatch):
    model = tiny_bilinear()
    beta = model.expression_mean + 2 * model.expression_variance.sqrt() * torch.randn(50, 4, generator=rng)
    _, beta = model.fix_gauge(model.identity_mean.expand(50, -1), beta)
    shrunk = model.expression_weights(beta)
    monkeypatch.setattr(named_weights, "RIDGE", 1e-6)
    free = model.expression_weights(beta)
    assert bool((shrunk >= 0).all())
    assert float(shrunk[:, 1:].square().sum()) < 0.8 * float(free[:, 1:].square().sum())


@pytest.mark.parametrize(("n_equations", "n_unknowns"), [(30, 8), (25, 45), (5, 5), (1, 3), (40, 1)])
@pytest.mark.parametrize("shift", [0.0, 0.5], ids=["mixed", "mostly-inside"])
def test_equals_scipy(n_equations, n_unknowns, shift, rng, device):
    draw = {"generator": rng, "dtype": torch.float64}
    matrix = torch.randn(n_equations, n_unknowns, **draw) * torch.logspace(0, -1, n_unknowns, dtype=torch.float64)
    weights = torch.rand(40, n_unknowns, **draw) - 0.5 + shift
    targets = weights @ matrix.mT + 0.3 * torch.randn(40, n_equations, **draw)
    ridge = 1e-4
    gram = matrix.mT @ matrix + ridge * torch.eye(n_unknowns, dtype=torch.float64)
    answer = nonnegative_least_squares(gram.to(device), (targets @ matrix).to(device)).cpu()
    stacked = np.concatenate([matrix.numpy(), np.sqrt(ridge) * np.eye(n_unknowns)])
    expected = np.stack([nnls(stacked, np.append(t, np.zeros(n_unknowns)))[0] for t in targets.numpy()])
    assert_close(answer, torch.from_numpy(expected), rtol=1e-7, atol=1e-9)
    assert bool((answer >= 0).all())


def test_answer_does_not_depend_on_the_batch(rng):
    matrix = torch.randn(25, 45, generator=rng, dtype=torch.float64)
    gram = matrix.mT @ matrix + 1e-5 * torch.eye(45, dtype=torch.float64)
    targets = torch.randn(64, 25, generator=rng, dtype=torch.float64) @ matrix
    together = nonnegative_least_squares(gram, targets)
    for k in (0, 17, 63):
        assert_close(nonnegative_least_squares(gram, targets[k : k + 1])[0], together[k], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("target", [0.0, -1.0, 1e-300, torch.nan, torch.inf])
def test_odd_targets_end(target):
    answer = nonnegative_least_squares(torch.eye(3, dtype=torch.float64), torch.full((2, 3), target).double())
    assert answer.shape == (2, 3)
    if target <= 0:
        assert not bool(answer.any())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("size", [1.0, 0.7, -2.0])
def test_rows_come_back_as_single_weights(device, dtype, size):
    model = tiny_bilinear(n_expression=7).to(device, dtype)
    weights = model.expression_weights(size * model.expression_rows)
    eye = torch.eye(7, dtype=dtype, device=device)
    assert_close(weights, eye, rtol=0, atol=2e-3)  # the ridge takes a thousandth off the smallest expression
    free = with_gauge(model, "free").expression_weights(size * model.expression_rows)
    assert_close(free, weights, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("batch", [(), (2,), (2, 3), (0,)], ids=str)
def test_blendshape_weights_add_up(device, dtype, batch):
    model = tiny_linear().to(device, dtype)
    beta = torch.tensor([0.8, 0.0, 0.7, 0.0, 0.0, 0.0], dtype=dtype, device=device).expand(*batch, 6)
    weights = model.expression_weights(beta)
    expected = torch.tensor([0.0, 0.8, 0.0, 0.7, 0.0, 0.0, 0.0], dtype=dtype, device=device)
    assert (weights.dtype, weights.device.type) == (dtype, device.type)
    assert_close(weights, expected.expand(*batch, 7), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("exact")
def test_neutral_gets_what_the_others_leave():
    model = tiny_linear().double()
    beta = torch.tensor([0.3, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    weights = dict(zip(model.expression_names, model.expression_weights(beta).tolist()))
    assert weights["neutral"] == pytest.approx(0.7, abs=1e-3)
    assert weights["jawOpen"] == pytest.approx(0.3, abs=1e-3)


@pytest.mark.usefixtures("exact")
def test_nearest_in_millimetres_and_never_negative(rng):
    model = tiny_linear().double()
    beta = torch.randn(20, 6, generator=rng, dtype=torch.float64)
    weights = model.expression_weights(beta)
    assert bool((weights >= 0).all())
    design = model.expression_basis.flatten(0, 1).numpy() / np.sqrt(model.n_vertices)
    expected = np.stack([nnls(design, design @ b)[0] for b in beta.numpy()])
    assert_close(weights[:, 1:], torch.from_numpy(expected), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("exact")
def test_names_without_neutral_are_measured_from_zero():
    rows = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    named = NamedExpressions(rows, ("smile", "frown"), torch.eye(2, dtype=torch.float64))
    weights = named(torch.tensor([[1.0, 4.0], [-1.0, 2.0]], dtype=torch.float64))
    assert_close(weights, torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=torch.float64), rtol=0, atol=1e-4)


def test_a_model_of_neutral_alone():
    rows = torch.ones(1, 2)
    named = NamedExpressions(rows, ("neutral",), torch.eye(2))
    assert_close(named(torch.zeros(3, 2)), torch.ones(3, 1))
