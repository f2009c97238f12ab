"""From a prepared set to a trained cascade, in the tiny world: which samples are taken, and what the report says."""

import json
import logging

import pytest
import torch

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.train.sets import load_sets
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.prepared import load_prepared_faces
from facerecon_torch.data.specs import RecordedScans
from facerecon_torch.errors import DataFileError
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.io import save_model
from tests.prepared_world import write_prepared
from tests.tiny_model import tiny_linear

PEOPLE, IMAGES = 8, 3
KINDS = ("N", "E", "YR")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, setup, samples): a prepared set of 8 people; the last sample has no landmarks, the first a flag."""
    folder = tmp_path_factory.mktemp("scans") / "prepared"
    setup, samples = write_prepared(folder, PEOPLE, [f"{kind}_A" for kind in KINDS])
    return folder, setup, samples


def test_everything_is_taken_by_default(world):
    folder, setup, samples = world
    faces = load_prepared_faces(RecordedScans(name="bosphorus", root=str(folder)), setup.model)
    order = sorted(range(PEOPLE * IMAGES), key=lambda k: (k // IMAGES, KINDS[k % IMAGES]))
    assert len(faces) == PEOPLE * IMAGES
    assert faces.subjects.tolist() == sorted(list(range(PEOPLE)) * IMAGES)
    assert faces.kinds[:3] == ("E_A", "N_A", "YR_A")
    assert torch.equal(faces.meshes, samples.meshes[order])
    assert torch.equal(faces.parameters.identity, samples.parameters.identity[order])
    assert int(torch.isnan(faces.landmarks).flatten(1).any(1).sum()) == 1
    assert float(faces.covered.float().mean()) == pytest.approx(0.75, abs=0.01)


def test_classes_people_and_flags_are_chosen(world):
    folder, setup, _ = world
    chosen = {"classes": ["N", "E"], "subjects": ["bs000", "bs001"], "without_flags": ["folded"]}
    faces = load_prepared_faces(RecordedScans(name="bosphorus", root=str(folder.parent), **chosen), setup.model)
    assert [path.stem for path in faces.images] == ["bs000_E_A_0", "bs001_E_A_0", "bs001_N_A_0"]
    assert faces.subjects.tolist() == [0, 1, 1]
    nothing = {"classes": ["N"], "subjects": ["bs000"], "without_flags": ["folded"]}
    with pytest.raises(ValueError, match=r"data asks for nothing that .* holds; it holds \{.*'N': 8"):
        load_prepared_faces(RecordedScans(name="bosphorus", root=str(folder), **nothing), setup.model)
    for unknown in ({"classes": ["N", "O"]}, {"subjects": ["bs000", "bs99"]}):
        ((key, names),) = unknown.items()
        with pytest.raises(ValueError, match=rf"data\.{key} must be among those of .*; got \['{names[1]}'\]"):
            load_prepared_faces(RecordedScans(name="bosphorus", root=str(folder), **unknown), setup.model)


def test_samples_without_landmarks_are_left_out_of_training(world, caplog):
    folder, setup, _ = world
    data = RecordedScans(name="bosphorus", root=str(folder))
    with caplog.at_level(logging.INFO):
        sets = load_sets(data, LandmarkSourceSpec(source="set"), RuntimeSpec(progress=False), setup.model)
    assert list(sets) == ["train"]
    assert len(sets["train"]) == PEOPLE * IMAGES - 1
    assert "landmarks in 23 of 24 images" in caplog.text


def test_a_wrong_folder_or_model_says_what_to_do(world, tmp_path):
    folder, setup, _ = world
    (tmp_path / "bs000").mkdir()
    with pytest.raises(DataFileError, match=r"expected a prepared set .set\.json.; found bs000\. .*facerecon prepare"):
        load_prepared_faces(RecordedScans(name="bosphorus", root=str(tmp_path)), setup.model)
    with pytest.raises(DataFileError, match="no such folder"):
        load_prepared_faces(RecordedScans(name="bosphorus", root=str(tmp_path / "none")), setup.model)
    with pytest.raises(ValueError, match=r"data=bosphorus needs data\.root=FOLDER"):
        load_prepared_faces(RecordedScans(name="bosphorus"), setup.model)
    with pytest.raises(ValueError, match=r"was prepared with the model .*Give the same model\.path"):
        load_prepared_faces(RecordedScans(name="bosphorus", root=str(folder)), tiny_linear())


def test_a_cascade_is_trained_on_one_fold(world, tmp_path):
    folder, setup, _ = world
    save_model(setup.model, tmp_path / "tiny.safetensors")
    words = ["data=bosphorus", f"data.root={folder}", f"model.path={tmp_path / 'tiny.safetensors'}", "cv.fold=0"]
    words += ["cascade.stages=1", "fitting.select_penalties=false", "runtime.progress=false", "cv.folds=4"]
    words += ["fitting.crop.size=160", "fitting.crop.px_per_mm=0.7", "features.hog.patch_px=32"]
    assert main(["train", *words, f"output={tmp_path / 'run'}"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["counts"]["train"]["subjects"] == 6
    assert report["counts"]["test"]["subjects"] == 2
    assert set(report["by_kind"]["test"]) <= {"E_A", "N_A", "YR_A"}
    told = report["test"]["cascade"]["mae_mm"]["none"]["M"]
    assert {"whole", "centre", "whole_covered", "centre_covered"} == set(told)
    assert told["whole_covered"] == pytest.approx(told["whole"], rel=0.1)
    assert told["whole_covered"] != told["whole"]
