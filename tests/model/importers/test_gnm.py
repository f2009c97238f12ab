"""GNM Head v3 on made-up files with the documented arrays; the real file was not at hand."""

import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.gnm import read_gnm
from tests.model.importers.writers_basel_gnm import N_OTHERS, OLD_NAMES, gnm_arrays, write_gnm
from tests.model.importers.writers_linear import small_face


@pytest.fixture
def face():
    return small_face()


@pytest.mark.parametrize("old", [False, True], ids=["names", "older names"])
def test_the_skin_is_read_in_mm_with_the_components_that_move_it(tmp_path, face, old):
    names = {key: np.array(value) for key, value in OLD_NAMES.items()} if old else {}
    imported = read_gnm(write_gnm(tmp_path / "gnm_head.npz", face, **names))
    kept = len(face.mean) - 1  # skin_exterior lacks the last vertex of skin
    assert imported.tables["vertices_of_head"].tolist() == list(range(kept))
    alpha, beta = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 2.0])
    shape = imported.make_model(None).vertices(torch.tensor(alpha).float(), torch.tensor(beta).float())
    want = torch.as_tensor((face.shape(alpha, beta) - face.mean[:kept].mean(axis=0))[:kept])
    torch.testing.assert_close(shape.double(), want, rtol=0, atol=2e-4)
    assert (imported.topology_name, imported.summary["unit"]) == (f"gnm_{len(face.mean) + N_OTHERS}", "metres")
    assert torch.equal(imported.factors["identity_variance"], torch.ones(3))
    assert torch.equal(imported.factors["expression_variance"], torch.ones(2))


def test_the_whole_head_has_all_vertices_and_components(tmp_path, face):
    imported = read_gnm(write_gnm(tmp_path / "gnm_head.npz", face), region="all", n_identity=4)
    assert imported.n_vertices == len(face.mean) + N_OTHERS
    assert imported.factors["identity_basis"].shape[-1] == 4
    assert imported.factors["expression_basis"].shape[-1] == 4
    assert imported.tables == {}


def test_seams_of_the_texture_are_kept(tmp_path, face):
    arrays = gnm_arrays(face)
    imported = read_gnm(write_gnm(tmp_path / "gnm_head.npz", face))
    skin = (arrays["triangles"] < len(face.mean) - 1).all(axis=1)
    assert imported.summary["uv_seam_vertices"] > 0
    assert np.array_equal(imported.corner_uv.numpy(), arrays["triangle_uvs"][skin])


def test_centimetres_are_told_from_metres_by_the_height(tmp_path, face):
    metres = read_gnm(write_gnm(tmp_path / "a.npz", face))
    np.savez(tmp_path / "b.npz", **gnm_arrays(face, unit_mm=10.0))
    centimetres = read_gnm(tmp_path / "b.npz")
    assert centimetres.summary["unit"] == "centimetres"
    torch.testing.assert_close(centimetres.mean_vertices(), metres.mean_vertices(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quads": None}, r"arrays: expected the 21 of a GNM head; got missing \['quads'\], unknown \[\]"),
        ({"hair": np.ones(3)}, r"unknown \['hair'\]"),
        ({"version": np.array("2.0")}, r"version: expected '3.0'; got '2.0'"),
        ({"variant": np.array(["head", "body"])}, "variant: expected 'head'"),
        ({"template_vertex_positions": np.full((19, 3), np.nan)}, "template_vertex_positions: expected finite numbers"),
        ({"expression_basis": np.zeros((4, 18, 3))}, r"expression_basis: expected numbers of shape \[any, 19, 3\]"),
        ({"triangles": np.array([[0, 1, 19]])}, r"triangles: expected vertices in 0..18; got 0 to 19"),
        ({"triangle_uvs": np.zeros((2, 3, 2))}, r"triangle_uvs: expected numbers of shape"),
        ({"identity_names": np.array(["head_000"])}, r"identity_names: expected 5 names; got <U8 \(1,\)"),
        ({"identity_names": np.array(["hand_000"] * 5)}, "identity_names: expected names that begin with one of head_"),
        ({"vertex_group_names": np.array(["a", "b", "c"])}, "vertex_group_names: expected skin_exterior or skin; got"),
        ({"vertex_groups": np.zeros((3, 19))}, "vertex group skin_exterior: expected at least one vertex; got none"),
        (
            {"template_vertex_positions": np.eye(19, 3)},
            r"height of the template: expected 0.15 to 0.4 .metres. .* got 1",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, face, changes, message):
    write_gnm(tmp_path / "gnm_head.npz", face, **changes)
    with pytest.raises(ModelFileError, match=message):
        read_gnm(tmp_path / "gnm_head.npz")


def test_arrays_that_older_files_lack_are_not_needed(tmp_path, face):
    lacking = dict.fromkeys(("pose_correctives_regressor", "bone_aligned_template_joint_orientations"))
    assert read_gnm(write_gnm(tmp_path / "gnm_head.npz", face, **lacking)).n_vertices == len(face.mean) - 1


def test_an_unknown_region_is_a_wrong_call(tmp_path):
    with pytest.raises(ValueError, match="region must be one of skin, all; got 'teeth'"):
        read_gnm(tmp_path / "gnm_head.npz", region="teeth")
