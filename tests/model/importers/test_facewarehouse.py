"""FaceWarehouse's folders as a bilinear model: the faces come back, aligned and centred; damage names the file."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.data.facewarehouse.folders import blendshape_file
from facerecon_torch.errors import ModelFileError
from facerecon_torch.formats.blendshapes import read_blendshapes, save_blendshapes
from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.model.importers.building import BuildSpec, align_people, front_half
from facerecon_torch.model.importers.facewarehouse import read_facewarehouse
from facerecon_torch.synthetic.layouts.facewarehouse import LAYOUT
from facerecon_torch.synthetic.layouts.spec import LayoutSpec
from tests.model.importers import small_faces


@pytest.fixture
def shapes():
    return small_faces.moved(small_faces.faces())


@pytest.fixture
def folder(tmp_path, shapes):
    return small_faces.write_testers(tmp_path / "FaceWarehouse_Data_0", shapes)


def test_full_ranks_give_every_face_back_but_for_its_pose(folder, shapes):
    model = read_facewarehouse(folder.parent)
    rebuilt = small_faces.bilinear_shapes(model)
    assert rebuilt.shape == shapes.shape
    # one rigid motion per person takes all expressions back
    back = align_rigid(rebuilt.flatten(1, 2), shapes.flatten(1, 2))
    assert_close(back.apply(rebuilt.flatten(1, 2)), shapes.flatten(1, 2), rtol=0, atol=2e-3)
    assert_close(rebuilt.mean(dim=(0, 1, 2)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-3)
    assert model.summary["rmse_mm"] < 1e-3
    assert model.summary["variance_kept"] == pytest.approx(1.0, abs=1e-9)


def test_people_stand_on_each_other(folder, shapes):
    rebuilt = small_faces.bilinear_shapes(read_facewarehouse(folder))
    face = front_half(shapes[:, 0].mean(dim=0))
    for person in rebuilt[1:, 0]:  # what is left between two neutral faces is not a rigid motion
        rest = align_rigid(person[face], rebuilt[0, 0][face])
        assert float(rest.translation.norm()) < 3
        assert float((rest.rotation - torch.eye(3, dtype=torch.float64)).norm()) < 0.05


def test_mesh_names_and_counts(folder):
    model = read_facewarehouse(folder)
    assert (model.kind, model.topology_name) == ("bilinear", f"facewarehouse_{small_faces.N_VERTICES}")
    assert torch.equal(model.triangles, small_faces.triangles())
    assert_close(model.uv.double(), small_faces.grid()[0][:, :2] / 400 + 0.5, rtol=0, atol=1e-6)
    assert model.expression_names == ("neutral", "expression_1", "expression_2", "expression_3")
    known = {"vertices": 42, "people": 5, "expressions": 4, "identity_rank": 5, "expression_rank": 4}
    assert {key: model.summary[key] for key in known} == known
    assert (model.summary["mm_per_unit"], model.summary["left_out"]) == (100.0, [])
    assert model.summary["missing"] == [f"Tester_{k}" for k in range(6, 151)]
    made = model.make_model(None)
    assert_close(made.identity_mean, model.factors["identity_rows"].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_truncated_ranks_state_their_error(folder, shapes, tmp_path):
    model = read_facewarehouse(folder, spec=BuildSpec(identity_rank=3, expression_rank=2, scratch=tmp_path))
    whole = small_faces.bilinear_shapes(read_facewarehouse(folder))
    error = (small_faces.bilinear_shapes(model) - whole).square().sum(dim=-1).mean().sqrt()
    assert model.summary["rmse_mm"] == pytest.approx(float(error), rel=1e-3)
    spread = (whole - whole.mean(dim=(0, 1))).square().sum(dim=-1).mean()
    assert model.summary["variance_kept"] == pytest.approx(1 - float(error.square() / spread), rel=1e-3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["FaceWarehouse_Data_0"]  # the scratch file is gone


def test_people_left_out_have_no_part_in_it(folder, shapes, tmp_path):
    model = read_facewarehouse(folder, leave_out=["Tester_2", "Tester_4"])
    alone = read_facewarehouse(small_faces.write_testers(tmp_path / "alone", shapes[[0, 2, 4]]))
    assert torch.equal(model.factors["core"], alone.factors["core"])
    assert model.summary["left_out"] == ["Tester_2", "Tester_4"]
    assert "Tester_2" not in model.summary["missing"]
    with pytest.raises(ModelFileError, match=r"leave_out: expected people of this folder .*Tester_9"):
        read_facewarehouse(folder, leave_out=["Tester_9"])
    with pytest.raises(ModelFileError, match="people: expected at least one"):
        read_facewarehouse(folder, leave_out=[f"Tester_{k}" for k in range(1, 6)])


def test_a_person_without_blendshapes_is_missing(folder):
    (folder / "Tester_3" / "Blendshape" / "shape.bs").unlink()
    model = read_facewarehouse(folder)
    assert model.summary["people"] == 4
    assert model.summary["missing"][0] == "Tester_3"


def test_one_person_is_enough(tmp_path, shapes):
    model = read_facewarehouse(small_faces.write_testers(tmp_path, shapes[:1]))
    assert model.factors["core"].shape == (small_faces.N_VERTICES, 3, 1, 4)


def test_other_counts_name_the_file(folder, shapes):
    file = folder / "Tester_4" / "Blendshape" / "shape.bs"
    save_blendshapes(shapes[3][:, :-1], file)
    with pytest.raises(ModelFileError, match=rf"{file}: vertex count: expected 42 as in .*Tester_1.*; got 41"):
        read_facewarehouse(folder)
    save_blendshapes(shapes[3][:-1], file)
    with pytest.raises(ModelFileError, match=rf"{file}: shape count: expected 4 as in .*; got 3"):
        read_facewarehouse(folder)


def test_damage_names_the_file(folder, shapes):
    file = folder / "Tester_2" / "Blendshape" / "shape.bs"
    whole = file.read_bytes()
    for length in (0, 5, 12, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=f"{file}: .*expected .*; got "):
            read_facewarehouse(folder)
    file.write_bytes(whole[:500] + b"\x00\x00\xc0\x7f" + whole[504:])
    with pytest.raises(ModelFileError, match=f"{file}: shape 0: expected"):
        read_facewarehouse(folder)


def test_faces_come_from_the_first_mesh_that_is_there(tmp_path, shapes):
    folder = small_faces.write_testers(tmp_path, shapes, with_mesh=False)
    with pytest.raises(ModelFileError, match=r"triangles: expected a Tester_\*/Blendshape/shape_0.obj"):
        read_facewarehouse(folder)
    mesh = small_faces.write_mesh(folder / "Tester_3" / "Blendshape" / "shape_0.obj")
    assert torch.equal(read_facewarehouse(folder).triangles, small_faces.triangles())
    mesh.write_text(mesh.read_text().replace("v ", "v 0 0 0\nv ", 1))
    with pytest.raises(ModelFileError, match=f"{mesh}: vertices: expected 42 as in shape.bs; got 43"):
        read_facewarehouse(folder)


def test_another_unit_is_told_by_the_size_of_the_face(tmp_path, shapes):
    folder = small_faces.write_testers(tmp_path, shapes / 10)
    with pytest.raises(ModelFileError, match="the mean face must be 80 to 600 mm long; got 2"):
        read_facewarehouse(folder)


def test_alignment_on_chosen_vertices(folder, shapes):
    model = read_facewarehouse(folder, face_vertices=torch.arange(12))
    assert model.summary["alignment_vertices"] == 12
    for vertices in (torch.arange(2), torch.tensor([0, 1, 42]), torch.tensor([0.0, 1.0, 2.0])):
        with pytest.raises(ValueError, match="face_vertices must"):
            read_facewarehouse(folder, face_vertices=vertices)


def test_no_people_and_ranks_of_zero(tmp_path):
    with pytest.raises(ModelFileError, match=r"folder: expected Tester_1"):
        read_facewarehouse(tmp_path)
    with pytest.raises(ValueError, match="ranks must be at least 1; got 0, 3"):
        BuildSpec(identity_rank=0, expression_rank=3)


def test_alignment_undoes_rigid_motions_only():
    mean = small_faces.faces(1, 1)[0, 0]
    people = torch.stack([mean, 1.1 * mean])[:, None].repeat(3, 1, 1, 1)
    turned = small_faces.moved(people)[:, 0]
    moves = align_people(turned, torch.arange(len(mean)))
    aligned = moves.apply(turned)
    assert_close(aligned[0], aligned[2], rtol=0, atol=1e-3)
    assert_close(aligned[1], 1.1 * aligned[0] - 0.1 * aligned[0].mean(dim=0), rtol=0, atol=1e-3)


def test_synthetic_set_in_the_layout_gives_a_model_on_its_mesh(tmp_path):
    spec = LayoutSpec(layout="facewarehouse", subjects=2, samples=1)
    for unit in LAYOUT.units(spec):
        LAYOUT.write(spec, unit, tmp_path)
    imported = read_facewarehouse(tmp_path, spec=BuildSpec(expression_rank=47))
    topology = load_topology()
    model = imported.make_model(topology)  # the mesh of the default face, triangle by triangle
    assert_close(imported.uv, topology.uv, rtol=0, atol=1e-5)
    assert imported.expression_names[:2] == ("neutral", "EyeBlink_L")
    for k, unit in enumerate(LAYOUT.units(spec)):
        truth = read_blendshapes(blendshape_file(tmp_path / "FaceWarehouse_Data_0" / unit))[[0, 22, 46]]
        faces = model.vertices(model.identity_rows[k], model.expression_rows[[0, 22, 46]]).double()
        moved = align_rigid(faces.flatten(0, 1), truth.flatten(0, 1)).apply(faces.flatten(0, 1))
        assert_close(moved, truth.flatten(0, 1), rtol=0, atol=5e-3)
