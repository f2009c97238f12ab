"""FaceWarehouse: byte layouts, units, axes and names as the data set has them."""

import struct

import numpy as np
import pytest
import torch

from facerecon_torch.data.facewarehouse.folders import (
    PoseSample,
    blendshape_file,
    find_testers,
    iter_poses,
    pose_files,
    read_depth,
    read_pose,
    save_pose,
)
from facerecon_torch.data.facewarehouse.land import read_land, save_land
from facerecon_torch.data.facewarehouse.names import EXPRESSION_NAMES, LANDMARK_GROUPS, POSE_NAMES
from facerecon_torch.data.facewarehouse.poses import ColourDepth, read_poses, save_poses
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.blendshapes import (
    iter_blendshapes,
    read_blendshape_header,
    read_blendshapes,
    save_blendshapes,
)
from facerecon_torch.formats.quads import QuadMesh, read_quads, save_quads, split_quads


def test_names_have_the_data_sets_order():
    assert len(POSE_NAMES) == len(set(POSE_NAMES)) == 20
    assert len(EXPRESSION_NAMES) == len(set(EXPRESSION_NAMES)) == 47
    known = {0: "Neutral", 1: "EyeBlink_L", 17: "BrowsU_C", 22: "JawOpen", 38: "LipsLowerOpen", 46: "CheekSquint_R"}
    assert {k: EXPRESSION_NAMES[k] for k in known} == known
    assert (POSE_NAMES[1], POSE_NAMES[19]) == ("mouth stretch", "eyes closed")
    assert sorted(row for rows in LANDMARK_GROUPS.values() for row in rows) == list(range(74))


def test_shape_bs_is_three_counts_and_decimetres(tmp_path):
    file = tmp_path / "shape.bs"
    values = np.arange(3 * 4 * 3, dtype="<f4").reshape(3, 4, 3) / 8
    file.write_bytes(struct.pack("<3i", 2, 4, 11540) + values.tobytes())
    header = read_blendshape_header(file)
    assert (header.n_shapes, header.n_vertices, header.n_faces) == (3, 4, 11540)
    shapes = read_blendshapes(file)
    assert torch.equal(shapes, torch.from_numpy(values.astype(np.float64)) * 100)
    assert [torch.equal(a, b) for a, b in zip(iter_blendshapes(file), shapes, strict=True)] == [True] * 3


def test_shape_bs_of_full_size_has_the_known_length(tmp_path):
    file = save_blendshapes(torch.zeros(47, 11510, 3), tmp_path / "shape.bs")
    assert file.stat().st_size == 6_491_652


