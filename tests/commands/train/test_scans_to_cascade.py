"""The whole way through files alone: a synthetic Bosphorus, its registration, and a cascade trained on it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from facerecon_torch.cascade.checkpoint import load_checkpoint
from facerecon_torch.commands.cli import main
from facerecon_torch.data.prepared import load_prepared
from facerecon_torch.metrics.vertex_error import Placement, pose_error_degrees, surface_errors
from facerecon_torch.model.default_face import load_default_face

PEOPLE, SAMPLES = 6, 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(scans, prepared, run) of the three commands, landmarks by dlib."""
    pytest.importorskip("dlib")
    top = tmp_path_factory.mktemp("from scans, to a cascade")
    scans, prepared, run = top / "scans", top / "prepared", top / "run"
    quiet = "runtime.progress=false"
    synth = ["synth", "layout=bosphorus", f"output={scans}", f"subjects={PEOPLE}", f"samples={SAMPLES}", quiet]
    prepare = ["prepare", "data=bosphorus", f"data.root={scans}", f"output={prepared}", "landmarks=dlib", quiet]
    train = ["train", "data=bosphorus", f"data.root={prepared}", "cv.fold=0", "cascade.stages=2", quiet]
    for words in (synth, prepare, [*train, f"output={run}", "fitting.select_penalties=false"]):
        assert main(words) == 0, words
    return scans, prepared, run


def test_registration_finds_the_true_faces(folders):
    scans, prepared, _ = folders
    found, truth = load_prepared(prepared), load_file(scans / "truth.safetensors")
    assert len(found) + len(found.failures) == PEOPLE * SAMPLES
    assert len(found) >= 0.75 * PEOPLE * SAMPLES
    names = json.loads((scans / "truth.json").read_text())["names"]
    at = torch.tensor([names.index(name) for name in found.names])
    known = Placement(truth["vertices"][at], truth["rotation"][at], truth["translation"][at])
    model = load_default_face()
    face = torch.zeros(model.n_vertices, dtype=torch.bool)
    face[model.topology.whole_vertices] = True
    placed = Placement(found.meshes, found.rotation, found.translation)
    errors = surface_errors(placed, known, model.topology.triangles, found.covered & face)
    across = errors.across[torch.isfinite(errors.across)]
    assert float(across.median()) < 0.25
    assert float(across.quantile(0.95)) < 1.0
    star = model.vertices(found.parameters.identity, found.parameters.expression)
    fit = surface_errors(Placement(star, found.rotation, found.translation), known, model.topology.triangles,
                         found.covered & face)  # fmt: skip
    assert float(fit.straight.nanmean()) < 1.2
    assert float(pose_error_degrees(found.rotation, known.rotation).median()) < 1.0


def test_training_reads_nothing_but_the_prepared_set(folders):
    _, prepared, run = folders
    report = json.loads((run / "report.json").read_text())
    assert report["counts"]["train"]["subjects"] + report["counts"]["test"]["subjects"] == PEOPLE
    told = {name: errors["mae_mm"]["none"]["M"] for name, errors in report["test"].items()}
    assert {"whole", "whole_covered"} <= set(told["cascade"])
    assert all(0.5 < error < 6 for errors in told.values() for error in errors.values())  # mm; four people teach little
    images = [report["counts"][side]["images"] for side in ("train", "test")]
    assert sum(images) == int(load_prepared(prepared).has_landmarks.sum())
    assert sum(entry["images"] for entry in report["by_kind"]["test"].values()) == images[1]
    assert load_checkpoint(run / "cascade.safetensors").model_sha256 == load_default_face().sha256
