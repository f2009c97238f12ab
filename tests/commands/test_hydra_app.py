import json

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from facerecon_torch.commands.hydra_app import config_folder, quote_paths
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