@pytest.mark.parametrize(
    "counts", [(46, 4, 0), (3, 4, 0), (-1, 4, 0), (2, 0, 0), (2, 4, -1), (2**31 - 1, 2**31 - 1, 0)]
)
def test_shape_bs_with_other_counts_is_refused(counts, tmp_path):
    file = tmp_path / "shape.bs"
    file.write_bytes(struct.pack("<3i", *counts) + bytes(3 * 4 * 12))
    with pytest.raises(DataFileError, match=r"shape\.bs: .*(size|count): expected .*; got "):
        read_blendshapes(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_shape_bs_with_impossible_positions_names_the_shape(value, tmp_path):
    file = tmp_path / "shape.bs"
    values = np.zeros((2, 3, 3), "<f4")
    values[1, 2, 0] = value
    file.write_bytes(struct.pack("<3i", 1, 3, 0) + values.tobytes())
    with pytest.raises(DataFileError, match="shape 1: expected"):
        read_blendshapes(file)


@pytest.mark.parametrize("shapes", [torch.zeros(4, 3), torch.zeros(0, 4, 3), torch.full((1, 2, 3), float("nan"))])
def test_shape_bs_is_not_written_from_other_tensors(shapes, tmp_path):
    with pytest.raises(ValueError, match="shapes must"):
        save_blendshapes(shapes, tmp_path / "shape.bs")
    assert not list(tmp_path.iterdir())


_OBJ = "# face\nv -.87 0 1e-1\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def test_obj_quads_with_normal_zero_are_read_in_mm(tmp_path):
    file = tmp_path / "pose_0.obj"
    file.write_text(_OBJ + "f 1/1/0 2/2/0 3/3/0 4/4/0\n")
    mesh = read_quads(file, n_vertices=4, n_faces=1)
    assert mesh.vertices[0].tolist() == [-87.0, 0.0, 10.0]
    assert mesh.faces.tolist() == mesh.face_uv.tolist() == [[0, 1, 2, 3]]
    assert split_quads(mesh.faces).tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize("face", ["f 1 2 3", "f 1/1 2/2 3/3 4/4", "f 1//1 2//2 3//3", "f 1/1/7 2/2/7 3/3/7 4/4/7"])
def test_obj_reads_every_form_of_corner(face, tmp_path):
    file = tmp_path / "pose_0.obj"
    file.write_bytes((_OBJ + "vn 0 0 1\ns off\n" + face + "\n").replace("\n", "\r\n").encode())
    mesh = read_quads(file)
    assert mesh.faces[0, :3].tolist() == [0, 1, 2]
    assert (mesh.face_uv is None) == ("/" not in face or "//" in face)


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ("f 1/1/0 2/2/0 3/3/0 5/4/0", "vertex indices: expected 1..4; got 1..5"),
        ("f 1/1/0 2/2/0 3/3/0 0/4/0", "vertex indices: expected 1..4; got 0..3"),
        ("f 1/1/0 2/2/0 3/3/0 4/9/0", "texture indices: expected 1..4"),
        ("f 1 2", "line 10: expected a face"),
        ("f 1 2 3\nf 1 2 3 4", "line 11: expected corners in number and form"),
        ("f 1 2 3 -1", "line 10: expected a face"),
        ("v 1 2", "line 10: expected v and 3 numbers"),
        ("v 1 2 nan", "line 10: expected v and 3 numbers"),
        ("v 1 2 1e30\nf 1 2 3", "vertices: expected numbers in"),
        ("hello", "line 10: expected a line of an OBJ file"),
        ("", "faces: expected at least 1; got 0"),
    ],
)
def test_obj_damage_names_the_place(lines, field, tmp_path):
    file = tmp_path / "pose_0.obj"
    file.write_text(_OBJ + lines + "\n")
    with pytest.raises(DataFileError) as caught:
        read_quads(file)
    assert f"{file}: {field}" in str(caught.value)


def test_obj_counts_that_are_known_are_checked(tmp_path):
    file = tmp_path / "pose_0.obj"
    file.write_text(_OBJ + "f 1 2 3 4\n")
    with pytest.raises(DataFileError, match="vertices: expected 11510; got 4"):
        read_quads(file, n_vertices=11510)
    with pytest.raises(DataFileError, match="faces: expected 11400; got 1"):
        read_quads(file, n_faces=11400)


def test_obj_keeps_every_bit_of_any_position(tmp_path, rng):
    vertices = torch.randn(500, 3, generator=rng, dtype=torch.float64) * torch.logspace(-9, 3, 500).double()[:, None]
    faces = torch.tensor([[0, 1, 2, 3]])
    mesh = QuadMesh(vertices=vertices, uv=torch.zeros(0, 2, dtype=torch.float64), faces=faces, face_uv=None)
    assert torch.equal(read_quads(save_quads(mesh, tmp_path / "a.obj")).vertices, vertices)


def test_land_counts_y_from_the_bottom(tmp_path):
    file = tmp_path / "pose_0.land"
    rows = ["0.25 0.75", *["0.5 0.5"] * 73]
    file.write_bytes("\r\n".join(["74", *rows, ""]).encode())
    points = read_land(file)
    assert points[0].tolist() == [160.0, 120.0]
    assert points[1].tolist() == [320.0, 240.0]
    save_land(points, tmp_path / "again.land")
    assert (tmp_path / "again.land").read_bytes().startswith(b"74\r\n0.250000 0.750000\r\n0.500000 0.500000\r\n")


def test_land_keeps_every_bit_of_any_point(tmp_path, rng):
    points = torch.rand(74, 2, generator=rng, dtype=torch.float64) * 480
    assert torch.equal(read_land(save_land(points, tmp_path / "a.land")), points)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda rows: ["73", *rows[1:]], "line 1: expected the count 74"),
        (lambda rows: rows[:-1], "points: expected 74 lines; got 73 lines"),
        (lambda rows: [*rows, "0 0"], "points: expected 74 lines; got 75 lines"),
        (lambda rows: [*rows[:-1], "0.5"], "line 75: expected two numbers"),
        (lambda rows: [*rows[:-1], "0.5 nan"], "line 75: expected two numbers"),
        (lambda rows: [*rows[:-1], "0.5 900"], "points: expected numbers in"),
    ],
)
def test_land_damage_names_the_place(change, field, tmp_path):
    file = tmp_path / "pose_0.land"
    file.write_text("\n".join([*change(["74", *["0.5 0.5"] * 74]), ""]))
    with pytest.raises(DataFileError) as caught:
        read_land(file)
    assert f"{file}: {field}" in str(caught.value)


