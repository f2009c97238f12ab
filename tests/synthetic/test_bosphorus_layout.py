"""The Bosphorus layout: the published numbers, and files whose content agrees with their truth."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facerecon_torch.data.bosphorus.bnt import read_bnt
from facerecon_torch.data.bosphorus.landmarks import IBUG_OF_NAME, NAMES, read_landmarks
from facerecon_torch.data.bosphorus.recordings import ScanName, list_scans, parse_name
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.layouts import LayoutSpec, LayoutTruth, bosphorus, write_set
from facerecon_torch.synthetic.layouts.bosphorus_plan import (
    ANGLES,
    PEOPLE,
    draw_weights,
    parse_units,
    plan_subject,
    unit_recipe,
)
from facerecon_torch.synthetic.layouts.subject import LayoutSubject, render_image

PUBLISHED = {"N": 299, "E": 453, "LFAU": 1549, "UFAU": 432, "CAU": 169, "YR": 735, "PR": 419, "CR": 211, "O": 381}
SPEC = LayoutSpec(layout="bosphorus", subjects=1, seed=3)
CHOSEN = [
    ScanName(0, kind, code, 0)
    for kind, code in (("N", "N"), ("UFAU", "43"), ("YR", "R90"), ("O", "MOUTH"), ("O", "HAIR"))
]


# the plan


def test_the_plan_has_the_published_numbers():
    scans = [scan for subject in range(PEOPLE) for scan in plan_subject(subject)]
    assert len(scans) == len(set(scans)) == 4666
    assert Counter(scan.kind for scan in scans) == {**PUBLISHED, "IGN": 18}
    assert sum(scan.kind in ("N", "E", "LFAU", "UFAU", "CAU") for scan in scans) == 2902
    codes = Counter((scan.kind, scan.code) for scan in scans)
    emotions = {"ANGER": 71, "DISGUST": 69, "FEAR": 70, "HAPPY": 106, "SADNESS": 66, "SURPRISE": 71}
    assert {code: n for (kind, code), n in codes.items() if kind == "E"} == emotions
    occlusions = {"EYE": 105, "MOUTH": 105, "GLASSES": 104, "HAIR": 67}
    assert {code: n for (kind, code), n in codes.items() if kind == "O"} == occlusions
    assert {code for kind, code in codes if kind == "YR"} == {"R10", "R20", "R30", "R45", "R90", "L45", "L90"}
    assert ScanName(104, "N", "N", 3) in scans


def test_everybody_has_a_fair_share():
    plans = [plan_subject(subject) for subject in range(PEOPLE)]
    assert all(40 <= len(plan) <= 48 for plan in plans)
    assert all(ScanName(subject, "N", "N", 0) in plan for subject, plan in enumerate(plans))
    six = [scan for plan in plans[:6] for scan in plan]
    assert {scan.code for scan in six if scan.kind in ("YR", "PR", "CR")} == set(ANGLES)
    assert {scan.code for scan in six if scan.kind == "O"} == {"EYE", "MOUTH", "GLASSES", "HAIR"}
    assert {scan.kind for scan in six} == {*PUBLISHED, "IGN"}
    assert len(six) == pytest.approx(4666 * 6 / 105, abs=4)


def test_fewer_samples_spread_over_the_classes():
    few = [plan_subject(subject, 9) for subject in range(4)]
    assert all(len(plan) == 9 and set(plan) <= set(plan_subject(i)) for i, plan in enumerate(few))
    for subject, plan in enumerate(few):
        assert {scan.kind for scan in plan} >= {scan.kind for scan in plan_subject(subject)} - {"IGN"}
    assert len({scan.code for plan in few for scan in plan if scan.kind == "LFAU"}) >= 3
    assert plan_subject(2, 1) == [ScanName(2, "N", "N", 0)]
    assert plan_subject(2, 1000) == plan_subject(2)


def test_people_beyond_the_database_are_refused():
    with pytest.raises(ValueError, match="subjects 0 to 104; got 105"):
        plan_subject(105)
    with pytest.raises(ValueError, match="subjects must be at most 105"):
        bosphorus.LAYOUT.units(LayoutSpec(layout="bosphorus", subjects=106))


# action units


@pytest.mark.parametrize(
    ("code", "units"),
    [
        ("12", [(12, "")]),
        ("12L", [(12, "L")]),
        ("12LW", [(12, "LW")]),
        ("A12A15", [(12, ""), (15, "")]),
        ("A26A12LW", [(26, ""), (12, "LW")]),
    ],
)
def test_codes_are_read(code, units):
    assert parse_units(code) == units


@pytest.mark.parametrize("code", ["", "A", "12X", "A12B15", "12A15", "123", "A12A"])
def test_other_codes_are_refused(code):
    with pytest.raises(ValueError, match="must look like"):
        parse_units(code)


def test_recipes_say_which_side_and_how_strong():
    assert "mouthSmileLeft" in unit_recipe("12L")
    assert "mouthSmileRight" in unit_recipe("12R")
    assert unit_recipe("12LW")["mouthSmile"] < 0.6 * unit_recipe("12")["mouthSmile"]
    assert set(unit_recipe("A22A25")) == set(unit_recipe("22")) | set(unit_recipe("25"))
    with pytest.raises(ValueError, match="action unit must be one of"):
        unit_recipe("99")


def test_every_planned_code_has_an_expression():
    names = load_source().expression_names
    for scan in {scan for subject in range(0, PEOPLE, 7) for scan in plan_subject(subject)}:
        weights = draw_weights(names, scan, torch.Generator().manual_seed(1))
        assert float(weights.amax()) <= 1.0
        assert (float(weights.amax()) > 0.15) == (scan.kind in ("E", "LFAU", "UFAU", "CAU", "IGN"))


# files and truth


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, LayoutTruth]:
    folder = tmp_path_factory.mktemp("bosphorus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bosphorus, "plan_subject", lambda subject, samples: CHOSEN)
        return folder, write_set(SPEC, folder, workers=1, progress=False)


def row(truth: LayoutTruth, code: str) -> int:
    return [parse_name(name).code for name in truth.names].index(code)


def test_every_scan_has_its_four_files(written):
    folder, truth = written
    assert [file.stem for file in list_scans(folder)] == sorted(truth.names)
    for name in truth.names:
        assert {p.suffix for p in (folder / "bs000").glob(f"{name}.*")} == {".bnt", ".lm2", ".lm3", ".png"}
    assert not list(folder.rglob(".*"))


def test_pictures_are_six_times_the_grid_and_differ_in_size(written):
    folder, truth = written
    sizes = set()
    for name in truth.names:
        scan = read_bnt(folder / "bs000" / f"{name}.bnt")
        rows, columns = scan.grid.shape
        with Image.open(folder / "bs000" / f"{name}.png") as picture:
            picture.load()
            assert (picture.size, picture.mode) == ((6 * columns, 6 * rows), "RGB")
            sizes.add(picture.size)
        assert scan.image_name == f"{name}.png"
        pixels = scan.pixels(6 * rows, 6 * columns)
        assert_close(pixels[0, 0], torch.tensor([0.0, 4.0], dtype=torch.float64))
        assert_close(pixels[-1, -1], torch.tensor([6.0 * columns - 6, 6.0 * rows - 2], dtype=torch.float64))
    assert len(sizes) > 2


def test_scans_lie_on_the_true_mesh(written):
    folder, truth = written
    triangles = load_topology().triangles
    for i, name in enumerate(truth.names):
        points = read_bnt(folder / "bs000" / f"{name}.bnt").grid.measured.float()
        mesh = truth.vertices[i] @ truth.rotation[i].mT + truth.translation[i]
        off = get_backend().closest_point(points[::17], mesh, triangles).distance
        if parse_name(name).kind != "O":  # neck, cloth and hair lie beside it
            assert float((off < 1.0).float().mean()) > 0.7
        share = len(points) / read_bnt(folder / "bs000" / f"{name}.bnt").grid.valid.numel()
        assert 0.4 < share < 0.98  # holes there are


def test_marked_points_agree_with_the_truth(written):
    folder, truth = written
    place = {IBUG_OF_PAPER[paper]: paper for paper in range(66)}
    for i, name in enumerate(truth.names):
        flat = read_landmarks(folder / "bs000" / f"{name}.lm2")
        known = [(row, place[IBUG_OF_NAME[n]]) for row, n in enumerate(flat.names) if n in IBUG_OF_NAME]
        known = [(row, paper) for row, paper in known if paper != place[8]]  # the chin's front is above point 8
        off = flat.points[[r for r, _ in known]].float() - truth.landmarks[i, [p for _, p in known]]
        assert float(off.norm(dim=1).median()) < 10  # px; clicks are off by 0.5 mm = 4 px in x and in y
        assert float(off.abs().amax()) < 25


def test_3d_points_are_grid_points_near_the_2d_ones(written):
    folder, truth = written
    for name in truth.names:
        scan = read_bnt(folder / "bs000" / f"{name}.bnt")
        rows, columns = scan.grid.shape
        flat, solid = (read_landmarks(folder / "bs000" / f"{name}.{kind}") for kind in ("lm2", "lm3"))
        assert set(solid.names) <= set(flat.names)
        pixels = scan.pixels(6 * rows, 6 * columns)[scan.grid.valid]
        far = (scan.grid.measured - solid.points[:, None]).norm(dim=2)
        assert float(far.amin(1).amax()) == 0.0
        places = pixels[far.argmin(1)]
        clicked, _ = flat.select(solid.names)
        assert float((places - clicked).abs().amax()) <= 6 * 3 + 3


def test_what_is_not_seen_is_left_out(written):
    folder, truth = written
    names = {code: set(read_landmarks(folder / "bs000" / f"{name}.lm2").names)
             for name in truth.names for code in [parse_name(name).code]}  # fmt: skip
    assert names["N"] == set(NAMES[:22])
    assert names["43"] == set(NAMES[:22])
    assert {"Left ear lobe", "Nose tip"} <= names["R90"]
    assert not any("right" in name.lower() for name in names["R90"])  # the far side of a profile
    assert sum("lip" in name or "mouth" in name for name in names["MOUTH"]) <= 1  # one may show between two fingers
    assert {"Inner left eye corner", "Inner right eye corner"} <= names["MOUTH"]
    assert all(found <= set(NAMES) for found in names.values())


def test_poses_and_expressions_are_those_of_the_code(written):
    truth = written[1]
    yaw = torch.rad2deg(matrix_to_euler(truth.rotation)[0])
    assert float(yaw[row(truth, "R90")]) == pytest.approx(90, abs=6)
    assert float(yaw[row(truth, "N")]) == pytest.approx(0, abs=9)
    names = list(truth.expression_names)
    lids = truth.expression_weights[:, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]]
    assert 0.6 < float(lids[row(truth, "43")].amin()) <= float(lids[row(truth, "43")].amax()) < 1  # lids meet at less
    assert float(lids[row(truth, "N")].amax()) == 0.0
    eye = [IBUG_OF_PAPER.index(i) for i in (37, 41)]
    height = truth.landmarks[:, eye[1], 1] - truth.landmarks[:, eye[0], 1]
    assert abs(float(height[row(truth, "43")])) < 0.15 * float(height[row(truth, "N")])  # and do not cross
    assert bool((truth.extra["sliders"] == truth.extra["sliders"][0]).all())  # one person


def test_bytes_do_not_depend_on_what_else_is_written(written, tmp_path, monkeypatch):
    folder, truth = written
    monkeypatch.setattr(bosphorus, "plan_subject", lambda subject, samples: CHOSEN[1:2])
    rows = bosphorus.LAYOUT.write(SPEC, "bs000", tmp_path)
    assert torch.equal(rows["vertices"][0], truth.vertices[row(truth, "43")])
    for file in (tmp_path / "bs000").iterdir():
        assert file.read_bytes() == (folder / "bs000" / file.name).read_bytes()
    assert len(list((tmp_path / "bs000").iterdir())) == 4


def test_a_sample_stays_below_what_was_announced(written):
    folder, truth = written
    files = sum(p.stat().st_size for p in (folder / "bs000").iterdir())
    announced = bosphorus.LAYOUT.bytes_needed(LayoutSpec(layout="bosphorus", subjects=1)) / len(plan_subject(0))
    assert 0.5 * announced < files / len(truth.names) + 50_000 < announced
    assert bosphorus.LAYOUT.bytes_needed(LayoutSpec(layout="bosphorus", subjects=105)) < 25e9


def test_a_picture_needs_a_size_that_can_be_divided():
    camera = Camera(
        rotation=torch.eye(3), scale=torch.tensor(1.0), translation=torch.zeros(2), degenerate=torch.tensor(False)
    )
    with pytest.raises(ValueError, match="divisible by finer"):
        render_image(
            object.__new__(LayoutSubject), torch.zeros(1, 3), camera, (7, 8), generator=torch.Generator(), finer=2
        )
