"""Files of eos: every version, expressions inside and beside, texture coordinates, and damage."""

import json

import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.surrey import read_surrey
from tests.model.importers.writers_linear import SIDE, blendshapes, small_face, surrey

UV = np.stack([np.arange(SIDE * SIDE) / 16, np.arange(SIDE * SIDE) / 32], axis=1)
SHAPES = dict(zip(("angry", "sad"), np.moveaxis(60 * small_face().expression, -1, 0)))


@pytest.fixture
def face():
    return small_face()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sfm shape.bin"


def close(got, want, tolerance=2e-4):
    torch.testing.assert_close(got.double(), torch.as_tensor(want).double(), rtol=0, atol=tolerance)


def test_the_public_layout_gives_shapes_in_mm_and_standard_deviations(path, face):
    path.write_bytes(surrey(face, uv=UV))
    imported = read_surrey(path)
    model = imported.make_model(None)
    centre = face.mean.mean(axis=0)
    alpha = np.array([1.0, -2.0, 0.5])
    close(model.vertices(torch.tensor(alpha).float(), torch.zeros(0)), face.shape(alpha, np.zeros(2)) - centre)
    assert torch.equal(imported.factors["identity_variance"], torch.ones(3))
    assert torch.equal(imported.triangles, torch.from_numpy(face.triangles))
    assert imported.topology_name == "sfm_16"
    close(torch.tensor(imported.summary["origin_mm"]), centre, 1e-5)
    close(imported.uv, np.stack([UV[:, 0], 1 - UV[:, 1]], axis=1), 1e-6)


def test_blendshapes_beside_the_model_are_named_weights(path, face):
    path.write_bytes(surrey(face))
    beside = path.with_name("blendshapes.bin")
    beside.write_bytes(blendshapes(SHAPES))
    imported = read_surrey(path, beside)
    model = imported.make_model(None)
    assert imported.expression_names == ("neutral", "angry", "sad")
    beta = torch.tensor([0.25, 0.5])
    want = face.mean - face.mean.mean(axis=0) + 0.25 * SHAPES["angry"] + 0.5 * SHAPES["sad"]
    close(model.vertices(torch.zeros(3), beta), want)
    close(model.expression_weights(beta)[1:], beta / 1.003, 1e-3)  # RIDGE keeps three thousandths


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("expression", [None, "pca", SHAPES], ids=["none", "pca", "blendshapes"])
def test_later_versions_carry_expressions_landmarks_and_texture_triangles(path, face, version, expression):
    content = surrey(
        face,
        version=version,
        expression=expression,
        uv=UV,
        landmarks={"chin.bottom": 3},
        texture_triangles=face.triangles,
    )
    path.write_bytes(content)
    imported = read_surrey(path)
    columns = 0 if expression is None else 2
    assert imported.factors["expression_basis"].shape == (16, 3, columns)
    if expression == "pca":
        beta = np.array([1.0, -1.0])
        shape = imported.make_model(None).vertices(torch.zeros(3), torch.tensor(beta).float())
        close(shape, face.shape(np.zeros(3), beta) - face.mean.mean(axis=0))
    close(imported.uv, np.stack([UV[:, 0], 1 - UV[:, 1]], axis=1), 1e-6)


def test_own_texture_triangles_place_the_coordinates_of_a_seam(path, face):
    texture = face.triangles.copy()
    texture[-1] = [16, 17, 18]
    path.write_bytes(surrey(face, version=4, uv=np.concatenate([UV, UV[:3] + 0.5]), texture_triangles=texture))
    imported = read_surrey(path)
    close(imported.uv[:, 0], UV[:, 0], 1e-6)  # the first triangle of every vertex decides
    close(imported.corner_uv[-1], np.stack([UV[:3, 0] + 0.5, 0.5 - UV[:3, 1]], axis=1), 1e-6)
    close(imported.corner_uv[:-1], imported.uv[imported.triangles[:-1]], 1e-6)


def test_seams_follow_triangles_that_are_turned(path, face):
    face.triangles = face.triangles[:, [0, 2, 1]]
    texture = face.triangles.copy()
    texture[-1] = [16, 17, 18]
    path.write_bytes(surrey(face, version=4, uv=np.concatenate([UV, UV[:3] + 0.5]), texture_triangles=texture))
    imported = read_surrey(path)
    assert imported.summary["triangles_turned"] is True
    close(imported.corner_uv[-1, :, 0], UV[[0, 2, 1], 0] + 0.5, 1e-6)
    close(imported.corner_uv[:-1], imported.uv[imported.triangles[:-1]], 1e-6)


