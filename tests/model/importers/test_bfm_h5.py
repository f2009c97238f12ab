"""BFM 2017/2019: variances, the expression's mean, triangles, colours, and what is missing."""

import sys

import h5py
import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.bfm_h5 import read_bfm_h5
from tests.model.importers.writers_linear import small_face, write_bfm_h5

OFFSET = np.linspace(-3, 3, 48).reshape(16, 3)


@pytest.fixture
def face():
    return small_face()


@pytest.fixture
def path(tmp_path, face):
    write_bfm_h5(tmp_path / "model2017-1.h5", face, OFFSET, colours=True)
    return tmp_path / "model2017-1.h5"


def close(got, want, tolerance=5e-4):
    torch.testing.assert_close(got.double(), torch.as_tensor(want), rtol=0, atol=tolerance)


def test_coefficients_are_standard_deviations_and_the_expressions_mean_is_in(path, face):
    imported = read_bfm_h5(path)
    alpha, beta = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 2.0])
    shape = imported.make_model(None).vertices(torch.tensor(alpha).float(), torch.tensor(beta).float())
    close(shape, face.shape(alpha, beta) - face.mean.mean(axis=0))
    assert torch.equal(imported.triangles, torch.from_numpy(face.triangles))
    assert imported.topology_name == "bfm_h5_16"
    assert imported.expression_names == ()


def test_colours_are_read_on_request(path, face):
    assert "texture_mean" not in read_bfm_h5(path).factors
    model = read_bfm_h5(path, texture=True).make_model(None)
    want = 0.5 + (face.identity / 10 * face.identity_sd / 100) @ [1.0, 0, -1]
    close(model.colours(torch.tensor([1.0, 0, -1])), want, 1e-6)


def test_a_model_without_expressions_keeps_its_cells_elsewhere(path, face):
    with h5py.File(path, "a") as opened:
        del opened["expression"], opened["color"]
        opened.move("shape/representer", "representer")
    imported = read_bfm_h5(path)
    close(imported.factors["mean"], face.mean - OFFSET - (face.mean - OFFSET).mean(axis=0))
    assert imported.factors["expression_basis"].shape == (16, 3, 0)
    with pytest.raises(ModelFileError, match="color/model: expected a colour model; got none"):
        read_bfm_h5(path, texture=True)


def _replace(opened, name, value):
    del opened[name]
    if value is not None:
        opened[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shape/model", None, "shape/model: expected the arrays of a Basel Face Model; got none"),
        ("shape/model/mean", None, "shape/model/mean: expected numbers"),
        ("shape/model/mean", np.ones(45, "f4"), "expected a mean of 3 V numbers, a basis 3 V x n and n variances"),
        ("shape/model/pcaVariance", np.array([1.0, -1, 1]), "pcaVariance: expected no negative number; got -1.0"),
        ("shape/model/pcaBasis", np.full((48, 3), np.inf), "pcaBasis: expected finite numbers"),
        ("shape/model/mean", "text", "shape/model/mean: expected numbers"),
        ("shape/representer/cells", None, "shape/representer/cells: expected triangles; got none"),
        ("shape/representer/cells", np.array([[0], [1], [16]]), r"triangles: expected vertices in 0..15; got 0 to 16"),
        ("expression/model/mean", np.ones(45, "f4"), "expression/model: expected a mean"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(path, name, value, message):
    with h5py.File(path, "a") as opened:
        _replace(opened, name, value)
    with pytest.raises(ModelFileError, match=message):
        read_bfm_h5(path)


def test_expressions_of_another_mesh_are_refused(path):
    with h5py.File(path, "a") as opened:
        for name, value in (("mean", np.ones(45, "f4")), ("pcaBasis", np.ones((45, 2), "f4"))):
            _replace(opened, f"expression/model/{name}", value)
    with pytest.raises(ModelFileError, match="expression/model: expected 48 numbers, as the shape has; got 45"):
        read_bfm_h5(path)


def test_without_h5py_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModelFileError, match=r"expected h5py \(pip install facerecon-torch\[importers\]\)"):
        read_bfm_h5(path)


def test_no_hdf5_file_is_refused(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"no HDF5")
    with pytest.raises(ModelFileError, match="file: expected a whole HDF5 file"):
        read_bfm_h5(tmp_path / "model.h5")
    with pytest.raises(ModelFileError, match="file: expected an existing file; got nothing"):
        read_bfm_h5(tmp_path / "none.h5")
