"""BFM 2009: units, trimming, expressions of three sources, and the coefficients of 300W-LP."""

import numpy as np
import pytest
import scipy.io
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.bfm2009 import coefficients_from_300wlp, read_bfm2009
from tests.model.importers.writers_linear import (
    flat,
    small_face,
    write_bfm2009,
    write_exp_pca,
    write_face3d,
    write_model_expression,
)

OFFSET = np.linspace(-3, 3, 48).reshape(16, 3)


@pytest.fixture
def face():
    return small_face()


@pytest.fixture
def folder(tmp_path, face):
    """A model without expressions."""
    write_bfm2009(tmp_path / "01_MorphableModel.mat", face)
    return tmp_path


def close(got, want, tolerance=5e-4):
    torch.testing.assert_close(got.double(), torch.as_tensor(want), rtol=0, atol=tolerance)


def test_the_model_alone_is_in_mm_where_the_file_has_it(folder, face):
    imported = read_bfm2009(folder)
    model = imported.make_model(None)
    alpha = torch.tensor([1.0, -2.0, 0.5])
    sd = imported.factors["identity_variance"].sqrt()
    close(sd, 1e3 * face.identity_sd * 1e-5, 1e-6)
    close(model.vertices(alpha * sd, torch.zeros(0)), face.shape(alpha.numpy(), np.zeros(2)))
    assert torch.equal(imported.triangles, torch.from_numpy(face.triangles))
    assert imported.summary["triangles_turned"] is True
    assert imported.summary["expressions"] == "none"
    assert imported.summary["origin_mm"] == [0, 0, 0]


def test_parameters_of_300w_lp_multiply_the_columns_as_they_stand_in_the_files(folder, face):
    write_model_expression(folder / "Model_Expression.mat", face, OFFSET)
    model = read_bfm2009(folder).make_model(None)
    shape_para, exp_para = np.array([4e4, -1e4, 3e3]), np.array([1.5, -0.5])
    alpha, beta = coefficients_from_300wlp(torch.tensor(shape_para).float(), torch.tensor(exp_para).float())
    arrays = scipy.io.loadmat(folder / "01_MorphableModel.mat")
    expressions = scipy.io.loadmat(folder / "Model_Expression.mat")
    raw = arrays["shapeMU"] + expressions["mu_exp"] + arrays["shapePC"] @ shape_para[:, None]
    raw = raw + expressions["w_exp"] @ exp_para[:, None]
    close(model.vertices(alpha, beta), raw.reshape(-1, 3) / 1000)
    close(model.expression_variance.sqrt(), face.expression_sd)


def test_face3ds_struct_gives_the_same_model(tmp_path, folder, face):
    write_model_expression(folder / "Model_Expression.mat", face, OFFSET)
    write_face3d(tmp_path / "BFM of face3d.mat", face, OFFSET)
    one, other = read_bfm2009(folder), read_bfm2009(tmp_path / "BFM of face3d.mat")
    for name, array in one.factors.items():
        close(other.factors[name], array.double())
    assert torch.equal(one.triangles, other.triangles)


def test_exp_pca_counts_standard_deviations_and_leaves_its_mean_out(folder, face):
    write_exp_pca(folder, face, OFFSET)
    imported = read_bfm2009(folder)
    shape = imported.make_model(None).vertices(torch.zeros(3), torch.tensor([1.0, -2.0]))
    close(shape, face.shape(np.zeros(3), np.array([1.0, -2.0])))
    assert torch.equal(imported.factors["expression_variance"], torch.ones(2))
    assert imported.summary["expressions"] == "Exp_Pca.bin"


def test_trimming_follows_the_index_files_and_renumbers_triangles(folder, face):
    trim, front = np.array([1, 2, 3, 5, 6, 7, 9, 10, 11]), np.array([1, 2, 4, 5, 9])
    small = small_face()
    small.mean, small.expression = face.mean[trim - 1], face.expression[trim - 1]
    write_exp_pca(folder, small, OFFSET[trim - 1])
    with pytest.raises(ModelFileError, match=r"BFM_exp_idx.mat: file: expected an existing file; got nothing"):
        read_bfm2009(folder)
    scipy.io.savemat(folder / "BFM_exp_idx.mat", {"trimIndex": trim[:, None]})
    imported = read_bfm2009(folder)
    close(imported.factors["mean"], small.mean)
    close(imported.factors["expression_basis"], small.expression * small.expression_sd)
    corners = [trim[row] - 1 for row in imported.triangles.numpy()]
    kept = [row for row in face.triangles if set(row) <= set(trim - 1)]
    assert np.array_equal(corners, kept)
    scipy.io.savemat(folder / "BFM_front_idx.mat", {"idx": front[None].astype(np.int32)})
    close(read_bfm2009(folder, region="front").factors["mean"], small.mean[front - 1])


