"""The correspondence of FaceWarehouse's 74 points with iBUG's."""

import torch

from facerecon_torch.data.facewarehouse.landmarks74 import IBUG_OF_LAND, from_ibug68, to_ibug68
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.default_face import load_source, load_topology

# Rows of a .land file; left and right are those of the picture.
GROUPS = {
    "brow_left": range(21, 27),
    "brow_right": range(15, 21),
    "eye_left": (27, 28, 29, 30, 66, 67, 68, 69),
    "eye_right": (31, 32, 33, 34, 70, 71, 72, 73),
    "nose_outline": range(35, 46),
    "mouth_outer": range(46, 58),
    "mouth_inner": range(58, 64),
}


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
    names = {"eye_left": (36, 42), "eye_right": (42, 48), "mouth_outer": (48, 60), "mouth_inner": (60, 68)}
    for name, (first, last) in names.items():
        group, want = points[list(GROUPS[name])], ibug[first:last]
        assert bool((group >= want.amin(0) - 1e-9).all())
        assert bool((group <= want.amax(0) + 1e-9).all())
    assert bool((points[:15, 0].diff() > 0).all())  # the contour runs from image left to image right
    torch.testing.assert_close(points[[0, 7, 14]], ibug[[0, 8, 16]])
    left, right = (points[list(GROUPS[f"brow_{side}"])] for side in ("left", "right"))
    assert float(left[:, 0].max()) < 0 < float(right[:, 0].min())
    assert float(left[0, 0]) == float(left[:, 0].min())
    assert float(right[0, 0]) == float(right[:, 0].max())  # counted from its outer end
    assert float(left[4:, 1].min()) > float(left[1:3, 1].max())  # the last two are the lower edge
    nose = points[list(GROUPS["nose_outline"])]
    assert bool((nose[:4, 0] < nose[4, 0]).all())
    assert float(nose[4, 1]) == float(nose[:, 1].max())
