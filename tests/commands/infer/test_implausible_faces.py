"""`infer` on landmarks that are no face: what is refused with which reason, what is marked, and what stays."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66

MEASURES = (
    *("residual_mm", "contour_residual_mm", "shape_distance", "view_angle", "proportion"),
    *("reprojection_px", "disagreement_mm", "pose_excess", "predicted_error_mm"),
)


@pytest.fixture
def folder(photographs, tmp_path):
    """Photographs with landmarks beside them: right ones, wrong orders, and a face that is stretched."""
    images, landmarks = photographs
    root = tmp_path / "photos"
    root.mkdir()
    right = from_paper66(landmarks)
    stretched = right[4] * torch.tensor([1.0, 0.5])
    points = {
        "a_right": right[0],
        "b_contour_first": landmarks[1].roll(17, 0),
        "c_exchanged": right[2].flip(-1),
        "d_two": torch.stack([right[3], right[3].flip(0)]),
        "e_stretched": stretched,
        "f_no_contour": right[0][17:],
    }
    for k, (name, face) in enumerate(points.items()):
        save_png(images[k % 5], root / f"{name}.png")
        np.save(root / f"{name}.npy", face.numpy())
    return root


def run(folder, output, outcome, **changes):
    options = InferOptions(formats=["json"], progress=False, workers=1, **changes)
    return infer(InputSpec(path=str(folder)), output, outcome.reconstructor, FileLandmarks(), options)


def table(output):
    return pq.read_table(output / "parameters").to_pylist()


def test_impossible_faces_are_failures_with_the_likely_reason(folder, tmp_path, tiny_outcome):
    run(folder, tmp_path / "out", tiny_outcome)
    quarantine = list(read_quarantine(tmp_path / "out"))
    assert {(row["status"], row["stage"]) for row in quarantine} == {("implausible", "fit")}
    reasons = {row["path"].rsplit("/", 1)[-1][:-4]: row["reason"] for row in quarantine}
    assert set(reasons) == {"b_contour_first", "c_exchanged"}
    assert "the landmarks fit no face: residual" in reasons["b_contour_first"]
    assert "are the points in another order?" in reasons["b_contour_first"]
    assert "are x and y exchanged" in reasons["c_exchanged"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("[a-f]_*.json")) == [
        "a_right", "d_two", "e_stretched", "f_no_contour",
    ]  # fmt: skip


def test_an_impossible_face_beside_another_is_left_out_with_a_warning(folder, tmp_path, tiny_outcome, caplog):
    run(folder / "d_two.png", tmp_path / "out", tiny_outcome)
    (row,) = table(tmp_path / "out")
    assert row["plausible"] is True
    (message,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert "d_two.png: one of 2 faces is left out: the landmarks fit no face" in message


def test_doubtful_faces_are_written_and_marked(folder, tmp_path, tiny_outcome):
    run(folder, tmp_path / "out", tiny_outcome)
    rows = {row["path"].rsplit("/", 1)[-1][0]: row for row in table(tmp_path / "out")}
    assert {name: row["plausible"] for name, row in rows.items()} == {"a": True, "d": True, "e": False, "f": True}
    for stem, row in (("a_right", rows["a"]), ("e_stretched", rows["e"]), ("f_no_contour", rows["f"])):
        text = (tmp_path / "out" / f"{stem}.json").read_text()
        document = json.loads(text)
        assert "NaN" not in text
        assert "Infinity" not in text
        assert document["plausible"] == row["plausible"]
        assert bool(document["warnings"]) == (not row["plausible"])
        assert [document[name] for name in MEASURES] == [row[name] for name in MEASURES]
        assert np.isfinite([row[name] for name in MEASURES]).all()
    assert "stretched face" in json.loads((tmp_path / "out" / "e_stretched.json").read_text())["warnings"][0]
    assert rows["f"]["contour_residual_mm"] == 0.0


def test_a_resumed_run_keeps_the_marks(folder, tmp_path, tiny_outcome):
    run(folder, tmp_path / "out", tiny_outcome)
    before = table(tmp_path / "out")
    again = run(folder, tmp_path / "out", tiny_outcome)
    assert (again.skipped, again.counts.failures) == (6, 2)
    assert table(tmp_path / "out") == before


def test_released_tables_carry_the_marks(folder, tmp_path, tiny_outcome):
    run(folder, tmp_path / "out", tiny_outcome)
    assert main(["export-parameters", str(tmp_path / "out"), str(tmp_path / "released")]) == 0
    rows = pq.read_table(tmp_path / "released" / "samples.parquet").to_pylist()
    want = [(row["plausible"], row["residual_mm"], row["shape_distance"]) for row in table(tmp_path / "out")]
    assert [(row["plausible"], row["residual_mm"], row["shape_distance"]) for row in rows] == want


def test_results_of_an_earlier_version_are_landmarks(folder, tmp_path, tiny_outcome):
    image = folder / "a_right.png"
    run(image, tmp_path / "out", tiny_outcome)
    file = tmp_path / "out" / "a_right.json"
    document = json.loads(file.read_text())
    for name in ("plausible", "warnings", *MEASURES):
        del document[name]
    file.write_text(json.dumps({**document, "version": 2}))
    options = InferOptions(formats=["json"], progress=False, workers=1)
    detector = FileLandmarks(source=file)
    assert infer([image], tmp_path / "new", tiny_outcome.reconstructor, detector, options).counts.failures == 0