def test_poses_is_colour_then_depth_then_twelve_zeros(tmp_path):
    file = tmp_path / "pose_0.poses"
    colour = np.arange(480 * 640 * 3, dtype=np.int64).astype(np.uint8).reshape(480, 640, 3)
    depth = (np.arange(480 * 640) % 3000).astype("<u2").reshape(480, 640)
    file.write_bytes(struct.pack("<i", 1) + colour.tobytes() + depth.tobytes() + bytes(12))
    assert file.stat().st_size == 1_536_016
    frame = read_poses(file)
    assert torch.equal((frame.colour * 255).round().byte(), torch.from_numpy(colour).permute(2, 0, 1))
    assert torch.equal(frame.depth, torch.from_numpy(depth.astype(np.float32)))
    assert save_poses(frame, tmp_path / "again.poses").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("at", "field"), [(0, "frame count"), (-1, "tail")])
def test_poses_damage_names_the_field(at, field, tmp_path):
    file = save_poses(ColourDepth(torch.zeros(3, 2, 3), torch.zeros(2, 3)), tmp_path / "pose_0.poses")
    content = bytearray(file.read_bytes())
    content[at] = 2 if at == 0 else 9
    file.write_bytes(content)
    with pytest.raises(DataFileError, match=f"{field}: expected .*; got"):
        read_poses(file, height=2, width=3)


def _sample(rng):
    faces = torch.tensor([[0, 1, 2, 3]])
    vertices = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    mesh = QuadMesh(vertices=vertices, uv=torch.rand(4, 2, generator=rng).double(), faces=faces, face_uv=faces)
    image = torch.randint(256, (3, 6, 8), generator=rng).float() / 255
    return PoseSample(image=image, mesh=mesh, landmarks=torch.rand(74, 2, generator=rng, dtype=torch.float64) * 6)


@pytest.fixture
def folder(tmp_path, rng):
    tester = tmp_path / "FaceWarehouse_Data_0" / "Tester_10"
    sample = _sample(rng)
    for pose in (0, 3):
        save_pose(sample, pose_files(tester, pose), depth=torch.full((6, 8), 700.0))
    save_blendshapes(torch.zeros(2, 4, 3), blendshape_file(tester))
    save_pose(sample, pose_files(tester.with_name("Tester_9"), 1))
    return tmp_path, sample


def test_folders_are_walked_by_number_and_read_back(folder):
    root, sample = folder
    assert [(f.tester, f.pose) for f in iter_poses(root)] == [(9, 1), (10, 0), (10, 3)]
    assert [number for number, _ in find_testers(root / "FaceWarehouse_Data_0")] == [9, 10]
    files = list(iter_poses(root))[-1]
    got = read_pose(files)
    assert torch.equal(got.image, sample.image)
    assert torch.equal(got.landmarks, sample.landmarks)
    assert torch.equal(got.mesh.vertices, sample.mesh.vertices)
    assert torch.equal(read_depth(files).depth, torch.full((6, 8), 700.0))


def test_a_missing_partner_is_named(folder):
    root, _ = folder
    pose_files(root / "FaceWarehouse_Data_0" / "Tester_10", 3).land.unlink()
    with pytest.raises(DataFileError, match=r"Tester_10.*pose_3\.land: partner file: expected .*; got nothing"):
        list(iter_poses(root))


def test_a_mesh_of_another_vertex_count_is_refused(folder):
    root, _ = folder
    save_blendshapes(torch.zeros(2, 5, 3), blendshape_file(root / "FaceWarehouse_Data_0" / "Tester_10"))
    with pytest.raises(DataFileError, match=r"pose_0\.obj: vertices: expected 5; got 4"):
        read_pose(pose_files(root / "FaceWarehouse_Data_0" / "Tester_10", 0))


def test_another_folder_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataFileError, match=r"expected Tester_1 \.\. 150.*; got holiday"):
        find_testers(tmp_path)
    with pytest.raises(DataFileError, match="got no folder"):
        find_testers(tmp_path / "nothing")
