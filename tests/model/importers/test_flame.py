"""FLAME: .npz and .pkl give one model; what is missing is named."""

import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.flame import read_flame
from tests.model.importers.writers_linear import flame_arrays, python2_pickle, small_face, write_flame_pickle


@pytest.fixture
def face():
    return small_face()


@pytest.mark.parametrize("form", ["npz", 0, 1, 2, 3, 4, 5, "python 2"])
def test_a_model_is_in_mm_with_identity_first(tmp_path, face, form):
    if form == "npz":
        np.savez(tmp_path / "flame.npz", **flame_arrays(face))
    elif form == "python 2":
        (tmp_path / "flame.pkl").write_bytes(python2_pickle(flame_arrays(face)))
    else:
        write_flame_pickle(tmp_path / "flame.pkl", face, protocol=form)
    imported = read_flame(tmp_path / ("flame.npz" if form == "npz" else "flame.pkl"), split=3)
    alpha, beta = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 2.0])
    shape = imported.make_model(None).vertices(torch.tensor(alpha).float(), torch.tensor(beta).float())
    want = torch.as_tensor(face.shape(alpha, beta) - face.mean.mean(axis=0))
    torch.testing.assert_close(shape.double(), want, rtol=0, atol=2e-4)
    assert torch.equal(imported.triangles, torch.from_numpy(face.triangles))
    assert torch.equal(imported.factors["identity_variance"], torch.ones(3))
    assert torch.equal(imported.factors["expression_variance"], torch.ones(2))
    assert imported.topology_name == "flame_16"


def test_the_published_model_has_300_columns_of_identity(tmp_path, face):
    arrays = flame_arrays(face)
    arrays["shapedirs"] = np.random.default_rng(0).normal(size=(16, 3, 400)) / 1e3
    np.savez_compressed(tmp_path / "flame.npz", **arrays)
    imported = read_flame(tmp_path / "flame.npz", n_expression=50)
    assert imported.factors["identity_basis"].shape == (16, 3, 300)
    assert imported.factors["expression_basis"].shape == (16, 3, 50)
    want = torch.from_numpy(arrays["shapedirs"][..., 300:350] * 1e3).float()
    torch.testing.assert_close(imported.factors["expression_basis"], want)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"f": None}, "flame.npz: f: expected an array of that name"),
        ({"shapedirs": np.zeros((15, 3, 5))}, r"shapedirs: expected numbers of shape \[16, 3, any\]"),
        ({"f": np.zeros((4, 3))}, r"f: expected whole numbers of shape \[any, 3\]; got float64"),
        ({"f": np.array([[0, 1, 16]])}, r"triangles: expected vertices in 0..15; got 0 to 16"),
        ({"v_template": np.full((16, 3), np.nan)}, "mean: expected finite numbers"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, face, changes, message):
    arrays = {name: array for name, array in {**flame_arrays(face), **changes}.items() if array is not None}
    np.savez(tmp_path / "flame.npz", **arrays)
    with pytest.raises(ModelFileError, match=message):
        read_flame(tmp_path / "flame.npz", split=3)


def test_an_unknown_number_of_columns_needs_a_split(tmp_path, face):
    np.savez(tmp_path / "flame.npz", **flame_arrays(face))
    with pytest.raises(
        ModelFileError, match=r"shapedirs: expected \[150, 400\] columns, or split in 1..5; got split None"
    ):
        read_flame(tmp_path / "flame.npz")
    with pytest.raises(ModelFileError, match=r"name: expected a name that ends in .pkl or .npz"):
        read_flame(tmp_path / "flame.obj")
