"""`facerecon evaluate` on a prepared set of the tiny world: every experiment, resuming, bad calls."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from facerecon_torch.cascade.feature_cache import encode_crops
from facerecon_torch.commands.cli import main
from facerecon_torch.commands.config_keys import config_folder
from facerecon_torch.commands.evaluate import run as study_run
from facerecon_torch.commands.evaluate.command import evaluate
from facerecon_torch.commands.evaluate.crops import CROPS, band_limited, with_features
from facerecon_torch.commands.evaluate.methods import MethodFitter
from facerecon_torch.commands.evaluate.posed import PosedState, camera_of_pose, pose_of_camera
from facerecon_torch.commands.evaluate.run import StudyRun
from facerecon_torch.commands.train.first_stage import FirstStageCache
from facerecon_torch.commands.train.methods import fit_cascade
from facerecon_torch.evaluation.errors import method_errors
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.io import save_model
from facerecon_torch.runtime.memory import CacheLocation
from facerecon_torch.structures import Camera
from tests.prepared_world import write_prepared
from tests.tiny_world import make_samples, make_setup

KINDS = ("N_N", "N_N1", "E_HAPPY", "YR_R10")
EXPERIMENTS = sorted(
    path.stem
    for path in (config_folder() / "experiment").glob("*.yaml")
    if "evaluation" in yaml.safe_load(path.read_text())
)
ALL_METHODS = sorted(path.stem for path in (config_folder() / "method").glob("[!_]*.yaml"))
FEW = "[mean_face,landmark_fit,ours]"
OTHERS = ["evaluation.external_images=3", "evaluation.eos_tune=2"]  # of fig8 and fig9


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The words of a call on a set of 6 people, with the model that it was prepared with."""
    top = tmp_path_factory.mktemp("a prepared set, tiny")
    setup, _ = write_prepared(top / "prepared", 6, KINDS)
    save_model(setup.model, top / "tiny.safetensors")
    return [
        f"data.root={top / 'prepared'}",
        f"model.path={top / 'tiny.safetensors'}",
        "fitting.crop.size=160",
        "fitting.crop.px_per_mm=0.7",
        "runtime.progress=false",
        "cv=group_kfold",
        "cv.folds=2",
    ]


def quick(methods: str) -> list[str]:
    """Methods with one stage, small patches and fixed penalties of the landmark fit."""
    names = methods.strip("[]").split(",")
    words = [f"method={methods}", *(f"method.{name}.fitting.select_penalties=false" for name in names)]
    words += [f"method.{name}.cascade.stages=1" for name in names]
    small = [name for name in names if name not in ("ours_cell32", "ours_paper", "ours_authors_code")]
    return words + [f"method.{name}.features.hog.patch_px=32" for name in small]


def call(world, folder, *words) -> list[str]:
    """The words of a call; later ones replace those of the world."""
    changed = {word.partition("=")[0] for word in words}
    return ["evaluate", *(word for word in world if word.partition("=")[0] not in changed), f"output={folder}", *words]


def run(world, folder, *words) -> dict:
    assert main(call(world, folder, *words)) == 0
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not name.startswith(("fig10", "paper"))])
def test_every_experiment_runs(world, tmp_path, experiment):
    peers = ["evaluation.peers=[mediapipe]"] if experiment == "fig9_external_gallery" else []  # eos takes longest
    report = run(world, tmp_path, f"experiment={experiment}", *quick(FEW), *OTHERS, *peers)
    (study,) = report["studies"].values()
    if experiment in ("fig8_external", "fig9_external_gallery"):
        own = {"mean_face", "landmark_fit", "ours", "mediapipe"}
        found = study["outside"]["methods"]
        assert own <= set(found) <= own | {"eos"}
        assert all(entry["images"] == 3 for entry in found.values())
    assert set(study["methods"]) == {"mean_face", "landmark_fit", "ours"}
    assert study["counts"]["subjects"] == (3 if "alone" in study["protocol"] else 6)
    assert "group_kfold" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "images.parquet").is_file()


