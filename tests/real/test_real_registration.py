"""A real scan registered from its own landmarks. Skipped without the data."""

import os
from pathlib import Path

import pytest
import torch

from benchmarks.accuracy.scan_photo import photograph, read_scan
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.images.write import save_png
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.registration.scan.nonrigid import flipped_triangles
from facerecon_torch.registration.scan.register import register
from facerecon_torch.registration.scan.surface import resample_mesh
from facerecon_torch.report.registration import draw_landmark_pair, draw_shaded

DATA = Path(os.environ.get("FACERECON_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "real"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real faces are not here; set FACERECON_DATA")


@pytest.fixture(scope="module")
def registered():
    model, scan = load_default_face(), read_scan(DATA / "james")
    lifted = to_paper66(scan.landmarks[None])
    answer = register(model, resample_mesh(scan.vertices, scan.triangles), torch.full_like(lifted, torch.nan), lifted)
    fitted = model.vertices(answer.parameters.identity, answer.parameters.expression)
    posed = [mesh @ answer.rotation.mT + answer.translation[:, None] for mesh in (fitted, answer.mesh)]
    return model, scan, answer, posed


def test_a_real_scan_is_met(registered):
    model, _, answer, (fitted, moved) = registered
    assert float(answer.measures["scan_to_mesh"]) <= 0.3
    assert float(answer.measures["scan_to_fit"]) <= 1.6
    assert answer.flags == ((),)
    assert not bool(flipped_triangles(moved, fitted, model.topology.triangles).any())


def test_the_scan_s_own_vertices_agree(registered):
    """Independent of the grid: the file's vertices around the middle of the face, to the nearest point of M."""
    model, scan, _, (_, moved) = registered
    middle = scan.landmarks[30]
    near = (scan.vertices - middle).norm(dim=-1) < 60
    distance = get_backend().closest_point(scan.vertices[near][None], moved, model.topology.triangles).distance
    assert int(near.sum()) > 500
    assert float(distance.median()) <= 0.3


def test_pictures_show_scan_fit_and_mesh(registered, tmp_path):
    model, scan, _, (fitted, moved) = registered
    triangles = model.topology.triangles
    panels = [(scan.vertices, scan.triangles), (fitted[0], triangles), (moved[0], triangles)]
    picture = draw_shaded(panels)
    save_png(picture, tmp_path / "registration.png")
    first, second, third = picture.chunk(3, dim=-1)
    middle = (slice(None), slice(picture.shape[1] // 3, -picture.shape[1] // 4), slice(60, -60))
    assert float((first - third)[middle].abs().mean()) < float((first - second)[middle].abs().mean())
    photo = photograph(scan)
    flip = torch.tensor([1.0, -1.0])
    pixels = (scan.landmarks - scan.landmarks.mean(0))[:, :2] * flip * 2.0 + (photo.shape[-1] - 1) / 2
    pair = draw_landmark_pair(photo, pixels[[36, 39, 42, 45, 30, 48, 54, 8]], to_paper66(pixels[None])[0])
    save_png(pair, tmp_path / "landmarks.png")
    assert pair.shape == (3, photo.shape[1], 2 * photo.shape[2])
