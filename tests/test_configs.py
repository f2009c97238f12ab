"""Configs compose, build their specs and agree with the documents; recorded configs build what ran."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.commands.cli import _COMMANDS
from facerecon_torch.commands.config_keys import _options, checked, config_folder, search_path
from facerecon_torch.commands.evaluate.command import build_specs
from facerecon_torch.commands.hydra_app import quote_paths
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions, InferSpecs
from facerecon_torch.commands.prepare.specs import PrepareSpecs
from facerecon_torch.config.evaluate import EvaluateSpecs
from facerecon_torch.config.recorded import RECORDED_DEFAULTS, build, recorded, write_config
from facerecon_torch.config.train import TrainSpecs
from facerecon_torch.landmarks.scheme import CONVENTIONS
from facerecon_torch.landmarks.source import LandmarkSourceSpec

GROUPS = ("model", "data", "landmarks", "fitting", "features", "cascade", "cv", "runtime")
OPTIONS = [(g, p.stem) for g in (*GROUPS, "regression") for p in sorted((config_folder() / g).glob("[!_]*.yaml"))]
EXPERIMENTS = _options("experiment", "train")
EVALUATIONS = _options("experiment", "evaluate")
METHODS = _options("method", "evaluate")
ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def composed(name: str, *overrides: str, folder: Path | None = None):
    with initialize_config_dir(str(folder or config_folder()), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def specs_of(*overrides: str, name: str = "train", folder: Path | None = None) -> TrainSpecs:
    config = composed(name, *overrides, folder=folder)
    return TrainSpecs(**{group: build(config[group]) for group in GROUPS})


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds(group, option):
    assert isinstance(specs_of(f"{group}={option}"), TrainSpecs)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds(name):
    assert isinstance(specs_of(f"experiment={name}"), TrainSpecs)


def evaluation_of(*overrides: str) -> EvaluateSpecs:
    return build_specs(composed("evaluate", *overrides))


@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_evaluation_builds(name):
    specs = evaluation_of(f"experiment={name}")
    assert "mean_face" in specs.method
    assert set(specs.evaluation.parts) <= set(EVALUATIONS)


def test_a_default_method_is_the_default_training():
    trained, method = specs_of(), evaluation_of().method["ours"]
    assert (method.fitting, method.features, method.cascade) == (trained.fitting, trained.features, trained.cascade)


def test_every_method_builds_and_differs_from_the_others():
    methods = evaluation_of(f"method=[{','.join(METHODS)}]").method
    assert list(methods) == METHODS
    assert all(a != b for k, a in enumerate(methods.values()) for b in list(methods.values())[:k])


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("shipped_ibug", "experiment=shipped landmarks=noise landmarks.convention=ibug"),
        ("shipped", "landmarks=mediapipe data.train_subjects=1200 data.train_images=3 cv.nested=0 runtime.half=true"),
        ("hog_patch", "data.shifted_subjects=0 cv.nested=0 features.hog.evaluation=patch"),
        ("hog_dense1", "data.shifted_subjects=0 cv.nested=0 features.hog.stride=1"),
        ("hog_dense4", "data.shifted_subjects=0 cv.nested=0"),
        ("leave_one_out", "data.train_subjects=20 data.train_images=12 data.shifted_subjects=0 cv.nested=20"),
        ("registered_scans", "data=bosphorus cv.fold=0"),
    ],
)
def test_a_published_number_has_its_experiment(name, keys):
    assert specs_of(f"experiment={name}") == specs_of(*keys.split())
    assert f"experiment={name}" in (ROOT / "docs" / "results.md").read_text()


@pytest.mark.parametrize(("convention", "name"), [("mediapipe", "shipped"), ("ibug", "shipped_ibug")])
def test_a_shipped_cascade_has_the_config_that_made_it(convention, name):
    path = pretrained_path(convention).with_name("config.yaml")
    shipped = specs_of(search_path(), name="config", folder=path.parent)
    asked = specs_of(f"experiment={name}", "runtime.progress=false")
    assert shipped == asked.settled(CPU)
    report = json.loads(path.with_name("report.json").read_text())
    named = [Path(word.split("=")[-1].strip("'")) for word in report["command"] + report["overrides"]]
    assert not [path for path in named if path.is_absolute()]  # of the machine that it was made on


@pytest.mark.parametrize("group", GROUPS)
def test_yaml_repeats_the_defaults_of_its_spec(group):
    specs = specs_of()
    spec = getattr(specs, group)
    if group == "cascade":  # the grid of block weights is a choice of the experiment, not of the spec
        spec = replace(spec, ridge=replace(spec.ridge, block_weights_grid=None))
    assert spec == type(spec)()


def test_infer_repeats_the_defaults_of_its_options():
    specs = build(composed("infer", "input=a.jpg", "output=b", "landmarks=file"))
    assert isinstance(specs, InferSpecs)
    assert specs.options == InferOptions()
    assert (specs.input, specs.output, specs.cascade) == (InputSpec(path="a.jpg"), Path("b"), None)


def test_the_papers_algorithm_is_a_matter_of_keys():
    specs = specs_of("cascade.cross_fit=false", "regression.relative_penalty=10", "cascade.stages=4")
    assert (specs.cascade.cross_fit, specs.cascade.ridge.relative_penalty, specs.cascade.stages) == (False, 10, 4)


def test_a_wrong_number_of_stages_is_refused():
    with pytest.raises(ValueError, match=r"cascade\.stages must be an integer of at least 1; got 0"):
        specs_of("cascade.stages=0")


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=small", "regression.block_weights_grid=[[1,1]]"],
        ["data=frgc", "data.root='a ${b}, c'", "data.classes=[N]"],
        ["data=bosphorus", "data.root=x", "landmarks=file", "landmarks.path='points, [all].csv'", "cv.fold=1"],
    ],
    ids=["synthetic", "holdout becomes folds", "landmarks from a file"],
)
def test_a_recorded_run_is_the_run_that_happened(words, tmp_path):
    words = [word.replace("${", "\\${") for word in words]
    ran = specs_of(*words).settled(CPU)
    write_config(tmp_path / "config.yaml", ran, "train", head={"defaults": RECORDED_DEFAULTS})
    again = specs_of(search_path(), name="config", folder=tmp_path)
    assert again == again.settled(CPU) == ran
    if words[0] == "data=frgc":
        assert (again.landmarks.source, again.cv.protocol, again.cv.nested) == ("set", "group_kfold", 0)
        assert again.data.root == "a ${b}, c"


def test_a_recorded_preparation_builds_again(tmp_path):
    groups = ("model", "data", "landmarks", "registration", "prepare", "runtime")

    def specs(config):
        return PrepareSpecs(**{group: build(config[group]) for group in groups})

    ran = specs(composed("prepare", "output=x", "landmarks=file", "gt.identity=per_subject", "prepare.batch=3"))
    write_config(tmp_path / "config.yaml", ran, "prepare", head={"output": "???"})
    again = specs(OmegaConf.load(tmp_path / "config.yaml"))
    assert again == ran
    assert (again.registration.identity, again.prepare.batch) == ("per_subject", 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"fold_count": 3}, "CvSpec: got an unexpected keyword argument 'fold_count'"),
        ({"folds": 1}, "cv.folds must be an integer of at least 2; got 1"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec, message):
    with pytest.raises(ValueError, match=message):
        build(OmegaConf.create({"_target_": "facerecon_torch.data.splits.CvSpec", **spec}))


def test_only_plain_values_are_recorded():
    with pytest.raises(TypeError, match=r"text, numbers, lists and specs; got \w*Path"):
        recorded([Path("a")])


def _calls() -> list[tuple[str, str]]:
    """(command, arguments) of every call that the documents show."""
    files = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *(pretrained_path(c).with_name("MODEL_CARD.md") for c in CONVENTIONS),
    ]
    text = "\n".join(file.read_text() for file in [*files, *sorted(config_folder().glob("*.yaml"))])
    found = re.findall(
        r"^(?:# |    |`)?facerecon (train|infer|prepare|synth|evaluate|compare)((?: [-\w.]+(?:=\S+)?)*)",
        text,
        re.MULTILINE,
    )
    calls = [
        (name, [word for word in words.rstrip("`").split() if "=" in word or word == "-m"]) for name, words in found
    ]
    return [(name, " ".join(words)) for name, words in calls if words]


@pytest.mark.parametrize(("command", "words"), sorted(set(_calls())))
def test_every_call_in_the_documents_is_right(command, words):
    if "config=" not in words:
        checked(command, quote_paths(shlex.split(words)))  # raises ValueError for a wrong one


def test_every_command_in_the_documents_exists():
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(file.read_text() for file in files)
    named = set(re.findall(r"(?:^|`|\(|# )facerecon ([a-z][-\w]+)", text, re.MULTILINE))
    assert len(named) >= 8
    assert named <= set(_COMMANDS)


def test_landmarks_of_files_have_a_path():
    words = ["input=a.jpg", "output=b", "landmarks=file", "landmarks.path=points.csv"]
    assert build(composed("infer", *checked("infer", quote_paths(words)))).landmarks.path == "points.csv"


@pytest.mark.parametrize("origin", [0, 1, None])
def test_landmarks_of_files_have_an_origin(origin):
    words = [] if origin is None else [f"landmarks.origin={origin}"]
    landmarks = build(composed("infer", "input=a.jpg", "output=b", "landmarks=file", *words)).landmarks
    given = {"origin": origin} if origin is not None else {}
    assert landmarks.options(CPU) == {"source": None, **given}


def test_an_origin_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"landmarks\.origin must be 0 or 1; got 2"):
        LandmarkSourceSpec(source="file", origin=2)
    with pytest.raises(ValueError, match=r"landmarks\.origin is for file; got source 'dlib'"):
        LandmarkSourceSpec(source="dlib", origin=1)


def test_the_documents_show_calls():
    assert {command for command, _ in _calls()} == {"train", "infer", "prepare", "synth", "evaluate", "compare"}
    assert len(_calls()) > 20