def test_a_system_without_a_readable_face_is_counted_and_left_out(world, tmp_path):
    (tmp_path / "damaged").mkdir()
    for person in range(6):
        (tmp_path / "damaged" / f"bs{person:03d}_N_N_0.obj").write_text("v 0 0\n")
    words = [
        "experiment=fig8_external",
        *quick(FEW),
        "evaluation.external_images=6",
        "evaluation.peers=[]",
        f"evaluation.external={tmp_path / 'damaged'}",
    ]
    outside = run(world, tmp_path / "out", *words)["studies"]["full"]["outside"]
    assert set(outside["methods"]) == {"mean_face", "landmark_fit", "ours"}
    note = outside["notes"]["damaged"]
    assert note.startswith("0 faces, ")
    assert not note.endswith(" 0 unreadable")


def test_folders_of_points_alone_or_of_other_names_leave_the_methods_measured(world, tmp_path):
    (tmp_path / "points").mkdir()
    (tmp_path / "strangers").mkdir()
    np.save(tmp_path / "strangers" / "zoe.npy", np.zeros((68, 2)))
    for person, kind in itertools.product(range(6), KINDS):
        np.save(tmp_path / "points" / f"bs{person:03d}_{kind}_0.npy", np.zeros((68, 2)))
    folders = f"[{tmp_path / 'points'},{tmp_path / 'strangers'}]"
    words = ["experiment=fig8_external", *quick(FEW), *OTHERS, "evaluation.peers=[]", f"evaluation.external={folders}"]
    outside = run(world, tmp_path / "out", *words)["studies"]["full"]["outside"]
    assert outside["left_out"] == ["points"]
    assert set(outside["methods"]) == {"mean_face", "landmark_fit", "ours"}
    assert outside["notes"]["strangers"].startswith("0 faces, ")


def test_estimates_of_another_model_are_measured_with_that_model(world, tmp_path):
    methods = "[ours,landmark_fit,landmark_fit_linear,ours_free_gauge,ours_linear]"
    (study,) = run(world, tmp_path, "experiment=ablation", *quick(methods))["studies"].values()
    mae = {name: entry["interval_mm"]["mae none vs M whole"]["mean"] for name, entry in study["methods"].items()}
    # Weights of the one model under the other are tens of millimetres away.
    assert max(mae.values()) < 2 * mae["landmark_fit"]
    # So few people gain nothing across subjects, and no stage is kept: what differs are the models' landmark fits.
    assert len({mae["landmark_fit"], mae["landmark_fit_linear"], mae["ours_free_gauge"]}) == 3
    assert mae["ours_linear"] == pytest.approx(mae["landmark_fit_linear"], rel=1e-6)


def test_the_reference_has_the_model_of_the_run(world, tmp_path, capsys):
    assert main(call(world, tmp_path, "experiment=full_set", *quick("[ours]"), "method.ours.model=linear")) == 2
    assert "evaluation.reference must be a method with model=own; got one with model=linear" in capsys.readouterr().err


def test_another_set_is_tested_after_training_on_this_one(world, tmp_path):
    write_prepared(tmp_path / "other", 3, ("N_N", "E_HAPPY"), seed=11, missing=0)
    words = [f"evaluation.facewarehouse={tmp_path / 'other'}", "experiment=fig10_cross_dataset", *quick(FEW)]
    study = run(world, tmp_path / "out", *words)["studies"]["to_facewarehouse"]
    assert study["protocol"] == "trained on bosphorus, tested on facewarehouse"
    assert study["counts"]["training"] == [{"images": 23, "subjects": 6}]
    assert (study["counts"]["images"], study["counts"]["subjects"]) == (6, 3)


