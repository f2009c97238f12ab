"""Files of 73 points, and the correspondence of the 74 points with iBUG's."""

import pytest
import torch

from facerecon_torch.data.facewarehouse.land73 import LAND_OF_LAND73, read_land73, save_land73
from facerecon_torch.data.facewarehouse.names import LANDMARK_GROUPS
from facerecon_torch.data.facewarehouse.points74 import IBUG_OF_LAND, from_ibug68, to_ibug68
from facerecon_torch.errors import DataFileError
from facerecon_torch.landmarks.scheme import GROUPS_68, from_paper66
from facerecon_torch.model.default_face import load_source, load_topology


def _points(rng, count=73):
    return torch.rand(count, 2, generator=rng, dtype=torch.float64) * torch.tensor([250.0, 200.0])


def test_y_counts_from_the_bottom_in_pixels(tmp_path):
    file = tmp_path / "a.land73"
    file.write_bytes(b"73\r\n" + b"10.5 30\r\n" + b"0 0\r\n" * 72)
    points = read_land73(file, height=200, width=250)
    assert points[0].tolist() == [10.5, 170.0]
    assert points[1].tolist() == [0.0, 200.0]


def test_points_come_back_to_the_last_bit(tmp_path, rng):
    points = _points(rng)
    file = save_land73(points, tmp_path / "a.land73", height=200, width=250)
    assert torch.equal(read_land73(file, height=200, width=250), points)
    assert file.read_bytes().startswith(b"73\r\n")
    assert file.read_bytes().count(b"\r\n") == 74


def test_rows_are_those_of_a_land_file_without_the_middle_of_the_mouth():
    assert (*range(64), *range(65, 74)) == LAND_OF_LAND73


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"74\n" + b"1 1\n" * 73, "line 1: expected the count 73"),
        (b"73\n" + b"1 1\n" * 72, "points: expected 73 lines; got 72"),
        (b"73\n" + b"1 1\n" * 72 + b"1 1", "line 74: expected an end of line"),
        (b"73\n" + b"1 1\n" * 72 + b"1 nan\n", "line 74: expected two numbers"),
        (b"73\n" + b"1 1\n" * 72 + b"1 900\n", "points: expected numbers in -1..2 image sides"),
    ],
)
def test_other_texts_are_refused(content, message, tmp_path):
    file = tmp_path / "a.land73"
    file.write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        read_land73(file, height=200, width=250)


def test_other_points_are_not_written(tmp_path, rng):
    with pytest.raises(ValueError, match=r"points must have trailing shape \(73, 2\)"):
        save_land73(_points(rng, 74), tmp_path / "a.land73", height=200, width=250)
    with pytest.raises(ValueError, match="finite"):
        save_land73(_points(rng) * torch.nan, tmp_path / "a.land73", height=200, width=250)
    assert not list(tmp_path.iterdir())


def _frontal():
    """68 points of the mean face seen from the front, y down."""
    source = load_source()
    points = source.mean[load_topology().landmark_vertices, :2].double() * torch.tensor([1.0, -1.0])
    return from_paper66(points)


def test_points_that_correspond_go_there_and_back():
    points = _frontal()
    again = to_ibug68(from_ibug68(points))
    known = torch.isfinite(again).all(dim=1)
    assert sorted(known.nonzero()[:, 0].tolist()) == sorted(IBUG_OF_LAND.values())
    torch.testing.assert_close(again[known], points[known], rtol=0, atol=1e-12)
    assert int(known.sum()) == len(set(IBUG_OF_LAND)) == 43


def test_every_group_lies_where_its_name_says():
    points = from_ibug68(_frontal())
    ibug = _frontal()
    names = {"eye_image_left": (36, 42), "eye_image_right": (42, 48), "mouth_outer": (48, 60), "mouth_inner": (60, 68)}
    for name, (first, last) in names.items():
        group, want = points[list(LANDMARK_GROUPS[name])], ibug[first:last]
        assert bool((group >= want.amin(0) - 1e-9).all())
        assert bool((group <= want.amax(0) + 1e-9).all())
    assert bool((points[:15, 0].diff() > 0).all())  # the contour runs from image left to image right
    torch.testing.assert_close(points[[0, 7, 14]], ibug[[0, 8, 16]])
    left, right = (points[list(LANDMARK_GROUPS[f"brow_image_{side}"])] for side in ("left", "right"))
    assert float(left[:, 0].max()) < 0 < float(right[:, 0].min())
    assert float(left[0, 0]) == float(left[:, 0].min())
    assert float(right[0, 0]) == float(right[:, 0].max())  # counted from its outer end
    assert float(left[4:, 1].min()) > float(left[1:3, 1].max())  # the last two are the lower edge
    nose = points[list(LANDMARK_GROUPS["nose_outline"])]
    assert bool((nose[:4, 0] < nose[4, 0]).all())
    assert float(nose[4, 1]) == float(nose[:, 1].max())
    assert len(GROUPS_68["mouth"]) == 20
