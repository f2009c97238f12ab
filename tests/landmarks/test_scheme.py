"""Orders, names and mirror pairs of the landmark schemes."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.landmarks import scheme


def test_paper_order_is_inner_then_contour() -> None:
    expected = [*range(17, 60), 61, 62, 63, 65, 66, 67, *range(17)]
    assert list(scheme.IBUG_OF_PAPER) == expected
    assert scheme.N_INNER + scheme.N_CONTOUR == len(expected) == 66


def test_names_are_unique_and_in_place() -> None:
    assert len(set(scheme.NAMES_68)) == 68
    assert len(set(scheme.NAMES_66)) == 66
    places = {
        0: "contour_1", 8: "contour_9", 17: "left_brow_1", 26: "right_brow_5", 30: "nose_bridge_4", 33: "nose_base_3",
        36: "left_eye_outer_corner", 39: "left_eye_inner_corner", 42: "right_eye_inner_corner",
        45: "right_eye_outer_corner", 48: "mouth_left_corner", 54: "mouth_right_corner", 57: "lower_lip_outer_3",
        60: "mouth_inner_left_corner", 62: "upper_lip_inner_2", 64: "mouth_inner_right_corner", 66: "lower_lip_inner_2",
    }  # fmt: skip
    assert {i: scheme.NAMES_68[i] for i in places} == places


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("axes", [2, 3])
def test_to_paper66(
    batch: tuple[int, ...], axes: int, rng: torch.Generator, device: torch.device, dtype: torch.dtype
) -> None:
    points = torch.randn(*batch, 68, axes, generator=rng).to(device, dtype)
    paper = scheme.to_paper66(points)
    assert paper.shape == (*batch, 66, axes)
    for row, ibug in enumerate(scheme.IBUG_OF_PAPER):
        assert torch.equal(paper[..., row, :], points[..., ibug, :])
    back = scheme.from_paper66(paper)
    known = [i for i in range(68) if i not in (60, 64)]
    assert torch.equal(back[..., known, :], points[..., known, :])
    assert (back.device, back.dtype) == (points.device, points.dtype)


def test_unknown_inner_corners_come_from_their_neighbours() -> None:
    points = torch.zeros(68, 2)
    points[48], points[61], points[67] = (
        torch.tensor([0.0, 0.0]),
        torch.tensor([100.0, -10.0]),
        torch.tensor([100.0, 30.0]),
    )
    points[54], points[63], points[65] = (
        torch.tensor([300.0, 0.0]),
        torch.tensor([200.0, 0.0]),
        torch.tensor([200.0, 0.0]),
    )
    filled = scheme.from_paper66(scheme.to_paper66(points))
    assert_close(filled[60], torch.tensor([16.0, 1.6]))
    assert_close(filled[64], torch.tensor([284.0, 0.0]))


@pytest.mark.parametrize("count", [66, 68])
def test_mirror_is_an_involution_that_swaps_the_sides_of_names(count: int, rng: torch.Generator) -> None:
    mirror, names = (scheme.MIRROR_66, scheme.NAMES_66) if count == 66 else (scheme.MIRROR_68, scheme.NAMES_68)
    assert sorted(mirror) == list(range(count))
    assert all(mirror[mirror[i]] == i for i in range(count))
    swap = {"left": "right", "right": "left"}
    for i, name in enumerate(names):
        other = names[mirror[i]]
        sides = [part for part in name.split("_") if part in swap]
        assert [swap[s] for s in sides] == [part for part in other.split("_") if part in swap]
        assert ("corner" in name) == ("corner" in other)
    points = torch.rand(4, count, 2, generator=rng, dtype=torch.float64) * 100
    assert_close(scheme.mirror_points(scheme.mirror_points(points, 100), 100), points)


def test_mirror_keeps_a_symmetric_face_where_it_is() -> None:
    # a face whose right half is the mirror image of its left half, in a picture 11 px wide (axis at x = 5)
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(1)) * 5
    for i, j in enumerate(scheme.MIRROR_68):
        points[j] = torch.tensor([10 - points[i, 0], points[i, 1]]) if i != j else torch.tensor([5.0, points[i, 1]])
    assert_close(scheme.mirror_points(points, 11), points)
    assert_close(scheme.mirror_points(scheme.to_paper66(points), 11), scheme.to_paper66(points))


@pytest.mark.parametrize(("groups", "count"), [(scheme.GROUPS_68, 68), (scheme.GROUPS_66, 66)])
def test_groups_share_out_every_point(groups: dict[str, tuple[int, ...]], count: int) -> None:
    assert sorted(i for members in groups.values() for i in members) == list(range(count))
    names = scheme.NAMES_68 if count == 68 else scheme.NAMES_66
    for group, word in (("brows", "brow"), ("eyes", "eye"), ("nose", "nose"), ("contour", "contour")):
        assert all(f"{word}" in names[i] for i in groups[group])
    assert all("mouth" in names[i] or "lip" in names[i] for i in groups["mouth"])


def test_eye_distances_agree_for_both_orders(dtype: torch.dtype) -> None:
    points = torch.zeros(2, 68, 2, dtype=dtype)
    points[:, 36:42, 0] = torch.tensor([0.0, 10, 20, 30, 20, 10], dtype=dtype)
    points[:, 42:48, 0] = torch.tensor([60.0, 70, 80, 90, 80, 70], dtype=dtype)
    points[1] *= 2
    for p in (points, scheme.to_paper66(points)):
        assert scheme.interocular(p).tolist() == [90, 180]
        assert scheme.interpupillary(p).tolist() == [60, 120]


def test_another_count_is_refused() -> None:
    for measure in (scheme.interocular, scheme.interpupillary, lambda p: scheme.mirror_points(p, 10)):
        with pytest.raises(ValueError, match="68"):
            measure(torch.zeros(51, 2))