def test_the_paper_is_one_page_in_its_order(world, tmp_path):
    report = run(world, tmp_path, "experiment=paper", *quick(FEW), *OTHERS, "evaluation.folds_at_once=2")
    assert set(report["studies"]) == {"neutral", "full", "ablation"}
    text = (tmp_path / "report.html").read_text()
    places = [
        text.index(f">{title}")
        for title in ("Table 1", "Fig. 3", "Fig. 4", "Fig. 5", "Fig. 6", "Fig. 7", "Fig. 8", "Fig. 9", "Ablation")
    ]
    assert places == sorted(places)


def test_all_methods_answer_for_the_same_images(world, tmp_path):
    names = [name for name in ALL_METHODS if name not in ("ours_patch", "ours_stride1")]
    # So few people gain nothing across subjects: these two move in-sample. The camera that one of them regresses moves
    # the points of its second stage alone.
    moved = [
        f"method.{name}.cascade.{word}"
        for name in ("hog_only", "zhu_fg2015")
        for word in ("cross_fit=false", "stages=2")
    ]
    report = run(world, tmp_path, *quick(f"[{','.join(names)}]"), *moved, "cv.fold=0")
    (study,) = report["studies"].values()
    assert set(study["methods"]) == set(names)
    errors = {name: entry["mae_mm"]["none"]["M"]["whole"] for name, entry in study["methods"].items()}
    assert max(errors["ours"], errors["landmark_fit"]) < errors["mean_face"]
    assert len({errors["zhu_fg2015"], errors["hog_only"], errors["landmark_fit"]}) == 3
    assert study["comparisons"].keys() == {f"ours - {name}" for name in names if name != "ours"}


def test_a_run_goes_on_where_it_stopped(world, tmp_path, monkeypatch):
    first = run(world, tmp_path, *quick(FEW))
    (tmp_path / "studies" / "full" / "ours_fold1.safetensors").unlink()
    fitted = []
    fit = MethodFitter.fit
    monkeypatch.setattr(MethodFitter, "fit", lambda self, name, *rest: fitted.append(name) or fit(self, name, *rest))
    again = run(world, tmp_path, *quick(FEW))
    assert fitted == ["ours"]
    assert again["studies"]["full"]["methods"] == first["studies"]["full"]["methods"]
    run(world, tmp_path, *quick(FEW), "runtime.seed=1")
    assert len(fitted) == 7  # other folds: all three methods on both


def test_a_set_that_was_prepared_again_is_estimated_again(world, tmp_path, monkeypatch):
    first = run(world, tmp_path, *quick(FEW))
    load = study_run.load_sets

    def prepared_again(*args, **kwargs):
        sets = load(*args, **kwargs)
        return {name: replace(faces, landmarks=faces.landmarks + 1.5) for name, faces in sets.items()}

    monkeypatch.setattr(study_run, "load_sets", prepared_again)
    again = run(world, tmp_path, *quick(FEW))
    methods = [document["studies"]["full"]["methods"] for document in (first, again)]
    assert methods[0]["mean_face"] == methods[1]["mean_face"]
    assert methods[0]["landmark_fit"] != methods[1]["landmark_fit"]


def test_a_recorded_study_runs_again(world, tmp_path):
    first = run(world, tmp_path / "one", *quick("[mean_face,ours]"))
    config = tmp_path / "one" / "studies" / "full" / "config.yaml"
    assert main(["evaluate", f"config={config}", f"output={tmp_path / 'two'}"]) == 0
    again = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert again["studies"]["full"]["methods"] == first["studies"]["full"]["methods"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=shipped"], "experiment has no option 'shipped'"),
        (["method=[ours,zhu]"], "method has no option 'zhu'"),
        (["method=[mean_face]"], "evaluation.reference must be one of the methods mean_face; got 'ours'"),
        (["evaluation.sections=[fig11]"], "evaluation.sections must be among methods, table1"),
        (["data.classes=[N,CUA]"], "E, N, YR; got ['CUA']"),
        (["data.subjects=[nobody]"], "data.subjects must be among those of"),
        (["cv.folds=50"], "cv.folds must lie between 2 and the number of subjects"),
        (["cv=paper_5x5"], "needs more than 25 subjects"),
        (["evaluation.external=[a/deca,b/deca]"], "folders in external must have different names"),
        (["evaluation.external=a/deca"], "evaluation.external must name folders of results; there is no a/deca"),
    ],
)
def test_wrong_calls_are_one_line(world, tmp_path, capfd, monkeypatch, words, message):
    monkeypatch.setattr(StudyRun, "_samples", lambda *_: pytest.fail("crops are cut before the call is checked"))
    assert main(call(world, tmp_path, *words)) == 2
    assert message in "".join(capfd.readouterr())


