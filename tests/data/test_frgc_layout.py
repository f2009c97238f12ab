"""The synthetic FRGC: what is written, read back through the data set's own readers, is the truth."""

import gzip
from dataclasses import replace

import pytest
import torch

from facerecon_torch.data.frgc import recordings
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.synthetic.layouts import LayoutSpec, find_layout, write_set
from facerecon_torch.synthetic.layouts.pinhole import Pinhole

_SPEC = LayoutSpec(layout="frgc", subjects=1, samples=2, seed=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout") / "frgc"
    return folder, write_set(_SPEC, folder, workers=1, progress=False)


@pytest.fixture(scope="module")
def scans(written):
    return [recordings.read_recording(recording) for recording in recordings.list_recordings(written[0])]


def test_the_full_set_has_the_real_ones_numbers():
    layout = find_layout("frgc")
    full = replace(_SPEC, subjects=layout.full_subjects, samples=None)
    names = [name for unit in layout.units(full) for name in layout.names(full, unit)]
    assert len(layout.units(full)) == 466
    assert len(set(names)) == len(names) == 4007
    with pytest.raises(ValueError, match="five digits"):
        layout.units(replace(_SPEC, subjects=100_000))


def test_the_estimate_of_the_size_is_near_and_not_too_small(written):
    folder, _ = written
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert used <= find_layout("frgc").bytes_needed(_SPEC) <= 1.8 * used


def test_files_lie_and_are_named_as_in_the_data_set(written):
    folder, truth = written
    found = recordings.list_recordings(folder)
    assert tuple(one.name for one in found) == truth.names == ("04200d201", "04200d203")
    assert [(one.kind, one.image.name) for one in found] == [
        ("Spring2003range", "04200d201.ppm"),
        ("Fall2003range", "04200d204.ppm"),
    ]
    with gzip.open(found[0].files[0]) as stream:
        assert stream.readline() == b"480 rows\r\n"
    assert found[0].image.read_bytes().startswith(b"P6\n#vivid 3D Data\n")


def _moved(truth, k):
    return (truth.vertices[k] @ truth.rotation[k].mT + truth.translation[k]).double()


def test_scans_are_the_true_meshes_within_the_sensors_noise(written, scans):
    _, truth = written
    for k, scan in enumerate(scans):
        moved = _moved(truth, k).float()
        nearest = get_backend().closest_point(scan.points.float(), moved, load_topology().triangles)
        skin = nearest.distance[nearest.distance < 2.0]  # the rest is hair, neck and clothes
        assert len(skin) > 20_000
        assert float(skin.median()) < 0.2  # noise of 0.3 mm along the ray
        signed = (scan.points.float() - nearest.point)[nearest.distance < 2.0, 2]
        assert abs(float(signed.median())) < 0.05


def test_the_scanner_has_perspective_and_its_texture_lies_on_the_grid(written, scans):
    _, truth = written
    inner = load_topology().landmark_vertices[:N_INNER]
    for k, scan in enumerate(scans):
        assert scan.surface.shape == scan.image.shape[1:] == (480, 640)
        z = scan.points[:, 2]
        assert -1900 < float(z.min()) < float(z.max()) < -900
        # Every cell lies on the ray of its pixel, and rays meet in the camera.
        x = scan.point_pixels[:, 0] - 319.5
        torch.testing.assert_close(scan.points[:, 0] / -z * 1800, x, rtol=0, atol=1e-3)
        seen = _moved(truth, k)[inner]
        places = seen[:, :2] / -seen[:, 2:] * torch.tensor([1800.0, -1800.0]) + torch.tensor([319.5, 239.5])
        torch.testing.assert_close(places.float(), truth.landmarks[k, :N_INNER], rtol=0, atol=0.01)


def test_landmarks_lie_on_the_scan_behind_their_pixels(written, scans):
    _, truth = written
    inner = load_topology().landmark_vertices[:N_INNER]
    for k, scan in enumerate(scans):
        px = truth.landmarks[k, :N_INNER].round().long()
        there = scan.surface.valid[px[:, 1], px[:, 0]]
        apart = (scan.surface.points[px[:, 1], px[:, 0]] - _moved(truth, k)[inner]).norm(dim=1)[there]
        assert int(there.sum()) > 35
        assert float(apart.median()) < 0.8  # half a cell and the noise
        assert scan.image.std() > 0.05


@pytest.fixture
def pinhole():
    rotation = euler_to_matrix(*torch.tensor([0.3, -0.2, 0.1]).unbind())
    return Pinhole(focal=900, height=60, width=80, rotation=rotation, translation=torch.tensor([7.0, -9.0, -800.0]))


def test_bent_meshes_look_in_the_renderers_camera_as_in_the_pinhole(pinhole):
    vertices = load_source().mean[:400]
    camera = pinhole.camera
    view = pinhole.to_orthographic(vertices) @ pinhole.rotation.mT
    flat = camera.scale * view[:, :2] * torch.tensor([1.0, -1.0]) + camera.translation
    torch.testing.assert_close(flat, pinhole.project(vertices), rtol=0, atol=1e-3)
    torch.testing.assert_close(view[:, 2], (vertices @ pinhole.rotation.mT)[:, 2], rtol=0, atol=1e-4)


def test_rays_go_through_their_pixels(pinhole):
    rays = pinhole.rays()
    assert rays.shape == (60, 80, 3)
    point = rays[10, 70] * 500
    model = (point - pinhole.translation) @ pinhole.rotation
    torch.testing.assert_close(pinhole.project(model), torch.tensor([70.0, 10.0]), rtol=0, atol=1e-3)


def test_a_head_behind_the_camera_is_refused(pinhole):
    with pytest.raises(ValueError, match="the head before the camera"):
        replace(pinhole, translation=torch.tensor([0.0, 0.0, 5.0]))
