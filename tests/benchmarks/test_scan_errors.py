"""`benchmarks.scan`: what it refuses, and the photograph of a scan."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.scan import main
from benchmarks.scan_photo import photograph, read_scan

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


@pytest.mark.parametrize("words", [["scan=x", "cascde=y"], ["cascade=y"]])
def test_unknown_keys_and_no_scan_are_refused(words):
    with pytest.raises(ValueError, match="must be"):
        main(words)


def test_a_folder_without_one_scan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold one OBJ file; it holds 0"):
        main([f"scan={tmp_path}"])


def test_a_scan_without_a_face_is_refused(folder):
    with pytest.raises(ValueError, match="the detector found none"):
        main([f"scan={folder}"])
