"""`facerecon export-parameters`: what other programs read from the released form."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import scipy.io
import torch

from facerecon_torch.commands.cli import main
from facerecon_torch.data.prepared import load_prepared, save_prepared
from facerecon_torch.export import FaceTable, ImageRow
from facerecon_torch.model.io import save_model
from facerecon_torch.runtime.sharded_job import Shard
from tests.export.fitted_faces import drawn_faces
from tests.tiny_model import tiny_bilinear

NAMES = ("bs000_E_HAPPY_0", "bs001_N_N_0", "bs001_YR_L90_0")


@pytest.fixture(scope="module")
def model():
    return tiny_bilinear()


@pytest.fixture
def prepared(tmp_path, model):
    draw = torch.Generator().manual_seed(3)
    identity = model.identity_mean + 0.1 * torch.randn(3, 6, generator=draw)
    expression = model.expression_mean + 0.1 * torch.randn(3, 4, generator=draw)
    meshes = model.vertices(identity, expression)
    landmarks = 100 * torch.rand(3, 66, 2, generator=draw)
    landmarks[2] = torch.nan
    tables = {
        "identity": identity,
        "expression": expression,
        "rotation": torch.linalg.qr(torch.randn(3, 3, 3, generator=draw))[0],
        "translation": torch.randn(3, 3, generator=draw),
        "meshes": meshes,
        "covered": torch.ones(meshes.shape[:2], dtype=torch.bool),
        "landmarks": landmarks,
    }
    entries = [
        {
            **dict(zip(("subject", "kind", "code"), name.split("_"))),
            "name": name,
            "image": f"{name}.jpg",
            "flags": ["no_face"] if k == 2 else [],
        }
        for k, name in enumerate(NAMES)
    ]
    shard = Shard(tables | {"measure.scan_to_mesh": torch.rand(3)}, {"samples": entries, "failures": {}})
    save_prepared(tmp_path / "set", [shard], model_sha256=model.sha256, spec={})
    return load_prepared(tmp_path / "set")


def test_each_sample_is_released_as_it_is(prepared, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export-parameters", str(prepared.folder), str(out)]) == 0
    assert "3 samples" in capsys.readouterr().out
    for k, name in enumerate(NAMES):
        weights = scipy.io.loadmat(out / f"{name}.mat")
        assert {n: v.shape for n, v in weights.items() if n[0] != "_"} == {
            "wID": (1, 6),
            "wEP": (1, 4),
            "R": (3, 3),
            "T": (3, 1),
        }
        assert weights["wID"][0].tolist() == prepared.parameters.identity[k].tolist()
        assert weights["wEP"][0].tolist() == prepared.parameters.expression[k].tolist()
        assert weights["R"].tolist() == prepared.rotation[k].tolist()
        assert weights["T"][:, 0].tolist() == prepared.translation[k].tolist()
    points = np.fromfile(out / f"{NAMES[1]}.data", dtype="<f4").reshape(66, 2)
    assert points.tolist() == prepared.landmarks[1].tolist()
    assert sorted(p.name for p in out.glob("*.data")) == [f"{name}.data" for name in NAMES[:2]]
    assert "scan = R v + T" in json.loads((out / "about.json").read_text())["pose"]
    assert not list(out.glob("*.ply"))


def test_the_table_holds_all_of_it(prepared, tmp_path):
    main(["export-parameters", str(prepared.folder), str(tmp_path / "out")])
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert [row["name"] for row in rows] == list(NAMES)
    assert (rows[0]["class"], rows[0]["code"]) == ("E", "HAPPY")
    assert rows[0]["subject"] == "bs000"
    assert rows[0]["image"] == f"crops/{NAMES[0]}.jpg"
    assert rows[1]["wID"] == prepared.parameters.identity[1].tolist()
    assert rows[1]["R"] == prepared.rotation[1].flatten().tolist()
    assert rows[1]["landmarks"] == prepared.landmarks[1].flatten().tolist()
    assert rows[1]["s"] is None
    assert rows[2]["landmarks"] is None
    assert rows[2]["flags"] == ["no_face"]
    assert rows[2]["scan_to_mesh"] == float(prepared.measures["scan_to_mesh"][2])


def test_the_same_set_gives_the_same_bytes(prepared, tmp_path):
    for name in ("one", "two"):
        main(["export-parameters", str(prepared.folder), str(tmp_path / name)])
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_meshes_are_those_of_the_set(prepared, model, tmp_path):
    import trimesh

    save_model(model, tmp_path / "tiny.safetensors", storage="float32")
    words = ["export-parameters", str(prepared.folder), str(tmp_path / "out"), "--meshes"]
    assert main([*words, "--model", str(tmp_path / "tiny.safetensors")]) == 0
    mesh = trimesh.load(tmp_path / "out" / f"{NAMES[2]}.ply", process=False)
    assert np.asarray(mesh.vertices, dtype=np.float32).tolist() == prepared.meshes[2].tolist()


def test_another_model_is_refused(prepared, model, tmp_path, capsys):
    other = tiny_bilinear(n_identity=5)
    save_model(other, tmp_path / "other.safetensors", storage="float32")
    words = ["export-parameters", str(prepared.folder), str(tmp_path / "out"), "--meshes"]
    assert main([*words, "--model", str(tmp_path / "other.safetensors")]) == 2
    assert f"expected the model that the set was made with, {model.sha256}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_of_photographs_have_their_camera(tmp_path, rng):
    source, out = tmp_path / "results", tmp_path / "out"
    table = FaceTable(("smile",))
    images = {image: drawn_faces(n, 1, rng) for image, n in (("in/a.jpg", 2), ("in/b.jpg", 1), ("in/b.png", 1))}
    for position, (image, faces) in enumerate(images.items()):
        table.append(ImageRow(input=position, path=image), faces)
    table.save(source / "parameters" / "part-00000.parquet")
    assert main(["export-parameters", str(source), str(out)]) == 0
    assert sorted(p.stem for p in out.glob("*.mat")) == ["a", "a_face1", "b_jpg", "b_png"]
    weights, face = scipy.io.loadmat(out / "a_face1.mat"), images["in/a.jpg"][1]
    assert weights["s"] == float(face.camera.scale)
    assert weights["T"][:, 0].tolist() == pytest.approx(face.camera.translation.tolist(), abs=1e-7)
    assert weights["wEP"][0].tolist() == pytest.approx(face.parameters.expression.tolist(), abs=1e-7)
    points = np.fromfile(out / "b_png.data", dtype="<f4").reshape(66, 2)
    assert points.tolist() == images["in/b.png"].landmarks_2d[0].tolist()


@pytest.mark.parametrize("kind", ["missing", "empty", "same"])
def test_what_is_no_source_is_refused(prepared, tmp_path, capsys, kind):
    (tmp_path / "empty").mkdir()
    source = {"missing": tmp_path / "missing", "empty": tmp_path / "empty", "same": prepared.folder}[kind]
    out = source if kind == "same" else tmp_path / "out"
    assert main(["export-parameters", str(source), str(out)]) == 2
    told = capsys.readouterr().err
    assert ("out must be another folder" if kind == "same" else "expected the set.json of a prepared set") in told
    assert "Traceback" not in told
