"""ICT-FaceKit: a folder of OBJ files in cm, and the regions that are first parts of its vertices."""

import numpy as np
import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.template_mesh import REGIONS, read_ict
from tests.model.importers.writers_linear import QUADS, obj_text, small_face


@pytest.fixture
def kit(tmp_path):
    """FaceXModel of one identity mode and two expressions; (its parent folder, the face)."""
    face = small_face()
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    shapes = {
        "generic_neutral_mesh": 0 * face.mean,
        "identity000": 40 * face.identity[..., 0],
        "browDown_L": 30 * face.expression[..., 0],
        "jawOpen": 30 * face.expression[..., 1],
    }
    uv = np.stack([np.arange(16) / 16, np.arange(16) / 32], axis=1)
    for name, offsets in shapes.items():
        (folder / f"{name}.obj").write_text(obj_text((face.mean + offsets) / 10, QUADS, uv), encoding="ascii")
    return tmp_path, face


def test_the_whole_mesh_with_expressions_by_name(kit):
    folder, face = kit
    imported = read_ict(folder, region="whole")
    assert imported.expression_names == ("neutral", "browDown_L", "jawOpen")
    assert imported.topology_name == "ict_26719"
    shape = imported.make_model(None).vertices(torch.tensor([1.0]), torch.tensor([0.0, 0.5]))
    want = face.mean - face.mean.mean(axis=0) + 40 * face.identity[..., 0] + 15 * face.expression[..., 1]
    torch.testing.assert_close(shape.double(), torch.from_numpy(want), rtol=0, atol=1e-4)


def test_a_region_is_a_first_part_with_the_triangles_inside(kit, monkeypatch):
    folder, face = kit
    monkeypatch.setitem(REGIONS, "narrow", 12)
    imported = read_ict(folder / "FaceXModel", region="narrow")
    want = torch.from_numpy(face.mean[:12] - face.mean[:12].mean(axis=0)).float()
    torch.testing.assert_close(imported.factors["mean"], want, rtol=0, atol=1e-4)
    assert len(imported.triangles) == 2 * sum(max(quad) < 12 for quad in QUADS)
    assert imported.uv.shape == (12, 2)


def test_what_is_missing_is_named(kit):
    folder, _ = kit
    with pytest.raises(ModelFileError, match="vertices: expected at least 9409 for the region 'face'; got 16"):
        read_ict(folder)
    with pytest.raises(ValueError, match="region must be one of face, narrow, whole; got 'ears'"):
        read_ict(folder, region="ears")
    with pytest.raises(ModelFileError, match=r"generic_neutral_mesh.obj: file: expected an existing file; got nothing"):
        read_ict(folder / "elsewhere")
