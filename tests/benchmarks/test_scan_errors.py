"""`benchmarks.accuracy.scan`: what it refuses, and the photograph of a scan."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy.scan import draw_errors, main
from benchmarks.accuracy.scan_photo import photograph, read_scan, turned
from facerecon_torch.metrics.scan import ScanErrors
from facerecon_torch.metrics.surface_fit import identity_alignment

_SQUARE = """v -50 -50 0
v 50 -50 0
v 50 50 0
v -50 50 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
f 1/1 2/2 3/3
f 1/1 3/3 4/4
"""


@pytest.fixture
def folder(tmp_path):
    """A square of 100 mm with a red upper left quarter, and 68 points in its middle."""
    (tmp_path / "square.obj").write_text(_SQUARE)
    texture = np.full((64, 64, 3), 255, np.uint8)
    texture[:32, :32, 1:] = 0
    Image.fromarray(texture).save(tmp_path / "square.jpg", quality=95, subsampling=0)
    points = {"groups": {"LJSON": {"landmarks": {"points": [[0, 0, 0]] * 68}}}}
    (tmp_path / "square.ljson").write_text(json.dumps(points))
    return tmp_path


def test_a_scan_is_photographed_upright_in_its_colours(folder):
    picture = photograph(read_scan(folder), size=320)
    assert picture[:, 80, 80].tolist() == pytest.approx([1, 0, 0], abs=0.02)
    for row, column in ((80, 240), (240, 80), (240, 240)):
        assert picture[:, row, column].tolist() == pytest.approx([1, 1, 1], abs=0.02)
    assert picture[:, 20, 20].tolist() == pytest.approx([0.55] * 3, abs=0.01)


def test_a_turned_scan_shows_its_side(folder):
    scan = read_scan(folder)
    side, down = turned(scan, 90, 0), turned(scan, 0, 90)
    assert side.vertices[1].tolist() == pytest.approx([0, -50, -50], abs=1e-4)  # its left turned away
    assert down.vertices[1].tolist() == pytest.approx([50, 0, -50], abs=1e-4)  # its chin turned away
    assert torch.equal(side.triangles, scan.triangles)
    picture = photograph(turned(scan, 60, 0), size=320)
    edge = 0.55 * torch.ones(3)
    shown = (picture - edge[:, None, None]).abs().amax(0)[160] > 0.1
    assert int(shown.sum()) == pytest.approx(100, abs=2)  # 100 mm at 2 px a mm, halved by the turn


def test_errors_are_drawn_from_violet_to_yellow_and_grey_where_none_is_measured(folder):
    pytest.importorskip("matplotlib")
    scan, moved = read_scan(folder), identity_alignment(1, torch.device("cpu"))[0]
    none, far = (
        ScanErrors(torch.full((4,), distance), moved, torch.ones(4, dtype=torch.bool)) for distance in (0.0, 50.0)
    )
    half = ScanErrors(torch.zeros(2), moved, scan.vertices[:, 0] < 0)
    picture = draw_errors(scan, [none, far, half])
    assert picture.shape == (3, 400, 1200)
    violet, yellow = picture[:, 200, 200], picture[:, 200, 600]
    assert violet[2] > 2 * violet[1]
    assert yellow[0] > 2 * yellow[2]
    assert yellow[1] > 2 * yellow[2]
    left, right = picture[:, 200, 820], picture[:, 200, 1180]
    assert left[2] > 1.5 * left[1]
    assert right.amax() - right.amin() < 0.1


@pytest.mark.parametrize("words", [["scan=x", "cascde=y"], ["cascade=y"], ["scan=x", "views=side"]])
def test_unknown_keys_and_no_scan_are_refused(words):
    with pytest.raises(ValueError, match="must be"):
        main(words)


def test_a_folder_without_one_scan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold one OBJ file; it holds 0"):
        main([f"scan={tmp_path}"])


def test_a_scan_without_a_face_is_refused(folder):
    with pytest.raises(ValueError, match="the detector found none"):
        main([f"scan={folder}"])
