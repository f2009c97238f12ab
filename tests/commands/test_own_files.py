"""No command replaces a file that this package did not write: the call ends in one line, and the file stays."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.multirun import SummaryCallback
from facerecon_torch.commands.own_files import is_own, require_own_folder
from facerecon_torch.export import FaceTable, ImageRow
from tests.export.fitted_faces import drawn_faces

CONTENT = '{"mine": true}'


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize("name", ["config.yaml", "report.json", "cascade.safetensors", "cascade_fold2.safetensors"])
def test_a_run_folder_with_files_of_the_user_is_refused(command, name, tmp_path, capsys):
    if command == "prepare":
        name = name.replace("cascade.safetensors", "failures.json").replace("cascade_fold2.safetensors", "config.yaml")
    file = tmp_path / name
    file.write_text(CONTENT)
    words = ["data.root=nowhere"] if command == "prepare" else ["runtime.progress=false"]
    assert main([command, f"output={tmp_path}", *words]) == 2
    assert f"{name}: expected a free name or an earlier result" in "".join(capsys.readouterr())
    assert file.read_text() == CONTENT
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".yaml", ".json") and path != file]


@pytest.mark.parametrize("layout", ["photos", "bosphorus", "facewarehouse", "frgc"])
def test_a_synthetic_set_does_not_mix_with_files_of_the_user(layout, tmp_path, capsys):
    scan = tmp_path / "bs000" / "bs000_N_N_0.bnt"  # a real data set lies there
    scan.parent.mkdir()
    scan.write_text(CONTENT)
    half = tmp_path / ".half.part"
    half.write_text(CONTENT)
    words = [f"output={tmp_path}", "subjects=1", "runtime.progress=false", "runtime.workers=1"]
    assert main(["synth", f"layout={layout}", *words]) == 2
    assert "expected a new or empty folder, or one of an earlier run; it holds" in "".join(capsys.readouterr())
    assert (scan.read_text(), half.read_text()) == (CONTENT, CONTENT)


def test_parameters_are_exported_to_a_folder_of_their_own(tmp_path, capsys):
    source, out = tmp_path / "results", tmp_path / "out"
    source.mkdir()
    table = FaceTable(("smile",))
    table.append(ImageRow(input=0, path="photo.jpg"), drawn_faces(1, 1, torch.Generator().manual_seed(0)))
    table.save(source / "parameters" / "part-00000.parquet")
    call = ["export-parameters", str(source), str(out)]
    assert [main(call), main(call)] == [0, 0]  # an earlier export is replaced
    (out / "about.json").unlink()
    (out / "photo.mat").write_text(CONTENT)
    assert main(call) == 2
    assert "expected a new or empty folder, or an earlier result" in capsys.readouterr().err
    assert (out / "photo.mat").read_text() == CONTENT


def test_the_summary_of_several_runs_replaces_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("facerecon_torch.commands.multirun.summarise", lambda folder: {"settings": {}})
    (tmp_path / "summary.json").write_text(CONTENT)
    SummaryCallback().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert (tmp_path / "summary.json").read_text() == CONTENT
    assert "summary.json: expected a free name" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", "3", CONTENT, '{"format": "other"}', "[" * 100_000, "\0" * 100])
@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.safetensors", "a.parquet", "a.obj", "a.png"])
def test_files_without_the_mark_are_not_ours(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    assert not is_own(tmp_path / name)


def test_a_folder_is_ours_by_its_mark(tmp_path):
    require_own_folder(tmp_path / "new", "about.json")
    require_own_folder(tmp_path, "about.json")
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"it holds a\.txt"):
        require_own_folder(tmp_path, "about.json")
    (tmp_path / "about.json").write_text(json.dumps({"format": "facerecon-released"}))
    require_own_folder(tmp_path, "about.json")