def test_files_of_others_are_left_alone(world, tmp_path, capfd):
    (tmp_path / "metrics.csv").write_text("mine")
    assert main(["evaluate", *world, f"output={tmp_path}"]) == 2
    assert "expected a free name" in "".join(capfd.readouterr())
    assert (tmp_path / "metrics.csv").read_text() == "mine"
    with pytest.raises(FileExistsError):
        evaluate([], tmp_path)


def test_a_cascade_that_regresses_its_camera_learns_the_shape(tiny_setup):
    train = make_samples(tiny_setup, people=30, images=3, seed=1)
    test = make_samples(tiny_setup, people=6, images=3, seed=2, first_subject=100)
    cache = FirstStageCache()
    states = [PosedState(part, cache.first_stage(tiny_setup, part)) for part in (train, test)]
    assert states[0].x.shape == states[0].target.shape == (90, train.parameters.flat.shape[1] + 6)
    fit = fit_cascade(tiny_setup, states[0], {"test": states[1]}, ("hog",))
    estimates = {"fitted": states[1].fitted, "posed": fit.estimates["test"]}
    mae = {
        name: float(method_errors(tiny_setup.model, estimate, test).mae["none", "M", "whole"].mean())
        for name, estimate in estimates.items()
    }
    assert mae["posed"] < 0.9 * mae["fitted"]


def test_a_camera_survives_its_six_numbers():
    angles = torch.tensor([[0.3, -0.2, 0.1], [1.5, 0.3, -0.4]])
    camera = Camera(
        rotation=euler_to_matrix(*angles.unbind(1)),
        scale=torch.tensor([1.4, 0.6]),
        translation=torch.tensor([[160.0, 150.0], [80.0, 82.0]]),
        degenerate=torch.zeros(2, dtype=torch.bool),
    )
    again = camera_of_pose(pose_of_camera(camera))
    for name in ("rotation", "scale", "translation"):
        assert_close(getattr(again, name), getattr(camera, name), rtol=1e-5, atol=1e-4)


def test_band_limited_crops_lose_fine_detail_alone():
    setup = make_setup()
    samples = make_samples(setup, people=2, images=1, seed=0)
    line = torch.arange(160)
    fine = ((line % 2) * 255).to(torch.uint8).expand(2, 3, 160, 160)
    coarse = ((line // 40 % 2) * 255).to(torch.uint8).expand(2, 3, 160, 160)
    limited = [band_limited(replace(samples, table=table, hog=CROPS), 0.4).table.float() for table in (fine, coarse)]
    assert float(limited[0][:, :, 20:-20, 20:-20].std()) < 5
    assert float((limited[1] - coarse.float())[..., 10:30].abs().mean()) < 5
    assert torch.equal(band_limited(replace(samples, table=fine), 1.2).table, fine)


def test_features_made_from_kept_crops_are_those_of_the_crops():
    setup = make_setup()
    samples = make_samples(setup, people=2, images=2, seed=0)
    crops = (torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(1)) * 255).round()
    kept = replace(samples, table=crops.to(torch.uint8), hog=CROPS)
    made = with_features(kept, samples.hog, CropSpec(size=160), CacheLocation(torch.device("cpu")), progress=False)
    assert torch.equal(made.table, encode_crops(crops / 255, samples.hog))
    assert with_features(kept, replace(CROPS, cell_px=32), CropSpec(size=160), CacheLocation(torch.device("cpu")),
                         progress=False).table is kept.table  # fmt: skip
