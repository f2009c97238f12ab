"""The synthetic FaceWarehouse: what is written, read back through the data set's own readers, is the truth."""

from dataclasses import replace

import pytest
import torch

from facerecon_torch.data.facewarehouse import recordings
from facerecon_torch.data.facewarehouse.recordings import POSE_NAMES, pose_files
from facerecon_torch.formats.facewarehouse import (
    EXPRESSION_NAMES,
    blendshape_file,
    find_testers,
    read_blendshape_header,
    read_blendshapes,
)
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_INNER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.synthetic.layouts import LayoutSpec, find_layout, load_truth, write_set
from facerecon_torch.synthetic.layouts.facewarehouse import POSES, SHAPES
from tests.data.depth_frame import read_poses

_SPEC = LayoutSpec(layout="facewarehouse", subjects=1, samples=2, seed=5)
_INNER = load_topology().landmark_vertices[:N_INNER]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout") / "facewarehouse"
    return folder, write_set(_SPEC, folder, workers=1, progress=False)


@pytest.fixture(scope="module")
def shapes(written):
    ((_, tester),) = find_testers(written[0])
    return read_blendshapes(blendshape_file(tester))


def test_the_full_set_has_the_real_ones_numbers():
    layout = find_layout("facewarehouse")
    full = replace(_SPEC, subjects=layout.full_subjects, samples=None)
    units = layout.units(full)
    names = [name for unit in units for name in layout.names(full, unit)]
    assert len(units) == 150
    assert len(set(names)) == len(names) == 3000
    assert names[0] == "Tester_001_pose_00"
    assert names[-1] == "Tester_150_pose_19"
    assert tuple(POSES) == POSE_NAMES
    assert tuple(SHAPES) == EXPRESSION_NAMES


def test_the_estimate_of_the_size_is_near_and_not_too_small(written):
    folder, _ = written
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert used <= find_layout("facewarehouse").bytes_needed(_SPEC) <= 1.6 * used


def test_recordings_give_the_true_meshes_and_places(written):
    folder, truth = written
    found = recordings.list_recordings(folder)
    assert tuple(one.name for one in found) == truth.names == ("Tester_001_pose_00", "Tester_001_pose_19")
    assert load_truth(folder).names == truth.names
    for k, recording in enumerate(found):
        scan = recordings.read_recording(recording)
        moved = (truth.vertices[k] @ truth.rotation[k].mT + truth.translation[k]).double()
        torch.testing.assert_close(scan.points, moved, rtol=0, atol=2e-4)
        assert torch.equal(scan.surface.triangles, load_topology().triangles)
        torch.testing.assert_close(scan.labelled, moved[load_topology().landmark_vertices], rtol=0, atol=2e-4)
        torch.testing.assert_close(scan.pixels[_INNER], truth.landmarks[k, :N_INNER].double(), rtol=0, atol=0.01)
        assert scan.image.shape == (3, 480, 640)
        assert float(scan.image.std()) > 0.05


def test_rotations_are_small_and_meshes_stand_elsewhere_in_every_pose(written):
    _, truth = written
    identity = torch.eye(3)
    torch.testing.assert_close(truth.rotation @ truth.rotation.mT, identity.expand(2, 3, 3), rtol=0, atol=1e-5)
    assert float((truth.rotation - identity).abs().max()) < 0.2
    assert not torch.equal(truth.translation[0], truth.translation[1])


def test_the_depth_is_the_surface_behind_the_pixels(written):
    folder, truth = written
    for k, recording in enumerate(recordings.list_recordings(folder)):
        files = pose_files(recording.files[0].parents[1], int(recording.code.removeprefix("pose_")))
        colour, depth = read_poses(files.poses)
        assert torch.equal(colour, recordings.read_recording(recording).image)
        nose = truth.vertices[k, _INNER[IBUG_OF_PAPER.index(30)]]
        seen = truth.extra["camera_rotation"][k] @ nose + truth.extra["camera_translation"][k]
        x, y = truth.landmarks[k, IBUG_OF_PAPER.index(30)].round().long().tolist()
        around = depth[y - 1 : y + 2, x - 1 : x + 2]
        assert abs(float(around.median() + seen[2])) < 3  # mm, twice the sensor's noise
        assert 400 < float(around.median()) < 600
        assert 0.1 < float((depth > 0).float().mean()) < 0.6


def test_pose_0_is_shape_0_and_the_header_counts_the_mesh(written, shapes):
    folder, _ = written
    ((_, tester),) = find_testers(folder)
    assert (tester / "Blendshape" / "shape_0.obj").read_bytes() == (tester / "TrainingPose" / "pose_0.obj").read_bytes()
    header = read_blendshape_header(tester / "Blendshape" / "shape.bs")
    assert (header.n_shapes, header.n_vertices) == (47, 3960)
    assert header.n_faces == len(load_topology().triangles)
    mesh = read_polygon_mesh(tester / "Blendshape" / "shape_0.obj", exponent=2, n_vertices=3960)
    assert torch.equal(mesh.triangles, load_topology().triangles)
    torch.testing.assert_close(mesh.vertices, shapes[0], rtol=0, atol=1e-4)
    scan = recordings.read_recording(recordings.list_recordings(folder)[0])
    torch.testing.assert_close(shapes[0], scan.points, rtol=0, atol=1e-4)


def _moved(shapes, name):
    return shapes[EXPRESSION_NAMES.index(name)] - shapes[0]


def test_shapes_move_what_their_names_say(shapes):
    x = shapes[0, :, 0] - shapes[0, _INNER, 0].mean()
    for stem in ("EyeBlink", "EyeSquint", "EyeOpen", "BrowsD", "BrowsU", "MouthSmile", "MouthFrown", "CheekSquint"):
        left, right = (_moved(shapes, f"{stem}_{side}").square().sum(dim=1) for side in "LR")
        assert float((left * x).sum()) > 0 > float((right * x).sum())  # L is +x
    chin = load_topology().landmark_vertices[IBUG_OF_PAPER.index(8)]
    assert float(_moved(shapes, "JawOpen")[chin, 1]) < -10
    assert float(_moved(shapes, "JawFwd")[chin, 2]) > 2
    assert float(_moved(shapes, "JawLeft")[chin, 0]) > 2
    assert float(_moved(shapes, "JawRight")[chin, 0]) < -2
    sizes = torch.stack([_moved(shapes, name).norm(dim=1).max() for name in EXPRESSION_NAMES])
    assert float(sizes[0]) == 0
    assert float(sizes[1:].min()) > 0.5


def test_closed_eyes_are_closed(written):
    _, truth = written
    upper, lower = ([IBUG_OF_PAPER.index(i) for i in rows] for rows in ((37, 38, 43, 44), (41, 40, 47, 46)))
    gaps = (truth.landmarks[:, upper] - truth.landmarks[:, lower]).norm(dim=-1).mean(dim=1)
    assert float(gaps[1]) < 0.4 * float(gaps[0])
    assert truth.expression_names == load_source().expression_names
