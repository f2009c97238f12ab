"""FaceWarehouse: byte layouts, units, axes and names as the data set has them."""

import struct

import numpy as np
import pytest
import torch

from facerecon_torch.data.facewarehouse.landmarks74 import read_land, save_land
from facerecon_torch.data.facewarehouse.recordings import POSE_NAMES, PoseSample, pose_files, save_pose
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.facewarehouse import (
    EXPRESSION_NAMES,
    QuadMesh,
    find_testers,
    iter_blendshapes,
    read_blendshape_header,
    read_blendshapes,
    save_blendshapes,
    save_quads,
)
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from tests.data.depth_frame import read_poses


def test_names_have_the_data_sets_order():
    assert len(POSE_NAMES) == len(set(POSE_NAMES)) == 20
    assert len(EXPRESSION_NAMES) == len(set(EXPRESSION_NAMES)) == 47
    known = {0: "Neutral", 1: "EyeBlink_L", 17: "BrowsU_C", 22: "JawOpen", 38: "LipsLowerOpen", 46: "CheekSquint_R"}
    assert {k: EXPRESSION_NAMES[k] for k in known} == known
    assert (POSE_NAMES[1], POSE_NAMES[19]) == ("mouth stretch", "eyes closed")


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
    mesh = read_polygon_mesh(file, n_vertices=4, exponent=2)
    assert mesh.vertices[0].tolist() == [-87.0, 0.0, 10.0]
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_obj_with_another_number_of_vertices_is_refused(tmp_path):
    file = tmp_path / "pose_0.obj"
    file.write_text(_OBJ + "f 1 2 3 4\n")
    with pytest.raises(DataFileError, match="vertices: expected 11510; got 4"):
        read_polygon_mesh(file, n_vertices=11510)


def test_obj_keeps_every_bit_of_any_position(tmp_path, rng):
    vertices = torch.randn(500, 3, generator=rng, dtype=torch.float64) * torch.logspace(-9, 3, 500).double()[:, None]
    faces = torch.tensor([[0, 1, 2, 3]])
    mesh = QuadMesh(vertices=vertices, uv=torch.zeros(0, 2, dtype=torch.float64), faces=faces, face_uv=None)
    assert torch.equal(read_polygon_mesh(save_quads(mesh, tmp_path / "a.obj"), exponent=2).vertices, vertices)


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


def _sample(rng):
    faces = torch.tensor([[0, 1, 2, 3]])
    vertices = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    mesh = QuadMesh(vertices=vertices, uv=torch.rand(4, 2, generator=rng).double(), faces=faces, face_uv=faces)
    image = torch.randint(256, (3, 6, 8), generator=rng).float() / 255
    return PoseSample(image=image, mesh=mesh, landmarks=torch.rand(74, 2, generator=rng, dtype=torch.float64) * 6)


def test_the_files_of_a_pose_hold_the_sample(tmp_path, rng):
    sample, files = _sample(rng), pose_files(tmp_path / "FaceWarehouse_Data_0" / "Tester_10", 3)
    save_pose(sample, files)
    assert not files.poses.exists()
    depth = torch.randint(3000, (6, 8), generator=rng).float()
    save_pose(sample, files, depth=depth + 0.25)
    colour, stored = read_poses(files.poses, height=6, width=8)
    assert torch.equal(colour, sample.image)
    assert torch.equal(stored, depth)
    assert torch.equal(read_land(files.land, height=6, width=8), sample.landmarks)
    assert torch.equal(read_polygon_mesh(files.obj, exponent=2).vertices, sample.mesh.vertices)


@pytest.mark.parametrize("depth", [torch.full((6, 8), -1.0), torch.full((6, 8), 7e4), torch.full((6, 8), torch.nan)])
def test_impossible_depths_are_not_written(depth, tmp_path, rng):
    files = pose_files(tmp_path / "Tester_1", 0)
    with pytest.raises(ValueError, match="depth must"):
        save_pose(_sample(rng), files, depth=depth)
    assert not files.poses.exists()


def test_people_are_found_by_number(tmp_path):
    for name in ("FaceWarehouse_Data_0/Tester_10", "FaceWarehouse_Data_0/Tester_9", "FaceWarehouse_Data_1/Tester_2"):
        (tmp_path / name).mkdir(parents=True)
    assert [number for number, _ in find_testers(tmp_path)] == [2, 9, 10]
    assert [number for number, _ in find_testers(tmp_path / "FaceWarehouse_Data_0")] == [9, 10]


def test_another_folder_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataFileError, match=r"expected Tester_1 \.\. 150.*; got holiday"):
        find_testers(tmp_path)
    with pytest.raises(DataFileError, match="got no folder"):
        find_testers(tmp_path / "nothing")
