"""The Basel Face Model in the files of 3DDFA_V2 and Deep3DFaceRecon; made-up files, the real ones were not at hand."""

import pickle

import numpy as np
import pytest
import scipy.io
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.bfm2009 import read_deep3d
from facerecon_torch.model.importers.bfm_noneck import read_bfm_noneck
from tests.model.importers.writers_basel_gnm import write_deep3d, write_noneck
from tests.model.importers.writers_linear import small_face


@pytest.fixture
def face():
    return small_face()


def _vertices(imported, alpha, beta):
    return imported.make_model(None).vertices(torch.tensor(alpha).float(), torch.tensor(beta).float()).double()


def test_deep3d_is_read_with_its_own_weights_and_turned_outward(tmp_path, face):
    arrays = write_deep3d(tmp_path / "BFM_model_front.mat", face)
    imported = read_deep3d(tmp_path / "BFM_model_front.mat", texture=True)
    alpha, beta = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 2.0])
    want = torch.as_tensor(face.shape(alpha, beta))
    torch.testing.assert_close(_vertices(imported, alpha, beta), want, rtol=0, atol=2e-4)
    assert torch.equal(imported.triangles, torch.from_numpy(face.triangles))
    assert torch.equal(imported.factors["identity_variance"], torch.ones(3))
    colour = torch.from_numpy(arrays["meantex"].reshape(-1, 3) / 255).float()
    torch.testing.assert_close(imported.factors["texture_mean"], colour)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meanshape": np.ones((1, 47))}, "meanshape: expected 3 V numbers; got 47"),
        ({"idBase": np.ones((45, 3))}, "idBase: expected a matrix 48 x any; got 45 x 3"),
        ({"tri": np.full((4, 3), 17.0)}, r"tri: expected a table T x 3 of vertices 1..16"),
        ({"texBase": np.ones((45, 3))}, "texBase: expected a matrix 48 x any"),
    ],
)
def test_deep3d_refuses_arrays_of_another_mesh(tmp_path, face, change, message):
    scipy.io.savemat(tmp_path / "b.mat", write_deep3d(tmp_path / "a.mat", face) | change)
    with pytest.raises(ModelFileError, match=message):
        read_deep3d(tmp_path / "b.mat", texture=True)


@pytest.mark.parametrize("beside", [False, True], ids=["triangles within", "tri.pkl"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_noneck_has_the_spread_of_its_weights(tmp_path, face, protocol, beside):
    imported = read_bfm_noneck(write_noneck(tmp_path, face, protocol=protocol, triangles_beside=beside))
    alpha, beta = np.array([0.4, -0.2, 0.05]), np.array([3e4, -1e4])
    want = torch.as_tensor(face.mean + face.identity @ alpha * 100 + face.expression @ beta / 1e3)
    torch.testing.assert_close(_vertices(imported, alpha, beta), want, rtol=0, atol=2e-3)
    assert torch.equal(imported.triangles, torch.from_numpy(face.triangles))
    # 0.6^2 + 0.8^2 = 1: the mean square is that of the face's standard deviations
    variance = torch.from_numpy((1e-2 * face.identity_sd) ** 2).float()
    torch.testing.assert_close(imported.factors["identity_variance"], variance)
    variance = torch.from_numpy((1e3 * face.expression_sd) ** 2).float()
    torch.testing.assert_close(imported.factors["expression_variance"], variance)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bfm_noneck_v3.pkl", {"u": None}, "u: expected an array of that name"),
        ("bfm_noneck_v3.pkl", {"w_exp": np.zeros((9, 2))}, r"w_exp: expected numbers of shape \[48, any\]"),
        ("bfm_noneck_v3.pkl", {"tri": np.full((3, 4), 16)}, r"tri: expected vertices in 0..15; got 16 to 16"),
        ("bfm_noneck_v3.pkl", {"tri": None}, "tri: expected triangles in the file, or in tri.pkl beside it"),
        ("param_mean_std_62d_120x120.pkl", {"std": np.ones(9)}, r"std: expected numbers of shape \[17, any\]"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, face, name, change, message):
    file = write_noneck(tmp_path, face)
    document = pickle.loads((tmp_path / name).read_bytes()) | change
    document = {key: value for key, value in document.items() if value is not None}
    (tmp_path / name).write_bytes(pickle.dumps(document))
    with pytest.raises(ModelFileError, match=message):
        read_bfm_noneck(file)


def test_noneck_without_the_spread_is_refused(tmp_path, face):
    file = write_noneck(tmp_path, face)
    other = (tmp_path / "param_mean_std_62d_120x120.pkl").rename(tmp_path / "spread.pkl")
    with pytest.raises(ModelFileError, match=r"param_mean_std_62d_120x120\.pkl"):
        read_bfm_noneck(file)
    assert read_bfm_noneck(file, other).n_vertices == len(face.mean)
