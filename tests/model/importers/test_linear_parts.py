"""What every linear model goes through: which side is outside, which columns stay, where the origin is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.importers.linear_parts import LinearParts, assemble, outward
from facerecon_torch.model.io import load_model, save_model
from tests.model.importers.writers_linear import small_face

FILE = Path("model.bin")


def parts(**changes):
    face = small_face()
    arrays = {
        "mean": face.mean,
        "triangles": face.triangles,
        "identity": face.identity,
        "expression": face.expression,
        "identity_variance": face.identity_sd**2,
        "expression_variance": face.expression_sd**2,
    }
    return LinearParts(**{**arrays, **changes})


def test_a_whole_head_tells_its_outside_at_the_nose():
    model = load_default_face()
    vertices = model.vertices(model.identity_mean, model.expression_mean)
    triangles = model.topology.triangles
    same, turned = outward(FILE, vertices, triangles)
    assert not turned
    assert same is triangles
    back, turned = outward(FILE, vertices, triangles[:, [0, 2, 1]])
    assert turned
    assert torch.equal(back, triangles)


@pytest.mark.parametrize(
    ("triangles", "message"),
    [
        (torch.zeros(0, 3, dtype=torch.int64), r"expected a table \[T, 3\] that is not empty"),
        (torch.tensor([[0, 1, 16]]), r"expected vertices in 0..15; got 0 to 16"),
        (torch.tensor([[0, 1, 1]]), "triangles that face the viewer"),
    ],
)
def test_triangles_without_an_outside_are_refused(triangles, message):
    with pytest.raises(ModelFileError, match=message):
        outward(FILE, torch.from_numpy(small_face().mean), triangles)


def test_columns_without_variance_are_left_out_with_their_names():
    imported = assemble(
        FILE,
        parts(expression_variance=np.array([0.0, 4.0]), names=("still", "smile")),
        unit_mm=1.0,
        topology_name="small_16",
    )
    assert imported.expression_names == ("neutral", "smile")
    assert imported.factors["expression_basis"].shape == (16, 3, 1)
    assert imported.factors["expression_rows"].tolist() == [[0], [1]]
    assert imported.summary["expression_components_in_file"] == 2


def test_the_origin_moves_to_the_centroid_unless_it_is_to_stay():
    moved = assemble(FILE, parts(), unit_mm=2.0, topology_name="small_16")
    stays = assemble(FILE, parts(), unit_mm=2.0, topology_name="small_16", centre=False)
    origin = torch.tensor(moved.summary["origin_mm"], dtype=torch.float32)
    torch.testing.assert_close(moved.factors["mean"].mean(dim=0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(moved.factors["mean"] + origin, stays.factors["mean"], rtol=0, atol=1e-4)
    torch.testing.assert_close(stays.factors["mean"], torch.from_numpy(2 * small_face().mean).float())


def test_a_model_without_expressions_is_stored_and_read_back(tmp_path):
    none = {"expression": np.zeros((16, 3, 0)), "expression_variance": np.zeros(0)}
    model = assemble(FILE, parts(**none), unit_mm=1.0, topology_name="small_16").make_model(None)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    for (name, ours), (_, theirs) in zip(loaded.named_buffers(), model.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    alpha, beta = torch.ones(2, 3), torch.zeros(2, 0)
    torch.testing.assert_close(loaded.vertices(alpha, beta), model.vertices(alpha, beta))
    assert loaded.expression_weights(beta).shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": np.full((16, 3, 3), 1e20)}, r"identity: expected finite numbers of at most 1e\+12"),
        ({"identity_variance": np.zeros(3)}, "at least one component with variance; got 3 without"),
        ({"uv": np.zeros((5, 2))}, "model: expected arrays that fit together"),
        ({"names": ("same", "same")}, "expression_names must be 3 different names"),
    ],
)
def test_arrays_that_do_not_fit_are_named_with_the_file(changes, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        assemble(FILE, parts(**changes), unit_mm=1.0, topology_name="small_16")
    assert str(caught.value).startswith("model.bin: ")
