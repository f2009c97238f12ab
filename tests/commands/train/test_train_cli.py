"""Training from the command line on a handful of rendered people: run folders, folds, multirun, experiments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch.testing import assert_close

from facerecon_torch.cascade.checkpoint import load_checkpoint
from facerecon_torch.commands.cli import main
from facerecon_torch.commands.multirun import summarise
from facerecon_torch.commands.own_files import is_own
from facerecon_torch.commands.train.methods import METHODS
from facerecon_torch.evaluation.errors import ALIGNMENTS, REGIONS, TRUTHS
from facerecon_torch.files import write_json

TRAIN = str(Path(__file__).resolve().parents[3] / "train.py")
FEW = [
    "data.train_subjects=6",
    "data.train_images=2",
    "data.test_subjects=2",
    "data.test_images=2",
    "data.shifted_subjects=1",
    "data.shifted_images=2",
    "runtime.progress=false",
    "fitting.select_penalties=false",
]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> str:
    """One cache of pictures for all tests of this file."""
    return f"data.root={tmp_path_factory.mktemp('a cache, shared')}"


def run(rendered: str, folder: Path, *words: str) -> Path:
    assert main(["train", rendered, f"output={folder}", *FEW, *words]) == 0
    return folder


def test_a_run_folder_holds_everything(rendered, tmp_path):
    folder = run(rendered, tmp_path / "a run", "cv.nested=2", "cascade.stages=1")
    report = json.loads((folder / "report.json").read_text())
    assert report["counts"]["train"] == {"images": 12, "subjects": 6}
    assert report["counts"]["test"] == {"images": 4, "subjects": 2}
    for which in ("test", "shifted"):
        assert set(report[which]) == set(METHODS)
        for errors in report[which].values():
            for table in (errors["mae_mm"], errors["rmse_z_mm"]):
                values = [table[a][t][r] for a in ALIGNMENTS for t in TRUTHS for r in REGIONS]
                assert all(0 < value < 100 for value in values)
            assert -50 < errors["size_error_percent"] < 50
    assert {"relative_penalty", "cross_fitted_mae_mm", "test_mae_mm", "kept"} <= set(report["stages"][0])
    assert {"seconds", "peak_memory_mb", "versions", "device", "seed", "command"} <= set(report)
    assert report["seconds"]["train"] > 0 < report["peak_memory_mb"]["train"]
    assert "train_subjects: 6" in (folder / "config.yaml").read_text()
    face = load_checkpoint(folder / "cascade.safetensors")
    assert face.training["counts"]["train"]["subjects"] == 6
    assert all(is_own(folder / name) for name in ("config.yaml", "report.json", "cascade.safetensors"))


def test_a_recorded_run_runs_again(rendered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(rendered, tmp_path / "a run, [1] =x ${y}", "cv.nested=0", "cascade.stages=1")
    assert main(["train", f"config={first / 'config.yaml'}", f"output={tmp_path / 'again'}"]) == 0
    command = json.loads((tmp_path / "again" / "report.json").read_text())["command"]
    assert command[:3] == ["facerecon", "train", f"config={first / 'config.yaml'}"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a run, [1] =x ${y}", "again"]  # no other run folder
    assert "run folder: " in (first / "train.log").read_text()
    configs, errors = [], []
    for folder in (first, tmp_path / "again"):
        configs.append((folder / "config.yaml").read_text())
        errors.append(json.loads((folder / "report.json").read_text())["test"])
    assert configs[1] == configs[0]
    assert errors[1] == errors[0]


def test_multirun_ends_with_a_summary(rendered, tmp_path):
    words = ["-m", "cv.fold=0,1", "cascade.stages=1", "cv.folds=3", "cv.nested=0", f"output={tmp_path}"]
    assert main(["train", rendered, *FEW, *words]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    (setting,) = summary["settings"].values()
    assert setting["cascade"]["none"]["jobs"] == 2
    # Every fold trains on other people; so few that a cascade may keep no stage.
    assert setting["landmark_fit_bias"]["none"]["sd"] > 0
    for job in range(2):
        assert (tmp_path / str(job) / "cascade.safetensors").is_file()


def test_jobs_are_summarised_by_their_settings(tmp_path):
    for job, (words, error) in enumerate(
        [(["cv.fold=0", "cascade.stages=1"], 1.0), (["cv.fold=1", "cascade.stages=1"], 3.0), (["cv.fold=0"], 5.0)]
    ):
        errors = {"mae_mm": {align: {"M": {"whole": error}} for align in ALIGNMENTS}}
        write_json(tmp_path / str(job) / "report.json", {"overrides": words, "test": {"cascade": errors}})
    (tmp_path / "3").mkdir()
    summary = summarise(tmp_path)
    assert summary["missing"] == ["3"]
    assert sorted(v["cascade"]["none"]["jobs"] for v in summary["settings"].values()) == [1, 2]
    (both,) = (v["cascade"]["none"] for v in summary["settings"].values() if v["cascade"]["none"]["jobs"] == 2)
    assert (both["mean"], both["sd"]) == (2.0, pytest.approx(2**0.5))


def test_folds_of_the_training_people(rendered, tmp_path):
    folder = run(rendered, tmp_path, "cv.protocol=group_kfold", "cv.folds=3", "cv.nested=0", "cascade.stages=1")
    report = json.loads((folder / "report.json").read_text())
    assert [fold["fold"] for fold in report["folds"]] == [0, 1, 2]
    assert sum(fold["counts"]["test"]["subjects"] for fold in report["folds"]) == 6
    assert all(fold["counts"]["train"]["subjects"] == 4 for fold in report["folds"])
    names = [f"cascade_fold{k}.safetensors" for k in range(3)]
    assert sorted(path.name for path in folder.glob("*.safetensors")) == names
    assert [load_checkpoint(folder / name).training["fold"] for name in names] == [0, 1, 2]


# the other experiments differ from these in numbers
@pytest.mark.parametrize("name", ["ours_paper", pytest.param("hog_patch", marks=pytest.mark.slow), "shipped"])
def test_experiments_run(rendered, tmp_path, name):
    folder = run(rendered, tmp_path, f"experiment={name}", "cv.nested=0", "cascade.stages=1", "data.seed=0")
    report = json.loads((folder / "report.json").read_text())
    assert report["test"]["cascade"]["mae_mm"]["none"]["M"]["whole"] > 0


def test_a_real_detector_finds_the_landmarks(rendered, tmp_path):
    pytest.importorskip("dlib")
    folder = run(rendered, tmp_path, "landmarks=dlib", "cv.nested=0", "cascade.stages=1")
    report = json.loads((folder / "report.json").read_text())
    assert report["counts"]["train"]["images"] <= 12


@pytest.mark.slow
def test_two_processes_train_what_one_trains(rendered, tmp_path):
    words = ["cv.nested=2", "cascade.stages=2", "runtime.dtype=float64", "fitting.select_penalties=true"]
    folders = {1: run(rendered, tmp_path / "one", *words), 2: tmp_path / "two, together"}
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", TRAIN]
    subprocess.run([*launched, rendered, f"output={folders[2]}", *FEW, *words], check=True, cwd=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two, together"]  # the second process left nothing
    one, two = (json.loads((folders[n] / "report.json").read_text()) for n in (1, 2))
    assert (one["processes"], two["processes"]) == (1, 2)
    for key in ("counts", "penalties"):
        assert two[key] == one[key]
    for method in METHODS:
        for which in (lambda r: r["test"], lambda r: r["shifted"], lambda r: r["nested"]["methods"]):
            for align in ALIGNMENTS:
                a, b = (which(r)[method]["mae_mm"][align]["M"]["whole"] for r in (one, two))
                assert b == pytest.approx(a, rel=1e-6)
    a, b = (load_checkpoint(folders[n] / "cascade.safetensors").cascade.stages for n in (1, 2))
    for mine, theirs in zip(a, b, strict=True):
        assert_close(theirs.ridge.weight, mine.ridge.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_failure_of_one_process_ends_all_with_its_message(rendered, tmp_path):
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", TRAIN]
    words = ["cascade.start=elsewhere", f"output={tmp_path}"]
    done = subprocess.run([*launched, rendered, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "cascade.start must be landmark_fit or mean_face; got 'elsewhere'" in done.stdout + done.stderr


def test_processes_do_not_share_a_multirun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "-m", "cv.fold=0,1"]) == 2
    assert "torchrun trains one run at a time" in capsys.readouterr().err
