"""Face models as torch modules: forward, moves, copies, pickles and an empty state."""

import io
import pickle
from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close

from tests.tiny_model import tiny_bilinear, tiny_linear

BUILDERS = pytest.mark.parametrize("build", [tiny_bilinear, tiny_linear])


def weights(model, *batch):
    draw = torch.Generator().manual_seed(1)
    sizes = (model.n_identity, model.n_expression)
    return [torch.randn(*batch, n, generator=draw, dtype=torch.float64).to(model.identity_mean) for n in sizes]


def tables(model):
    return [*model.buffers(), *model.topology.tables().values()]


@BUILDERS
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_forward_gives_the_vertices_and_runs_hooks(build, batch):
    model, calls = build(), []
    model.register_forward_hook(lambda _, inputs, output: calls.append(output.shape))
    out = model(*weights(model, *batch))
    assert torch.equal(out, model.vertices(*weights(model, *batch)))
    assert calls == [(*batch, model.n_vertices, 3)]


@BUILDERS
def test_the_state_is_empty_and_the_buffers_are_not(build):
    model = build()
    assert dict(model.state_dict()) == {}
    assert list(model.parameters()) == []
    assert {"identity_mean", "expression_variance"} < {name for name, _ in model.named_buffers()}
    torch.nn.Sequential(model).load_state_dict({})  # inside another module, strictly


@BUILDERS
def test_a_copy_is_another_model_with_the_same_values(build):
    model = build()
    copied = deepcopy(model)
    assert copied.sha256 == model.sha256
    assert not {t.data_ptr() for t in tables(model)} & {t.data_ptr() for t in tables(copied)}
    for table in copied.buffers():
        table.zero_()
    assert float(model(*weights(model)).abs().max()) > 50
    assert float(copied(*weights(copied)).abs().max()) == 0


@BUILDERS
@pytest.mark.parametrize("restricted", [False, True])
def test_a_pickled_model_is_the_same_model(build, restricted):
    model = build().restrict(torch.tensor([3, 1, 1])) if restricted else build()
    again = pickle.loads(pickle.dumps(model))
    assert again.sha256 == model.sha256
    assert again.expression_names == model.expression_names
    assert (again.topology is None) == restricted
    assert torch.equal(again(*weights(model)), model(*weights(model)))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).sha256 == model.sha256


@BUILDERS
def test_double_moves_every_floating_array_and_keeps_the_hash(build):
    model = build()
    narrow = model(*weights(model))
    sha256 = model.sha256
    assert model.double() is model
    assert {t.dtype for t in tables(model)} == {torch.float64, torch.int64}
    assert model.dtype == torch.float64
    assert build().double().sha256 == sha256
    assert_close(model(*weights(model)), narrow.double(), rtol=1e-5, atol=1e-3)
    assert model.expression_weights(model.expression_mean).dtype == torch.float64


@BUILDERS
def test_a_move_takes_every_table_along_and_reads_none_back(build):
    model = build().to("meta")  # has shapes and no values: a check of indices would fail
    assert {t.device.type for t in tables(model)} == {"meta"}
    assert model.device.type == "meta"
    identity = torch.empty(4, model.n_identity, device="meta")
    assert model(identity, torch.empty(4, model.n_expression, device="meta")).shape == (4, model.n_vertices, 3)
