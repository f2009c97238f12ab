"""A template and its modes, from folders and .npz files, with units, texture coordinates and names."""

import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.template_mesh import read_template_mesh
from tests.model.importers.writers_linear import QUADS, SIDE, obj_text, small_face

UV = np.stack([np.arange(SIDE * SIDE) / 16, np.arange(SIDE * SIDE) / 32], axis=1)


@pytest.fixture
def face():
    return small_face()


@pytest.fixture
def folder(tmp_path, face):
    """A template of quads and three modes beside it, in cm."""
    (tmp_path / "template.obj").write_text(obj_text(face.mean / 10, QUADS, UV), encoding="ascii")
    for name, offsets in _offsets(face).items():
        (tmp_path / f"{name}.obj").write_text(obj_text((face.mean + offsets) / 10, QUADS), encoding="ascii")
    return tmp_path


def _offsets(face):
    shapes = {
        "identity000": face.identity[..., 0],
        "identity001": face.identity[..., 1],
        "jawOpen": face.expression[..., 0],
    }
    return {name: 40 * offsets for name, offsets in shapes.items()}


def close(got, want, tolerance=1e-4):
    torch.testing.assert_close(got.double(), torch.as_tensor(want).double(), rtol=0, atol=tolerance)


def test_meshes_in_a_folder_are_modes(folder, face):
    imported = read_template_mesh(folder / "template.obj", folder, unit="cm")
    offsets = _offsets(face)
    model = imported.make_model(None)
    got = model.vertices(torch.tensor([0.5, -1.0]), torch.tensor([0.25]))
    want = face.mean - face.mean.mean(axis=0) + 0.5 * offsets["identity000"] - offsets["identity001"]
    close(got, want + 0.25 * offsets["jawOpen"])
    assert imported.expression_names == ("neutral", "jawOpen")
    assert imported.factors["expression_rows"].tolist() == [[0], [1]]
    assert imported.factors["expression_variance"].tolist() == pytest.approx([1 / 3])
    close(imported.uv, UV, 1e-6)
    assert imported.summary["polygons"] == len(QUADS)
    assert len(imported.triangles) == 2 * len(QUADS)


def test_a_mirrored_winding_is_turned(folder, face):
    (folder / "template.obj").write_text(obj_text(face.mean / 10, [q[::-1] for q in QUADS]), encoding="ascii")
    turned = read_template_mesh(folder / "template.obj", folder, unit="cm")
    assert turned.summary["triangles_turned"] is True
    corners = turned.make_model(None).mean[turned.triangles]
    sides = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert bool((sides[:, 2] > 0).all())


def test_ply_templates_and_npz_modes(tmp_path, face):
    from facerecon_torch.export.meshes import save_ply
    from facerecon_torch.structures import Mesh

    vertices = torch.from_numpy(face.mean).float()
    save_ply(Mesh(vertices=vertices, triangles=torch.from_numpy(face.triangles), uv=None), tmp_path / "t.ply")
    np.savez(
        tmp_path / "modes.npz",
        identity=np.moveaxis(face.identity, -1, 0),
        identity_variance=face.identity_sd**2,
        expression=np.moveaxis(face.expression, -1, 0),
        expression_names=np.array(["smile", "frown"]),
    )
    imported = read_template_mesh(tmp_path / "t.ply", tmp_path / "modes.npz", n_identity=2)
    close(imported.factors["identity_basis"], face.identity[..., :2])
    close(imported.factors["identity_variance"], face.identity_sd[:2] ** 2)
    assert imported.expression_names == ("neutral", "smile", "frown")
    assert imported.uv is None


def test_a_wrong_unit_is_refused_by_the_size_of_the_face(folder):
    with pytest.raises(ModelFileError, match=r"80 to 600 mm long; got 20 mm"):
        read_template_mesh(folder / "template.obj", folder, unit="mm")
    with pytest.raises(ValueError, match="unit must be one of um, mm, cm, dm, m; got 'inch'"):
        read_template_mesh(folder / "template.obj", folder, unit="inch")


def test_modes_of_another_mesh_and_missing_modes_are_named(folder, face):
    (folder / "smile.obj").write_text(obj_text(face.mean[:9], [(0, 1, 2)]), encoding="ascii")
    with pytest.raises(ModelFileError, match=r"smile.obj: vertices: expected 16 as in template.obj; got 9"):
        read_template_mesh(folder / "template.obj", folder, unit="cm")
    for path in folder.glob("identity*"):
        path.unlink()
    (folder / "smile.obj").unlink()
    with pytest.raises(ModelFileError, match="modes: expected meshes named identity"):
        read_template_mesh(folder / "template.obj", folder, unit="cm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": np.zeros((2, 15, 3))}, r"identity: expected floats of shape \[n, 16, 3\]"),
        ({"identity_variance": np.ones(3)}, r"identity_variance: expected shape \(2,\)"),
        ({"identity_variance": np.zeros(2)}, "expected at least one component with variance; got 2 without"),
        ({"identity_variance": -np.ones(2)}, "identity variance: expected no negative number; got -1"),
        ({"expression_names": np.array(["a", "a"])}, "expression_names must be 3 different names"),
        ({"expression_names": np.array(["a"])}, "expression_names: expected 2 names; got 1"),
        ({"expression": np.full((2, 16, 3), np.nan)}, "expression: expected finite numbers"),
    ],
)
def test_npz_modes_that_do_not_fit_are_named(folder, changes, message):
    arrays = {"identity": np.ones((2, 16, 3)), "expression": np.ones((2, 16, 3)), **changes}
    np.savez(folder / "modes.npz", **arrays)
    with pytest.raises(ModelFileError, match=message):
        read_template_mesh(folder / "template.obj", folder / "modes.npz", unit="cm")