def test_colours_lie_in_0_to_1(folder):
    arrays = scipy.io.loadmat(folder / "01_MorphableModel.mat")
    model = read_bfm2009(folder, texture=True).make_model(None)
    want = arrays["texMU"] + arrays["texPC"] @ (arrays["texEV"] * [[1.0], [-1.0]])
    close(model.colours(torch.tensor([1.0, -1.0])), want.reshape(-1, 3) / 255)
    assert "texture_mean" not in read_bfm2009(folder).factors


def test_the_first_components_can_be_asked_for(folder):
    imported = read_bfm2009(folder, n_identity=2)
    assert imported.factors["identity_basis"].shape[-1] == 2
    assert imported.summary["identity_variance_kept"] == pytest.approx(2000 / 2025, rel=1e-4)


def _without(folder, name):
    arrays = {k: v for k, v in scipy.io.loadmat(folder / "01_MorphableModel.mat").items() if not k.startswith("__")}
    arrays.pop(name)
    return arrays


@pytest.mark.parametrize("name", ["shapeMU", "shapePC", "shapeEV", "tl"])
def test_a_missing_array_is_named(folder, name):
    scipy.io.savemat(folder / "01_MorphableModel.mat", _without(folder, name))
    with pytest.raises(ModelFileError, match=f"01_MorphableModel.mat: {'tri' if name == 'tl' else name}: expected"):
        read_bfm2009(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shapeEV", np.ones((2, 1)), "shapeEV: expected a matrix 3 x 1; got 2 x 1"),
        ("shapePC", np.ones((45, 3)), "shapePC: expected a matrix 48 x any; got 45 x 3"),
        ("shapeMU", np.full((48, 1), np.nan), "shapeMU: expected finite numbers"),
        ("tl", np.array([[1, 2, 17]]), r"tl: expected a table T x 3 of vertices 1..16"),
        ("tl", np.array([[0, 2, 3]]), r"tl: expected a table T x 3 of vertices 1..16"),
    ],
)
def test_arrays_that_do_not_fit_are_named(folder, name, value, message):
    scipy.io.savemat(folder / "01_MorphableModel.mat", {**_without(folder, name), name: value})
    with pytest.raises(ModelFileError, match=message):
        read_bfm2009(folder)


def test_expressions_of_another_mesh_are_refused(folder, face):
    face.expression = face.expression[:6]
    (folder / "std_exp.txt").write_text("1 2\n", encoding="ascii")
    rows = np.concatenate([flat(OFFSET[:6]).T, flat(face.expression).T])
    (folder / "Exp_Pca.bin").write_bytes(np.int32(2).tobytes() + rows.astype("<f4").tobytes())
    scipy.io.savemat(folder / "BFM_exp_idx.mat", {"trimIndex": np.arange(1, 9)[:, None]})
    with pytest.raises(
        ModelFileError, match=r"Exp_Pca.bin: expressions: expected 3 x 8 rows, as the shape has; got 18"
    ):
        read_bfm2009(folder)


def test_deviations_must_be_as_many_as_components(folder, face):
    write_exp_pca(folder, face, OFFSET)
    (folder / "std_exp.txt").write_text("1 2 3\n", encoding="ascii")
    with pytest.raises(ModelFileError, match=r"std_exp.txt: numbers: expected 2 standard deviations"):
        read_bfm2009(folder)


def test_border_arguments_are_checked(folder):
    with pytest.raises(ValueError, match="region must be one of all, front; got 'ears'"):
        read_bfm2009(folder, region="ears")
    with pytest.raises(ModelFileError, match=r"01_MorphableModel.mat: file: expected an existing file"):
        read_bfm2009(folder / "elsewhere" / "01_MorphableModel.mat")
