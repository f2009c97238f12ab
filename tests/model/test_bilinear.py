"""The bilinear model against its formula spelled out, values and gradients, and its constructor's refusals."""

import pickle

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.tiny import tiny_bilinear
from tests.reference.model_loops import bilinear_vertices

BATCHES = pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)


@pytest.fixture
def model(device, dtype):
    return tiny_bilinear().to(device, dtype)


def draw(model, batch, rng):
    sizes = (model.n_identity, model.n_expression)
    drawn = [torch.randn(*batch, n, generator=rng, dtype=torch.float64).to(model.identity_mean) for n in sizes]
    return [(0.3 * weights).requires_grad_() for weights in drawn]


@BATCHES
def test_vertices_and_gradients_equal_the_formula(model, batch, rng, tolerance):
    identity, expression = draw(model, batch, rng)
    fast = model.vertices(identity, expression)
    slow = bilinear_vertices(model.core, identity, expression)
    assert fast.shape == (*batch, model.n_vertices, 3)
    assert (fast.dtype, fast.device) == (model.core.dtype, model.core.device)
    assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    weight = torch.randn(fast.shape, generator=rng, dtype=torch.float64).to(fast)
    for a, b in zip(*(torch.autograd.grad((s * weight).sum(), [identity, expression]) for s in (fast, slow))):
        assert_close(a, b, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(
    ("identity_batch", "expression_batch"),
    [((), (4,)), ((1,), (4,)), ((4,), ()), ((3, 1), (1, 4)), ((1, 1), (4,)), ((0,), (0,)), ((1,), ())],
    ids=str,
)
def test_factors_broadcast(model, identity_batch, expression_batch, rng, tolerance):
    identity, expression = draw(model, identity_batch, rng)[0], draw(model, expression_batch, rng)[1]
    batch = torch.broadcast_shapes(identity_batch, expression_batch)
    wide = [weights.expand(*batch, weights.shape[-1]) for weights in (identity, expression)]
    expected = bilinear_vertices(model.core, *wide)
    assert_close(model.vertices(identity, expression), expected, rtol=tolerance, atol=tolerance)


@BATCHES
def test_designs_reproduce_the_vertices(model, batch, rng, tolerance):
    identity, expression = draw(model, batch, rng)
    expected = bilinear_vertices(model.core, identity, expression)
    for (matrix, offset), weights in (
        (model.identity_design(expression), identity),
        (model.expression_design(identity), expression),
    ):
        assert matrix.shape == (*batch, model.n_vertices, 3, weights.shape[-1])
        assert offset.shape == (*batch, model.n_vertices, 3)
        answer = torch.einsum("...vdk,...k->...vd", matrix, weights) + offset
        assert_close(answer, expected, rtol=tolerance, atol=tolerance)


def test_restrict_equals_slicing(model, rng, tolerance):
    identity, expression = draw(model, (2,), rng)
    rows = torch.tensor([5, 0, 5, 300], device=model.device)
    part = model.restrict(rows)
    assert part.topology is None
    assert part.n_vertices == 4
    assert part.vertices(identity, expression).shape == (2, 4, 3)
    whole = model.vertices(identity, expression)[:, rows]
    assert_close(part.vertices(identity, expression), whole, rtol=tolerance, atol=tolerance)
    assert_close(part.expression_weights(expression), model.expression_weights(expression), rtol=0, atol=0)
    assert part.sha256 != model.sha256


def test_moving_a_restricted_model_leaves_the_whole_one():
    model = tiny_bilinear()
    part = model.restrict(torch.tensor([1, 2])).to(torch.float64)
    assert {array.dtype for array in part.buffers()} == {torch.float64}
    assert {array.dtype for array in model.buffers()} == {torch.float32}
    assert model.topology is not None
    assert model.topology.uv.dtype == torch.float32


def test_topology_follows_the_model(device):
    topology = tiny_bilinear().to(device).topology
    assert {table.device.type for table in topology.tables().values()} == {device.type}
    assert topology.triangles.dtype == torch.int64


def test_gradcheck(rng):
    model = tiny_bilinear().double().restrict(torch.tensor([0, 7, 200]))
    assert torch.autograd.gradcheck(model.vertices, draw(model, (2,), rng))
    assert torch.autograd.gradcheck(lambda a, b: model.vertices(a[:1], b), draw(model, (2,), rng))
    assert torch.autograd.gradcheck(lambda a, b: model.vertices(a, b[0]), draw(model, (2,), rng))
    assert torch.autograd.gradcheck(lambda b: model.identity_design(b)[0], draw(model, (2,), rng)[1:])
    assert torch.autograd.gradcheck(lambda a: model.expression_design(a)[0], draw(model, (2,), rng)[:1])


def test_float32_stays_near_float64():
    model, exact = tiny_bilinear(), tiny_bilinear().double()
    rough = model.vertices(model.identity_rows[:, None], model.expression_rows)  # the 24 x 7 faces it was built from
    error = (rough - exact.vertices(exact.identity_rows[:, None], exact.expression_rows)).abs().max()
    assert 0 < error < 1e-4  # mm


def test_survives_pickling():
    model = tiny_bilinear()
    again = pickle.loads(pickle.dumps(model))
    assert again.sha256 == model.sha256
    assert_close(again.expression_weights(model.expression_rows), model.expression_weights(model.expression_rows))


def test_has_no_parameters_and_an_empty_state():
    model = tiny_bilinear()
    assert isinstance(model, FaceModel)
    assert not list(model.parameters())
    assert not model.state_dict()


def test_hash_is_one_of_factors_and_topology(device, dtype):
    model = tiny_bilinear()
    assert model.sha256 == tiny_bilinear().to(device, dtype).sha256
    assert model.with_gauge("free").sha256 == model.sha256
    changed = model.core.clone()
    changed[0, 0, 0, 0] += 1e-2
    rows = (model.identity_rows, model.expression_rows)
    names = {"expression_names": model.expression_names}
    hashes = {
        model.sha256,
        BilinearModel(changed, *rows, model.topology, **names).sha256,
        BilinearModel(model.core, *rows, None, **names).sha256,
    }
    assert len(hashes) == 3


def factors(**changes):
    arrays = {
        "core": torch.ones(4, 3, 2, 2),
        "identity_rows": torch.eye(2),
        "expression_rows": torch.eye(2),
        "topology": None,
        "expression_names": ["neutral", "smile"],
    }
    return {**arrays, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core": torch.ones(4, 2, 2, 2)}, "core must have trailing shape"),
        ({"core": torch.ones(1, 4, 3, 2, 2)}, "core must have 4 axes"),
        ({"core": torch.ones(0, 3, 2, 2)}, "not be empty"),
        ({"core": torch.full((4, 3, 2, 2), torch.nan)}, "core must be finite; 48 of 48"),
        ({"identity_rows": torch.ones(5, 3)}, "identity_rows must have trailing shape"),
        ({"expression_rows": torch.ones(2, 3)}, "expression_rows must have trailing shape"),
        ({"expression_names": ["neutral"]}, "must name 2 rows; got 1"),
        ({"expression_names": ["smile", "smile"]}, "must differ"),
        ({"topology": tiny_bilinear().topology}, "topology must have 4 vertices"),
        ({"expression_rows": torch.tensor([[1.0, 0.0], [-1.0, 0.0]])}, "must have a mean"),
    ],
)
def test_refuses_factors_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        BilinearModel(**factors(**changes))


def test_refuses_an_unknown_gauge():
    with pytest.raises((ValueError, TypeError), match="gauge"):  # a TypeError of the annotation where it is checked
        BilinearModel(**factors(gauge="loose"))


@pytest.mark.parametrize("name", ["core", "identity_rows", "expression_rows"])
def test_refuses_mixed_and_half_precision(name):
    for dtype in (torch.float16, torch.float64, torch.int64):
        with pytest.raises(TypeError, match="float32 or float64"):
            BilinearModel(**factors(**{name: factors()[name].to(dtype)}))
    half = {key: factors()[key].half() for key in ("core", "identity_rows", "expression_rows")}
    with pytest.raises(TypeError, match=r"core must be float32 or float64.*float16"):
        BilinearModel(**factors(**half))
