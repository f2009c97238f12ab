"""`benchmarks.accuracy.other_people`: people of a model file, photographed, found and measured."""

import json

import pytest

from benchmarks.accuracy.other_people import main
from facerecon_torch.model.default_face.build import load_default_face
from facerecon_torch.model.io import save_model


def test_people_of_the_default_face_s_own_file_are_met_by_the_shipped_cascade(tmp_path, capsys):
    file, report = tmp_path / "model.safetensors", tmp_path / "report.json"
    save_model(load_default_face(), file)
    assert main([f"model={file}", "people=3", "images=2", "workers=1", f"output={report}"]) == 0
    errors = json.loads(report.read_text())
    found, all_ = errors["images"]
    assert 4 <= found <= all_ == 6
    # people of the model that the cascade knows: no hard case
    assert errors["cascade"][0] < errors["landmark fit"][0] < errors["mean face"][0]
    low, high = errors["cascade / mean face"][1:]
    assert low < errors["cascade / mean face"][0] < high
    assert "landmark fit" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["model=x", "pepole=3"], ["people=3"]])
def test_unknown_keys_and_no_model_are_refused(words):
    with pytest.raises(ValueError, match="must be"):
        main(words)
