"""Landmark files of Bosphorus: both layouts, their variants, round trips and damage."""

import pytest
import torch

from facerecon_torch.data.bosphorus.landmarks import (
    IBUG_OF_NAME,
    NAMES,
    NamedLandmarks,
    read_landmarks,
    write_landmarks,
)
from facerecon_torch.landmarks.scheme import NAMES_68
from tests.data.format_error_cases import all_finite, flipped, read_or_error

LM2 = """# 2D Landmark File

2 landmarks

Labels:
Nose tip
Left ear lobe

2D Image coordinates:
512.5 640
30 -1.25
"""
LM3 = """# 3D Landmark File

2 landmarks:
Nose tip
-90.275 13.1 -6.515
Chin middle
0 -60.25 1e-05
"""


def landmarks_of(dimensions, names=NAMES[:22], seed=0):
    draw = torch.Generator().manual_seed(seed)
    return NamedLandmarks(names, torch.randn(len(names), dimensions, generator=draw, dtype=torch.float64) * 50)


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("names", [NAMES[:22], NAMES, NAMES[5:22], NAMES[:1]], ids=len)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_written_points_are_read_back_identically(dimensions, names, newline, tmp_path):
    points = landmarks_of(dimensions, names)
    back = read_landmarks(write_landmarks(points, tmp_path / f"a.lm{dimensions}", newline=newline))
    assert back.names == names
    assert torch.equal(back.points, points.points)


@pytest.mark.parametrize(("suffix", "text"), [(".lm2", LM2), (".lm3", LM3)])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_the_writer_makes_the_text_of_real_files(suffix, text, newline, tmp_path):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(text.replace("\n", newline).encode())
    again = write_landmarks(read_landmarks(file), tmp_path / f"b{suffix}", newline=newline)
    assert again.read_bytes() == file.read_bytes()


def test_numbers_and_names_arrive(tmp_path):
    (tmp_path / "a.lm3").write_text(LM3)
    found = read_landmarks(tmp_path / "a.lm3")
    assert found.names == ("Nose tip", "Chin middle")
    assert found.points.tolist() == [[-90.275, 13.1, -6.515], [0, -60.25, 1e-5]]


@pytest.mark.parametrize(
    ("suffix", "text", "old", "new"),
    [
        (".lm2", LM2, "2 landmarks\n", "2 landmarks:\n"),
        (".lm3", LM3, "2 landmarks:\n", "2 landmarks\n"),
        (".lm2", LM2, "Left ear lobe", "Ear lobe left"),
        (".lm2", LM2, "coordinates:", "coordinates"),
        (".lm3", LM3, "\n\n2", "\n* by hand\nsecond line of it\n\n2"),
        (".lm3", LM3, "Nose tip", "  nose  tip "),
    ],
    ids=["colon", "no colon", "ear lobe", "heading", "star block", "spaces"],
)
def test_spellings_found_in_the_wild_mean_the_same(suffix, text, old, new, tmp_path):
    assert old in text
    (tmp_path / f"a{suffix}").write_text(text)
    (tmp_path / f"b{suffix}").write_text(text.replace(old, new, 1))
    a, b = (read_landmarks(tmp_path / f"{name}{suffix}") for name in "ab")
    assert a.names == b.names
    assert torch.equal(a.points, b.points)


@pytest.mark.parametrize(("suffix", "text"), [(".lm2", LM2), (".lm3", LM3)])
def test_every_truncation_is_an_error(suffix, text, tmp_path):
    content = text.encode()
    for length in range(len(content)):
        found, _ = read_or_error(read_landmarks, tmp_path / f"cut{suffix}", content[:length])
        assert found is None, length


@pytest.mark.parametrize("dimensions", [2, 3])
def test_random_flips_give_an_error_or_finite_points(dimensions, tmp_path):
    content = write_landmarks(landmarks_of(dimensions), tmp_path / f"a.lm{dimensions}").read_bytes()
    read = [read_or_error(read_landmarks, tmp_path / f"b.lm{dimensions}", c)[0] for c in flipped(content, 1000)]
    found = [landmarks for landmarks in read if landmarks is not None]
    assert 0 < len(found) < 1000
    for landmarks in found:
        assert landmarks.names == NAMES[:22]
        assert landmarks.points.shape == (22, dimensions)
        assert all_finite(landmarks.points)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# 3D", "# 2D", "heading: expected '# 3D Landmark File'"),
        ("2 landmarks", "3 landmarks", "lines: expected 6 after the count of 3; got 4"),
        ("2 landmarks", "25 landmarks", "count of landmarks"),
        ("2 landmarks", "0 landmarks", "count of landmarks"),
        ("2 landmarks", "two landmarks", "count of landmarks"),
        ("Nose tip", "Nose tap", "label: expected one of the 24"),
        ("Nose tip", "Chin middle", "label: expected every name once; got 'Chin middle' again"),
        ("13.1", "nan", "Nose tip: expected 3 finite numbers"),
        ("13.1", "1e999", "Nose tip: expected 3 finite numbers"),
        ("13.1", "1_3", "Nose tip: expected 3 finite numbers"),
        ("13.1", "-1000000000", "Nose tip: expected 3 finite numbers"),
        ("13.1 ", "", "Nose tip: expected 3 finite numbers"),
        ("Nose", "N\u00f6se", "byte 34: expected ASCII"),
    ],
)
def test_damage_is_named(old, new, message, tmp_path):
    assert message in read_or_error(read_landmarks, tmp_path / "a.lm3", LM3.replace(old, new, 1).encode())[1]


def test_a_huge_text_is_refused(tmp_path):
    assert "size" in read_or_error(read_landmarks, tmp_path / "a.lm3", LM3.encode() + b"\n" * (1 << 20))[1]


def test_points_go_to_their_ibug_places_and_missing_ones_are_marked():
    landmarks = landmarks_of(2, tuple(name for name in NAMES if name != "Nose tip"))
    points, known = landmarks.ibug68()
    assert int(known.sum()) == len(IBUG_OF_NAME) - 1 == 19
    assert not known[30]
    assert points[30].tolist() == [0, 0]
    for name in landmarks.names:
        if name in IBUG_OF_NAME:
            assert torch.equal(points[IBUG_OF_NAME[name]], landmarks.points[landmarks.names.index(name)])


def test_ibug_places_have_the_side_and_part_that_the_names_say():
    words = {"eyebrow": "brow", "eye corner": "corner", "nose": "nose", "lip": "lip", "mouth": "mouth"}
    for name, place in IBUG_OF_NAME.items():
        for word, part in words.items():
            if word in name.lower():
                assert part in NAMES_68[place], name
        for side in ("left", "right"):
            if side in name.lower() and "nose" not in name:
                assert side in NAMES_68[place], name


def test_landmarks_refuse_what_no_file_can_hold(tmp_path):
    points = torch.zeros(2, 2)
    for names in (("Nose tip",), ("Nose tip", "Nose tip"), ("Nose tip", "Nose"), ()):
        with pytest.raises(ValueError, match="must be"):
            NamedLandmarks(names, points)
    with pytest.raises(ValueError, match="finite"):
        NamedLandmarks(NAMES[:2], points * float("nan"))
    with pytest.raises(ValueError, match=r"must end in \.lm2"):
        write_landmarks(NamedLandmarks(NAMES[:2], points), tmp_path / "a.lm3")
