"""The command `facerecon compare`: a folder of scans with another system's results, its report, and wrong calls."""

import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.compare.specs import CompareSpecs
from facerecon_torch.commands.config_keys import config_folder
from facerecon_torch.config.recorded import build
from facerecon_torch.export import save_obj
from facerecon_torch.external.peers import EosSpec
from facerecon_torch.external.truth import SEVEN_ROWS
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import Mesh

QUIET = ["runtime.progress=false", "runtime.workers=1", "regions=false", "points=60"]


@pytest.fixture
def folders(tmp_path):
    """Two scans, and a system's folder with a mesh of one, a damaged one of the other and one of nobody."""
    model = load_default_face()
    scans, system = tmp_path / "scans", tmp_path / "my system, v2"
    scans.mkdir()
    system.mkdir()
    vertices = model(model.identity_mean, model.expression_mean)
    mesh = Mesh(vertices=vertices, triangles=model.topology.triangles)
    for name in ("p1_a", "p2_a", "p3_a"):
        save_obj(mesh, scans / f"{name}.obj")
        np.savetxt(scans / f"{name}.txt", vertices[model.topology.landmark_vertices[list(SEVEN_ROWS)]].numpy())
    save_obj(mesh, system / "p1_a.obj")
    save_obj(mesh, system / "nobody.obj")
    (system / "p2_a.obj").write_text("not a mesh\n")
    return scans, system


def test_scans_without_photographs_are_compared_with_a_folder(folders, tmp_path, capsys):
    scans, system = folders
    output = tmp_path / "out"
    assert main(["compare", f"truth={scans}", f"external={system}", f"output={output}", *QUIET]) == 1
    report = json.loads((output / "compare.json").read_text())
    listed = report["external"][system.name]
    assert (listed["faces"], listed["missing"], listed["extra"]) == (1, ["p3_a"], ["nobody.obj"])
    assert [entry["file"] for entry in listed["unreadable"]] == ["p2_a.obj"]
    assert (report["images"], report["common_images"]) == (3, 1)
    assert set(report["methods"]) == {"mean face", system.name}
    for entry in report["methods"].values():
        assert entry["mean"]["scan_similarity_mean_all"] < 1e-2
        assert abs(entry["mean"]["size_percent"]) < 0.1
    assert "| mean face |" in (output / "compare.md").read_text()
    rows = (output / "compare.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2
    assert "1 faces, 1 images without a file, 1 files of no image, 1 unreadable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["peers=[dlib]"], "peers must be among eos, mediapipe; got dlib"),
        (["images=0"], "images must be an integer of at least 1"),
        (["truth=nowhere"], "truth must be a folder of scans"),
        (["external=[a/x,b/x]"], "must have different names"),
        (["eos.model=a.bin"], "eos.model and eos.mapping belong together"),
        (["extrenal=a"], "external"),
    ],
)
def test_wrong_calls_say_what_is_wrong(words, message, tmp_path, capsys):
    assert main(["compare", f"output={tmp_path / 'none'}", *words, *QUIET]) == 2
    told = capsys.readouterr()
    assert message in told.out + told.err
    assert not (tmp_path / "none").exists()


def test_the_config_repeats_the_defaults_of_its_specs():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        specs = build(compose("compare", overrides=["output=out", "external=[a,b]"]))
    assert isinstance(specs, CompareSpecs)
    assert specs.eos == EosSpec()
    assert [folder.name for folder in specs.external] == ["a", "b"]
