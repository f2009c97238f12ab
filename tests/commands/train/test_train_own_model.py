"""One command from a face model to a cascade: its people are drawn, photographed and learned."""

import json

import pytest

from facerecon_torch.cascade.checkpoint import load_checkpoint
from facerecon_torch.commands.cli import main
from facerecon_torch.model.io import save_model
from facerecon_torch.synthetic import load_set
from facerecon_torch.synthetic.people.model_people import people_digest
from tests.synthetic.own_models import bilinear_model, linear_model

FEW = [
    "data.train_subjects=5",
    "data.train_images=2",
    "data.test_subjects=2",
    "data.test_images=1",
    "data.shifted_subjects=0",
    "runtime.progress=false",
    "runtime.workers=1",
    "fitting.select_penalties=false",
    "cascade.stages=1",
    "cv.nested=0",
]


def test_training_ends_with_a_cascade_of_the_given_model(tmp_path, capsys):
    model = linear_model()
    file, rendered, folder = tmp_path / "own.safetensors", tmp_path / "sets", tmp_path / "run"
    save_model(model, file)
    words = [f"model.path={file}", f"data.root={rendered}", f"output={folder}", *FEW]
    assert main(["train", *words]) == 0
    assert "Train with landmarks=mediapipe" not in "".join(capsys.readouterr())
    report = json.loads((folder / "report.json").read_text())
    assert {"mean_face", "landmark_fit", "cascade"} <= set(report["test"])
    assert all(0 < method["mae_mm"]["none"]["M"]["whole"] < 30 for method in report["test"].values())
    truth = report["test"]["cascade"]["mae_mm"]["none"]
    assert truth["M"]["whole"] == pytest.approx(truth["S"]["whole"], abs=1e-3)  # M is the model's own mesh
    cascade = load_checkpoint(folder / "cascade.safetensors")
    assert cascade.model_sha256 == model.sha256
    sets = {path: load_set(path) for path in (rendered / "synthetic").iterdir()}
    assert {s.spec.model for s in sets.values()} == {people_digest(model)}
    times = {path: (path / "set.json").stat().st_mtime_ns for path in sets}
    assert main(["train", *words, "landmarks=noise"]) == 0  # the sets are found again
    assert "Train with landmarks=mediapipe, which detects on the pictures" in "".join(capsys.readouterr())
    assert {path: (path / "set.json").stat().st_mtime_ns for path in (rendered / "synthetic").iterdir()} == times


def test_synth_draws_people_of_a_model_and_refuses_it_for_layouts(tmp_path, capsys):
    save_model(bilinear_model(), tmp_path / "own.safetensors")
    model = f"model.path={tmp_path / 'own.safetensors'}"
    words = ["subjects=1", "images=1", "size=128", "runtime.progress=false", "runtime.workers=1"]
    assert main(["synth", f"output={tmp_path / 'set'}", model, *words]) == 0
    assert load_set(tmp_path / "set").spec.model == people_digest(bilinear_model())
    capsys.readouterr()
    assert main(["synth", "layout=frgc", f"output={tmp_path / 'none'}", model]) == 2
    assert "layout=frgc has no model.path; leave it out" in "".join(capsys.readouterr())


def test_a_model_whose_people_cannot_be_drawn_stops_the_run_before_anything_is_rendered(tmp_path, capsys):
    model = linear_model()
    left = (model.mean[:, 0] < 8)[model.topology.triangles].all(-1)
    tables = model.topology.tables() | {"triangles": model.topology.triangles[left]}
    factors = {name: array for name, array in model.factors().items() if name != "expression_rows"}
    half = type(model)(**factors, topology=type(model.topology)(**tables))
    save_model(half, tmp_path / "half.safetensors")
    words = [f"model.path={tmp_path / 'half.safetensors'}", f"data.root={tmp_path / 'sets'}"]
    assert main(["train", *words, f"output={tmp_path / 'run'}", *FEW]) == 2
    assert "of it have no correspondence" in "".join(capsys.readouterr())
    assert not list(tmp_path.rglob("*.jpg"))
