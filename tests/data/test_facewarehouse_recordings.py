"""FaceWarehouse as recordings: small folders in the data set's layout, whole and with parts missing."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from facerecon_torch.data.facewarehouse import recordings as facewarehouse
from facerecon_torch.data.facewarehouse.landmarks74 import from_ibug68
from facerecon_torch.data.facewarehouse.photo_pose import PinholePose, solve_pinhole
from facerecon_torch.data.facewarehouse.recordings import PoseSample, pose_files, save_pose
from facerecon_torch.data.recordings import RecordingSource
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.facewarehouse import QuadMesh, blendshape_file, save_blendshapes
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.model.topology import known_landmarks

_HEIGHT, _WIDTH = 48, 64
_SEEN = PinholePose(
    euler_to_matrix(*torch.tensor([0.2, -0.1, 0.05], dtype=torch.float64).unbind()),
    torch.tensor([8.0, -12.0, -520.0], dtype=torch.float64),
    facewarehouse.FOCAL_SHARE * _WIDTH,
    torch.tensor([(_WIDTH - 1) / 2, (_HEIGHT - 1) / 2], dtype=torch.float64),
)


def _face():
    vertices = load_source().mean[: load_topology().n_vertices].double()
    return (vertices * 100).round() / 100


def _mesh(vertices):
    corners = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return QuadMesh(vertices=vertices, uv=torch.zeros(0, 2, dtype=torch.float64), faces=corners, face_uv=None)


def _write(folder, pose=0, vertices=None):
    face = _face()
    marks = from_ibug68(from_paper66(_SEEN.project(face[load_topology().landmark_vertices])))
    image = torch.full((3, _HEIGHT, _WIDTH), 0.2)
    sample = PoseSample(image=image, mesh=_mesh(face if vertices is None else vertices), landmarks=marks)
    save_pose(sample, pose_files(folder, pose))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("facewarehouse")
    data = root / "FaceWarehouse_Data_0"
    _write(data / "Tester_1", pose=2)
    for tester, pose in ((1, 19), (10, 2)):
        files, first = pose_files(data / f"Tester_{tester}", pose), pose_files(data / "Tester_1", 2)
        files.obj.parent.mkdir(parents=True, exist_ok=True)
        for name in ("obj", "png", "land"):
            shutil.copy(getattr(first, name), getattr(files, name))
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "data")


def test_the_module_is_a_source_of_recordings():
    assert isinstance(facewarehouse, RecordingSource)
    assert len(facewarehouse.KINDS) == 20
    assert {"neutral", "mouth_stretch", "eyes_closed"} < set(facewarehouse.DEFAULT_KINDS)


def test_poses_are_listed_by_name_and_what_is_missing_is_said(root, caplog):
    (root / "FaceWarehouse_Data_0" / "Tester_4").mkdir()
    with caplog.at_level(logging.WARNING):
        found = facewarehouse.list_recordings(root)
    assert [one.name for one in found] == ["Tester_001_pose_02", "Tester_001_pose_19", "Tester_010_pose_02"]
    assert [(one.subject, one.kind, one.code) for one in found[1:]] == [
        ("Tester_1", "eyes_closed", "pose_19"),
        ("Tester_10", "smile", "pose_2"),
    ]
    assert "Tester_4 has none" in caplog.text
    assert "Tester_10 lacks 0, 1, 3, " in caplog.text


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "BosphorusDB").mkdir()
    with pytest.raises(DataFileError, match=r"expected Tester_1 \.\. 150, .*; got BosphorusDB"):
        facewarehouse.list_recordings(tmp_path)
    (tmp_path / "Tester_3" / "Blendshape").mkdir(parents=True)
    with pytest.raises(DataFileError, match=r"expected TrainingPose/pose_0 .*; got Tester_3 has none"):
        facewarehouse.list_recordings(tmp_path)


def test_mesh_landmarks_and_places_in_the_photograph(root):
    scan = facewarehouse.read_recording(facewarehouse.list_recordings(root)[0])
    face, rows = _face(), load_topology().landmark_vertices
    assert torch.equal(scan.points, face)
    assert scan.surface.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert scan.image.shape == (3, _HEIGHT, _WIDTH)
    assert torch.equal(scan.labelled, face[rows])
    torch.testing.assert_close(scan.pixels, _SEEN.project(face), rtol=0, atol=1e-6)


def test_the_data_sets_own_topology_has_the_vertices_of_its_list(tmp_path, rng):
    vertices = torch.randint(-90000, 90000, (11510, 3), generator=rng).double() / 1000
    known = known_landmarks("facewarehouse_11510", 11510)
    rows = [known[point] for point in (*range(17, 60), 61, 62, 63, 65, 66, 67, *range(17))]
    vertices[rows] = _face()[load_topology().landmark_vertices]
    _write(tmp_path / "Tester_1", vertices=vertices)
    scan = facewarehouse.read_recording(facewarehouse.list_recordings(tmp_path)[0])
    torch.testing.assert_close(scan.labelled[:49], vertices[rows][:49], rtol=0, atol=1e-9)
    torch.testing.assert_close(scan.pixels, _SEEN.project(vertices), rtol=0, atol=1e-6)


def test_a_mesh_of_another_topology_has_no_landmarks(tmp_path):
    _write(tmp_path / "Tester_1", vertices=_face()[:100])
    scan = facewarehouse.read_recording(facewarehouse.list_recordings(tmp_path)[0])
    assert scan.points.shape == (100, 3)
    assert bool(torch.isnan(scan.labelled).all() & torch.isnan(scan.pixels).all())


@pytest.mark.parametrize("suffix", ["obj", "png", "land"])
def test_a_missing_partner_is_named_when_the_pose_is_read(suffix, root):
    (root / "FaceWarehouse_Data_0" / "Tester_1" / "TrainingPose" / f"pose_2.{suffix}").unlink()
    recording = facewarehouse.list_recordings(root)[0]
    assert recording.name == "Tester_001_pose_02"
    with pytest.raises(DataFileError, match=rf"pose_2\.{suffix}: .*expected .*; got nothing"):
        facewarehouse.read_recording(recording)


def test_a_mesh_that_the_blendshapes_do_not_share_is_refused(root):
    shapes = blendshape_file(root / "FaceWarehouse_Data_0" / "Tester_1")
    save_blendshapes(torch.zeros(2, 7, 3), shapes)
    with pytest.raises(DataFileError, match=r"pose_2\.obj: .*expected 7; got 3960"):
        facewarehouse.read_recording(facewarehouse.list_recordings(root)[0])


@pytest.mark.parametrize("spread", [0.0, 0.5, 0.9])
def test_points_that_no_camera_gives_are_refused(spread, root, rng):
    recording = facewarehouse.list_recordings(root)[0]
    noise = 0.5 + spread * (torch.rand(74, 2, generator=rng) - 0.5)
    lines = ["74", *(f"{x:.6f} {y:.6f}" for x, y in noise.tolist()), ""]
    recording.files[1].write_text("\r\n".join(lines), newline="")
    with pytest.raises(DataFileError, match=r"pose_2\.land: points: expected .*; got "):
        facewarehouse.read_recording(recording)


def test_one_point_far_off_hardly_moves_the_pose():
    points = _face()[load_topology().landmark_vertices]
    pixels = _SEEN.project(points)
    wrong = pixels.clone()
    wrong[5] += 20
    pose = solve_pinhole(points, wrong, focal=_SEEN.focal, height=_HEIGHT, width=_WIDTH)
    assert float((pose.project(points) - pixels).abs().max()) < 1.0
    exact = solve_pinhole(points, pixels, focal=_SEEN.focal, height=_HEIGHT, width=_WIDTH)
    torch.testing.assert_close(exact.translation, _SEEN.translation, rtol=0, atol=1e-6)


def test_points_that_fix_no_pose_are_refused():
    with pytest.raises(ValueError, match="at least 4 points"):
        solve_pinhole(torch.zeros(6, 3), torch.zeros(6, 2), focal=50, height=48, width=64)
    with pytest.raises(ValueError, match="at least 4 points"):
        solve_pinhole(torch.rand(3, 3), torch.rand(3, 2), focal=50, height=48, width=64)


def test_a_path_of_text_is_enough(root):
    assert facewarehouse.list_recordings(str(root))[0].image == Path(
        root / "FaceWarehouse_Data_0" / "Tester_1" / "TrainingPose" / "pose_2.png"
    )
