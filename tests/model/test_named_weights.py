"""Named expression weights: scipy's bounded least squares, sparsity, and rows come back as one weight."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model import named_weights
from facerecon_torch.model.expression_error import ExpressionError
from facerecon_torch.model.named_weights import NamedExpressions, bounded_least_squares
from tests.reference.named_weights_twin import bounded_slowly, named_slowly
from tests.tiny_model import tiny_bilinear, tiny_linear, with_gauge


@pytest.fixture
def exact(monkeypatch):
    """Without ridge and penalty, what was mixed comes back to the digit."""
    monkeypatch.setattr(named_weights, "RIDGE", 1e-6)
    monkeypatch.setattr(named_weights, "PENALTY", 1e-6)


def _error(size, rng, noise=0.1, penalty=0.5):
    mixing = torch.randn(size, size, generator=rng, dtype=torch.float64)
    return ExpressionError(
        offset=0.1 * torch.randn(size, generator=rng, dtype=torch.float64),
        gain=torch.eye(size, dtype=torch.float64) * 0.6 + 0.02 * mixing,
        covariance=noise**2 * (torch.eye(size, dtype=torch.float64) + 0.1 * mixing @ mixing.mT),
        penalty=torch.tensor(penalty, dtype=torch.float64),
    )


@pytest.mark.parametrize(("n_equations", "n_unknowns"), [(30, 8), (25, 45), (5, 5), (1, 3), (40, 1)])
def test_bounded_least_squares_equals_scipy(n_equations, n_unknowns, rng, device):
    draw = {"generator": rng, "dtype": torch.float64}
    matrix = torch.randn(n_equations, n_unknowns, **draw)
    matrix = matrix / matrix.norm(dim=0)
    targets = (1.5 * torch.rand(40, n_unknowns, **draw) - 0.3) @ matrix.mT + 0.1 * torch.randn(40, n_equations, **draw)
    gram = matrix.mT @ matrix + 0.003 * torch.eye(n_unknowns, dtype=torch.float64)
    upper = torch.rand(40, n_unknowns, **draw) * (torch.rand(40, n_unknowns, **draw) > 0.3)
    right = targets @ matrix
    answer = bounded_least_squares(gram.to(device), right.to(device), upper.to(device)).cpu()
    expected = np.stack([bounded_slowly(gram.numpy(), t, u) for t, u in zip(right.numpy(), upper.numpy(), strict=True)])
    assert_close(answer, torch.from_numpy(expected), rtol=0, atol=1e-3)
    assert bool(((answer >= 0) & (answer <= upper)).all())


@pytest.mark.parametrize("estimates", [False, True], ids=["exact", "estimates"])
@pytest.mark.parametrize("n_names", [4, 12])
def test_names_equal_the_slow_twin(estimates, n_names, rng):
    rows = torch.randn(n_names + 1, 6, generator=rng, dtype=torch.float64)
    named = NamedExpressions(rows, ("neutral", *map(str, range(n_names))), torch.eye(6, dtype=torch.float64))
    if estimates:
        named = named.of_estimates(_error(6, rng))
    beta = named.origin + (torch.rand(30, n_names, generator=rng, dtype=torch.float64) - 0.5) @ named.directions
    metric = (named.root @ named.root.mT).numpy()
    options = {"ridge": named_weights.RIDGE, "least": named_weights._LEAST}
    expected = [
        named_slowly(named.directions.numpy(), target, metric, float(named.penalty), **options)
        for target in (beta - named.origin).numpy()
    ]
    assert_close(named(beta)[:, 1:], torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-3)


def test_errors_alone_name_nothing_in_most_faces_and_peaks_are_not_shrunk(rng):
    rows = torch.cat([torch.zeros(1, 8), torch.eye(8)]).double()
    named = NamedExpressions(rows, ("neutral", *map(str, range(8))), torch.eye(8, dtype=torch.float64))
    error = _error(8, rng, noise=0.03, penalty=60.0)
    noise = torch.randn(400, 8, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(error.covariance).mT
    truth = torch.zeros(400, 8, dtype=torch.float64)
    truth[200:, 3] = 0.8
    estimate = error.offset + truth @ error.gain + noise
    weights = named.of_estimates(error)(estimate)[:, 1:]
    assert float((weights[:200] > 0).any(dim=1).double().mean()) < 0.1
    assert abs(float(weights[200:, 3].median()) - 0.8) < 0.02  # the gain of 0.6 is undone, the penalty takes nothing
    plain = named(estimate)[:, 1:]
    assert float((plain[:200] > 0).any(dim=1).double().mean()) > 0.9
    assert float(plain[200:, 3].median()) < 0.65


def test_errors_of_another_model_are_refused(rng):
    with pytest.raises(ValueError, match="must be of 4 entries of beta; got 5"):
        tiny_bilinear().named.of_estimates(_error(5, rng))


def test_answer_does_not_depend_on_the_batch(rng):
    named = tiny_bilinear(n_expression=7).double().named
    beta = named.origin + torch.randn(64, len(named.origin), generator=rng, dtype=torch.float64)
    together = named(beta)
    for k in (0, 17, 63):
        assert_close(named(beta[k : k + 1])[0], together[k], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("target", [0.0, -1.0, 1e-300, torch.nan, torch.inf])
def test_odd_targets_end(target):
    answer = bounded_least_squares(
        torch.eye(3, dtype=torch.float64), torch.full((2, 3), target).double(), torch.ones(2, 3, dtype=torch.float64)
    )
    assert answer.shape == (2, 3)
    if target <= 0:
        assert not bool(answer.any())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("size", [1.0, 0.7, -2.0])
def test_rows_come_back_as_single_weights(device, dtype, size):
    model = tiny_bilinear(n_expression=7).to(device, dtype)
    weights = model.expression_weights(size * model.expression_rows)
    eye = torch.eye(7, dtype=dtype, device=device)
    assert_close(weights, eye, rtol=0, atol=2e-3)
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


def test_weights_lie_between_0_and_1(rng):
    model = tiny_linear().double()
    weights = model.expression_weights(3 * torch.randn(20, 6, generator=rng, dtype=torch.float64))
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert bool((weights == 1).any())


@pytest.mark.usefixtures("exact")
def test_names_without_neutral_are_measured_from_zero():
    rows = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    named = NamedExpressions(rows, ("smile", "frown"), torch.eye(2, dtype=torch.float64))
    weights = named(torch.tensor([[1.0, 4.0], [-1.0, 2.0]], dtype=torch.float64))
    assert_close(weights, torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=torch.float64), rtol=0, atol=1e-4)


def test_an_expression_without_a_displacement_has_no_weight():
    rows = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    named = NamedExpressions(rows, ("neutral", "none", "frown"), torch.eye(2))
    assert_close(named(torch.tensor([3.0, 2.0])), torch.tensor([0.5, 0.0, 0.5]), rtol=0, atol=5e-3)


def test_a_model_of_neutral_alone():
    rows = torch.ones(1, 2)
    named = NamedExpressions(rows, ("neutral",), torch.eye(2))
    assert_close(named(torch.zeros(3, 2)), torch.ones(3, 1))
