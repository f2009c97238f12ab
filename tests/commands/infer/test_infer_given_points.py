"""Runs on landmark files: contours that are missing, and the results of an earlier run instead of a detector."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.commands.train import sets
from facerecon_torch.commands.train.detections import detect_set
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.errors import DataFileError, LandmarkFileError
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.runtime.ranks import SINGLE

FORMATS = ("json", "overlay")


@pytest.fixture
def pictures(photographs, tmp_path):
    """p0 with two faces, p1 without contour, p2; their landmarks lie in the folder `marks`."""
    images, landmarks = photographs
    (tmp_path / "photos").mkdir()
    (tmp_path / "marks").mkdir()
    points = from_paper66(landmarks)
    faces = [torch.stack([points[0], points[0] + 2]), points[1][17:], points[2]]
    for k in range(3):
        save_png(images[k], tmp_path / "photos" / f"p{k}.png")
        np.save(tmp_path / "marks" / f"p{k}.npy", faces[k].numpy())
    return tmp_path / "photos"


def run(pictures, output, outcome, source, **changes):
    options = InferOptions(formats=list(FORMATS), progress=False, workers=2, **changes)
    detector = source if isinstance(source, FileLandmarks) else FileLandmarks(source=source)
    return infer(InputSpec(path=str(pictures)), output, outcome.reconstructor, detector, options)


def table(output):
    return pq.read_table(output / "parameters").to_pylist()


def reasons(output):
    return [row["reason"] for row in read_quarantine(output)]


def test_results_hold_null_where_landmarks_are_missing(pictures, tmp_path, tiny_outcome):
    report = run(pictures, tmp_path / "out", tiny_outcome, tmp_path / "marks")
    assert (report.counts.failures, report.faces) == (0, 4)
    for name, image, missing in (("p0", 0, False), ("p0_face1", 1, False), ("p1", 2, True), ("p2", 3, False)):
        text = (tmp_path / "out" / f"{name}.json").read_text()
        assert "NaN" not in text
        document, row = json.loads(text), table(tmp_path / "out")[image]
        assert document["landmarks_2d"] == row["landmarks_2d"]
        assert (document["landmarks_2d"][49:] == [[None, None]] * 17) == missing
        assert all(None not in point for point in document["landmarks_2d"][:49])
        assert np.isfinite(np.array(document["projected_2d"])).all()
        assert np.isfinite(np.array(document["box"])).all()


def test_a_run_is_resumed_with_missing_landmarks(pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "out", tiny_outcome, tmp_path / "marks")
    before = table(tmp_path / "out")
    assert run(pictures, tmp_path / "out", tiny_outcome, tmp_path / "marks").skipped == 3
    assert table(tmp_path / "out") == before


@pytest.mark.parametrize(
    "source", ["", "parameters", "parameters/part-00000.parquet"], ids=["output", "folder", "table"]
)
def test_results_are_landmarks_of_a_later_run(source, pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "out", tiny_outcome, tmp_path / "marks")
    report = run(pictures, tmp_path / "again", tiny_outcome, tmp_path / "out" / source)
    assert (report.counts.failures, report.faces) == (0, 4)
    for one, other in zip(table(tmp_path / "again"), table(tmp_path / "out"), strict=True):
        assert (one["path"], one["face"]) == (other["path"], other["face"])
        for key in ("landmarks_2d", "alpha", "beta", "camera"):
            assert one[key] == other[key]
        assert_close(torch.tensor(one["box"]), torch.tensor(other["box"]), rtol=0, atol=1e-4)


def test_one_result_is_the_landmarks_of_one_picture(pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "out", tiny_outcome, tmp_path / "marks")
    for name, faces in (("p0.json", 2), ("p0_face1.json", 1)):
        report = run(pictures / "p0.png", tmp_path / name, tiny_outcome, tmp_path / "out" / name)
        assert (report.counts.failures, report.faces) == (0, faces)
    (tmp_path / "out" / "p0_face1.json").unlink()
    run(pictures / "p0.png", tmp_path / "c", tiny_outcome, tmp_path / "out" / "p0.json")
    assert "p0_face1.json: expected a landmark file; got nothing" in reasons(tmp_path / "c")[0]


def test_the_origin_of_files_is_a_setting_of_a_run(pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "zero", tiny_outcome, tmp_path / "marks")
    run(pictures, tmp_path / "one", tiny_outcome, FileLandmarks(source=tmp_path / "marks", origin=1))
    for one, zero in zip(table(tmp_path / "one"), table(tmp_path / "zero"), strict=True):
        assert_close(torch.tensor(one["landmarks_2d"][:49]) + 1, torch.tensor(zero["landmarks_2d"][:49]))


def test_released_faces_without_contour_have_no_file_of_landmarks(pictures, tmp_path, tiny_outcome, capsys):
    run(pictures, tmp_path / "out", tiny_outcome, tmp_path / "marks")
    assert main(["export-parameters", str(tmp_path / "out"), str(tmp_path / "released")]) == 0
    assert capsys.readouterr().out.startswith("4 samples")
    assert {p.stem for p in (tmp_path / "released").glob("*.data")} == {"p0", "p0_face1", "p2"}
    assert {p.stem for p in (tmp_path / "released").glob("*.mat")} == {"p0", "p0_face1", "p1", "p2"}


def test_training_takes_photographs_without_contour(pictures, tmp_path):
    source = LandmarkSourceSpec(source="file", path=str(tmp_path / "marks"))
    images = tuple(sorted(pictures.glob("*.png")))
    (tmp_path / "marks" / "p2.npy").unlink()
    points = detect_set(images, source, RuntimeSpec(device="cpu", progress=False), SINGLE)
    faces = FaceSet(name="mine", images=images, subjects=torch.arange(3), landmarks=points, meshes=torch.zeros(3, 5, 3))
    kept = sets._with_landmarks(faces)
    assert [path.name for path in kept.images] == ["p0.png", "p1.png"]
    assert kept.landmarks.isnan().any(-1).sum(-1).tolist() == [0, 17]


@pytest.mark.parametrize("source", ["out", "out/p0.json"])
def test_results_say_what_their_landmarks_mean(source, pictures, tmp_path, tiny_outcome):
    """Results of mediapipe's landmarks are no source of iBUG ones: the other cascade would be taken for them."""
    given = FileLandmarks(source=tmp_path / "marks", convention="mediapipe")
    run(pictures, tmp_path / "out", tiny_outcome, given)
    assert json.loads((tmp_path / "out" / "p0.json").read_text())["convention"] == "mediapipe"
    assert LandmarkSourceSpec(source="file", path=str(tmp_path / source)).own_convention == "mediapipe"
    again = FileLandmarks(source=tmp_path / source)
    assert again.convention == "mediapipe"
    assert run(pictures / "p0.png", tmp_path / "again", tiny_outcome, again).counts.failures == 0
    message = "expected ibug landmarks; got mediapipe ones. Give landmarks.convention=mediapipe"
    if source == "out":
        with pytest.raises(LandmarkFileError, match=message):
            FileLandmarks(source=tmp_path / source, convention="ibug")
    else:
        other = FileLandmarks(source=tmp_path / source, convention="ibug")
        run(pictures / "p0.png", tmp_path / "third", tiny_outcome, other)
        (reason,) = reasons(tmp_path / "third")
        assert message in reason


def test_tables_of_a_run_are_no_manifest_for_a_cascade_of_the_other_convention(pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "out", tiny_outcome, FileLandmarks(source=tmp_path / "marks", convention="mediapipe"))
    (part,) = (tmp_path / "out" / "parameters").glob("*.parquet")
    with pytest.raises(DataFileError, match="expected ibug landmarks; got mediapipe ones"):
        run(part, tmp_path / "again", tiny_outcome, tmp_path / "marks")


@pytest.mark.parametrize(
    ("count", "convention"), [(68, "ibug"), (51, "ibug"), (468, "mediapipe"), (478, "mediapipe"), (5, "ibug")]
)
def test_files_state_their_convention_by_their_layout(count, convention, tmp_path):
    points = np.random.default_rng(0).random((count, 2)) * 90
    np.save(tmp_path / "p0.npy", points)
    (tmp_path / "p1.csv").write_text("x0\n")  # damaged: the first file counts
    for source in (tmp_path, tmp_path / "p0.npy"):
        assert FileLandmarks.stated_convention(source) == convention
    assert FileLandmarks.stated_convention(None) == "ibug"
    assert FileLandmarks.stated_convention(tmp_path / "p1.csv") == "ibug"
