import json
import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from facerecon_torch.commands.config_keys import checked, command_help, config_folder
from facerecon_torch.commands.hydra_app import quote_paths
from facerecon_torch.commands.multirun import summarise


@pytest.mark.parametrize(
    "path",
    [
        "plain.jpg",
        "a b,c=d.jpg",
        "it's.png",
        "[1] {x}.jpg",
        "back\\slash",
        "ends\\",
        "a\\'b",
        'double"quote',
        "${HOME}",
    ],
)
def test_any_path_means_itself(path):
    (quoted,) = quote_paths([f"input={path}"])
    override = OverridesParser.create().parse_override(quoted)
    assert not override.is_sweep_override()
    value = override.value()
    # omegaconf un-escapes interpolations when the value is read
    assert (value if isinstance(value, str) else value.text).replace("\\${", "${") == path


def test_other_arguments_stay_as_they_are():
    same = ["-m", "cv.fold=0,1,2", "--help", "output='a b'", "model.path=null"]
    assert quote_paths(same) == same
    assert quote_paths(["a=1", "-m", "b=2,3"]) == ["-m", "a=1", "b=2,3"]
    with pytest.raises(ValueError, match="input must not be empty"):
        quote_paths(["input="])


def test_configs_are_found():
    assert (config_folder() / "infer.yaml").is_file()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("train", "cascade.stagse=3", "unknown key 'cascade.stagse'; did you mean 'cascade.stages'"),
        ("train", "stages=3", "unknown key 'stages'; did you mean 'cascade.stages'?"),
        ("train", "+features.hog.cells=4", "unknown key 'features.hog.cells'; did you mean 'features.hog.cell_px'"),
        ("train", "cascade.ridge.form=dual", "unknown key 'cascade.ridge.form'; did you mean 'regression.form'?"),
        ("train", "data=bosphors", "data has no option 'bosphors'; did you mean 'bosphorus'?"),
        ("train", "data=xyz", "data has no option 'xyz'; options are aflw2000, bosphorus, "),
        ("train", "fitting.fit=3", "fitting.fit holds several keys; set one, as in fitting.fit.rounds=VALUE"),
        ("train", "cv.fold=0,1", "'cv.fold=0,1' asks for several runs: add -m; a list has brackets, as in [1,2]"),
        ("train", "-m cv=group_kfold,paper", "cv has no option 'paper'; did you mean 'paper_5x5'?"),
        ("train", "data.root=[1", "cannot read 'data.root=[1'"),
        ("infer", "input=a output=b data=small", "unknown key 'data'"),
        ("infer", "photo.jpg", "an argument must be key=value or group=option; got 'photo.jpg'"),
        ("infer", "output=b", "input is required; give input=VALUE"),
        ("synth", "out=people", "unknown key 'out'; did you mean 'output'"),
        ("prepare", "output=b registration.icp.eyelid=1", "did you mean 'registration.icp.eyelid_weight'"),
    ],
)
def test_wrong_calls_are_answered_in_one_line_with_what_is_right(name, words, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        checked(name, words.split())
    assert "\n" not in str(caught.value)
    assert "use +" not in str(caught.value)


def test_right_calls_pass_and_keys_of_the_specs_alone_are_added():
    words = ["-m", "cv=group_kfold,paper_5x5", "data=bosphorus", "data.classes=[N]", "~cv.nested"]
    assert checked("train", words) == words
    words = ["output=b", "registration.icp.eyelid_weight=0.1", "registration.icp.vertices=300", "landmarks=dlib"]
    assert checked("prepare", words) == [words[0], f"+{words[1]}", *words[2:]]
    with pytest.raises(ValueError, match="unknown flag --cfg"):
        checked("infer", ["--cfg", "job"])


@pytest.mark.parametrize("name", ["train", "infer", "prepare", "synth", "compare"])
def test_help_is_of_the_command_alone(name):
    text = command_help(name)
    assert text.startswith(f"facerecon {name} ")
    assert text.count(f"  facerecon {name}") >= 1
    assert "  output: " in text
    assert "    device: auto          # auto | cpu" in text
    assert ("cv: group_kfold | holdout | paper_5x5 (default: holdout)" in text) == (name == "train")
    assert "hydra" not in text.lower()
    assert "_target_" not in text
    assert max(map(len, text.splitlines())) <= 132


def test_multirun_summary_groups_folds(tmp_path):
    def report(fold: int, stages: int, mae: float) -> str:
        errors = {"mae_mm": {a: {"M": {"whole": mae}} for a in ("none", "translation", "similarity")}}
        overrides = [f"cv.fold={fold}", f"cascade.stages={stages}"]
        return json.dumps({"overrides": overrides, "test": {"cascade": errors}})

    for job, (fold, stages, mae) in enumerate([(0, 3, 1.0), (1, 3, 3.0), (0, 5, 2.0)]):
        (tmp_path / str(job)).mkdir()
        (tmp_path / str(job) / "report.json").write_text(report(fold, stages, mae))
    (tmp_path / "3").mkdir()
    summary = summarise(tmp_path)
    three = summary["settings"]["cascade.stages=3"]["cascade"]["none"]
    assert three == {"mean": 2.0, "sd": pytest.approx(2**0.5), "jobs": 2}
    assert summary["settings"]["cascade.stages=5"]["cascade"]["none"]["jobs"] == 1
    assert summary["missing"] == ["3"]