def _contours(path, document):
    path.with_name("sfm_model_contours.json").write_text(json.dumps(document))
    return path.with_name("sfm_model_contours.json")


@pytest.mark.parametrize("names", [("right_contour", "left_contour"), ("right", "left")])
def test_vertices_of_the_contour_become_a_table(path, face, names):
    path.write_bytes(surrey(face))
    document = {"model_contour": dict(zip(names, ([9, 5, 1], [2, 5])))}
    assert read_surrey(path, contours=_contours(path, document)).tables["contour_rim"].tolist() == [1, 2, 5, 9]


@pytest.mark.parametrize(
    "document",
    [{}, {"model_contour": [1]}, {"model_contour": {"right": [1]}}, {"model_contour": {"right": [16], "left": [1]}},
     {"model_contour": {"right": [True], "left": [1]}}, {"model_contour": {"right": [], "left": [1]}}],
)  # fmt: skip
def test_other_contours_are_refused(path, face, document):
    path.write_bytes(surrey(face))
    with pytest.raises(ModelFileError, match=r"model_contour: expected right_contour and left_contour"):
        read_surrey(path, contours=_contours(path, document))


def test_colours_are_read_on_request_only(path, face):
    path.write_bytes(surrey(face, colours=True))
    assert "texture_mean" not in read_surrey(path).factors
    model = read_surrey(path, texture=True).make_model(None)
    close(model.colours(torch.zeros(3)), np.full((16, 3), 0.5), 1e-6)
    path.write_bytes(surrey(face))
    with pytest.raises(ModelFileError, match="colour: expected a colour model; got none"):
        read_surrey(path, texture=True)


def test_clockwise_triangles_are_turned_and_said(path, face):
    face.triangles = face.triangles[:, [0, 2, 1]]
    path.write_bytes(surrey(face))
    imported = read_surrey(path)
    assert imported.summary["triangles_turned"] is True
    assert torch.equal(imported.triangles, torch.from_numpy(small_face().triangles))


def test_components_are_cut_and_their_share_of_the_variance_is_told(path, face):
    path.write_bytes(surrey(face))
    imported = read_surrey(path, n_identity=2)
    assert imported.factors["identity_basis"].shape == (16, 3, 2)
    assert imported.summary["identity_variance_kept"] == pytest.approx(2000 / 2025, rel=1e-5)
    assert imported.summary["identity_components_in_file"] == 3
    assert imported.summary["identity_rms_mm"] == pytest.approx((2000 / 16) ** 0.5, rel=1e-5)
    with pytest.raises(ValueError, match="n_identity must be at least 1; got 0"):
        read_surrey(path, n_identity=0)


def test_a_model_in_metres_is_refused_by_its_size(path, face):
    face.mean /= 1e3
    path.write_bytes(surrey(face))
    with pytest.raises(ModelFileError, match="80 to 600 mm long"):
        read_surrey(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda face: surrey(face, version=5), "version: expected 1 to 4; got 5"),
        (lambda face: surrey(face, version=0), "version: expected 1 to 4; got 0"),
        (lambda face: surrey(face) + b"\0", "end of file"),
        (lambda face: surrey(face, uv=UV[:5]), "texture coordinates: expected 16, one per vertex; got 5"),
        (lambda face: surrey(face, version=2, expression={"a": np.zeros((3, 3))}), "blendshapes: expected 48 numbers"),
        (lambda face: surrey(face, version=4, uv=UV, texture_triangles=face.triangles[1:]), "texture triangles"),
    ],
)
def test_what_does_not_fit_is_named(path, face, change, message):
    path.write_bytes(change(face))
    with pytest.raises(ModelFileError, match=message):
        read_surrey(path)


def test_expressions_given_twice_are_refused(path, face):
    path.write_bytes(surrey(face, version=2, expression="pca"))
    beside = path.with_name("blendshapes.bin")
    beside.write_bytes(blendshapes(SHAPES))
    with pytest.raises(ModelFileError, match="a model with its own expressions"):
        read_surrey(path, beside)
