"""The command on files of each kind, all of one foreign face; the registration, tested elsewhere, is a stand-in."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.io
import torch

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.import_model import convert as import_model
from facerecon_torch.model.importers.imported import ImportedModel
from facerecon_torch.model.io import load_model
from facerecon_torch.model.topology import FaceTopology, landmark_lists
from facerecon_torch.registration.topology.checks import DerivedItem
from facerecon_torch.registration.topology.complete import DerivedTopology
from tests.model.importers.writers_basel_gnm import write_deep3d, write_gnm, write_noneck
from tests.model.importers.writers_linear import Face, flame_arrays, flat, obj_text, surrey, write_bfm2009, write_bfm_h5
from tests.registration.foreign_face import make_foreign_face


@pytest.fixture(scope="module")
def face():
    foreign = make_foreign_face(seed=7)
    draw = np.random.default_rng(1)
    n = len(foreign.vertices)
    bases = [np.linalg.qr(draw.normal(size=(3 * n, k)))[0].reshape(n, 3, k) for k in (3, 2)]
    mean = foreign.vertices.numpy().astype(np.float32).astype(np.float64)
    sds = np.array([90.0, 60.0, 30.0]), np.array([50.0, 20.0])
    return Face(mean, bases[0], sds[0], bases[1], sds[1], foreign.triangles.numpy())


@pytest.fixture
def calls(monkeypatch):
    """What the stand-in for `derive_topology` was called with."""
    calls = []

    def derive(mean, triangles, uv, known, *, given, listed, spec):
        calls.append({"mean": mean, "uv": uv, "known": known, "given": given, "listed": set(listed)})
        count = torch.arange(len(mean))
        lines = count[100 : 100 + 51].reshape(17, 3)
        flat_uv = torch.zeros(len(mean), 2) if uv is None else uv
        tables = (count[:66], lines, count[:200], count[:400])
        topology = FaceTopology(triangles, flat_uv, *(table.clone() for table in tables))
        items = (DerivedItem(kind="landmark", name="0", index=49, distance=0.1),)
        return DerivedTopology(
            topology=topology, known=dict(known), items=items, disagreement={}, placed=mean, scale=1.0, residual=0.1
        )  # fmt: skip

    monkeypatch.setattr(import_model, "derive_topology", derive)
    monkeypatch.setattr(import_model, "draw_topology", partial(import_model.draw_topology, tile=60))
    return calls


def _write_ict(folder, face):
    (folder / "FaceXModel").mkdir()
    polygons = face.triangles.tolist()
    shapes = {"generic_neutral_mesh": face.mean, "identity000": face.mean * 1.02, "jawOpen": face.mean - [0, 1, 0]}
    for name, vertices in shapes.items():
        (folder / "FaceXModel" / f"{name}.obj").write_text(obj_text(vertices / 10, polygons))


def _write_mat(file, face):
    core = np.stack([np.stack([face.mean.ravel(), 0 * face.mean.ravel()], -1), flat(face.expression)], 1) * 0.01
    core[:, 1] *= 100
    boundary = np.arange(1, 52).reshape(17, 3).astype(np.float64)
    rows = np.array([[1.0, 0.1], [1.0, -0.1]])
    content = {
        "Bilinear": {"Cr": core, "Wids": rows[[0, 1, 0]], "Weps": rows},
        "faces": face.triangles.astype(np.float64) + 1,
        "Landmarks": {"inner": np.arange(1.0, 50.0)[None], "boundary": boundary},
        "Segmentation": {"segCenter": np.arange(5.0, 80.0)[None]},
    }
    scipy.io.savemat(file, content)


_WRITERS = {
    "bfm2009": lambda path, face: write_bfm2009(path, face),
    "bfm2017": lambda path, face: write_bfm_h5(path, face, np.zeros_like(face.mean)),
    "flame": lambda path, face: np.savez(path, **flame_arrays(face)),
    "surrey": lambda path, face: path.write_bytes(surrey(face, version=2, expression="pca")),
    "ict": lambda path, face: _write_ict(path.parent, face),
    "facewarehouse-mat": _write_mat,
    "gnm": lambda path, face: write_gnm(path, face, vertex_group_names=np.array(["skin", "teeth", "outside"])),
    "deep3d": write_deep3d,
    "3ddfa-v2": lambda path, face: write_noneck(path.parent, face),
}
_CASES = {
    "bfm2009": ("model.mat", ["--texture"], (3, 0)),
    "bfm2017": ("model.h5", ["--n-identity", "2"], (2, 2)),
    "flame": ("model.npz", ["--split", "3"], (3, 2)),
    "surrey": ("model.bin", [], (3, 2)),
    "ict": ("FaceXModel", ["--region", "whole"], (1, 1)),
    "facewarehouse-mat": ("model.mat", ["--mm-per-unit", "100"], (2, 2)),
    "gnm": ("gnm_head.npz", ["--region", "skin"], (3, 2)),
    "deep3d": ("BFM_model_front.mat", ["--texture"], (3, 2)),
    "3ddfa-v2": ("bfm_noneck_v3.pkl", ["--n-expression", "1"], (3, 1)),
}


@pytest.mark.parametrize("kind", _CASES)
def test_files_of_this_kind_become_a_native_model(kind, face, calls, tmp_path, capsys):
    if kind == "bfm2017":
        pytest.importorskip("h5py")
    name, options, ranks = _CASES[kind]
    _WRITERS[kind](tmp_path / name, face)
    out = tmp_path / "out.safetensors"
    assert main(["import-model", kind, str(tmp_path / name), str(out), *options]) == 0
    model = load_model(out)
    assert (model.n_vertices, model.n_identity, model.n_expression) == (len(face.mean), *ranks)
    centred = face.mean - face.mean.mean(0)
    mean = calls[0]["mean"].double().numpy()
    size = np.linalg.norm(mean - mean.mean(0)) / np.linalg.norm(centred)
    assert 0.9 < size < 1.2
    said = capsys.readouterr().out
    assert f"{len(face.mean)} vertices, {len(face.triangles)} triangles, {ranks[0]} x {ranks[1]}" in said
    assert model.sha256 in said


def test_tables_of_the_file_reach_the_derivation(face, calls, tmp_path):
    _write_mat(tmp_path / "model.mat", face)
    words = ["facewarehouse-mat", str(tmp_path / "model.mat"), str(tmp_path / "out.safetensors")]
    assert main(["import-model", *words, "--mm-per-unit", "100"]) == 0
    given = calls[0]["given"]
    assert set(given) == {"inner_landmarks", "contour_lines", "centre_vertices"}
    assert given["inner_landmarks"].tolist() == list(range(49))


def test_a_known_mesh_brings_its_list_and_the_users_landmarks_win(calls, tmp_path):
    model, listed = _points(26317, "facescape_26317"), landmark_lists("facescape_26317")[0].vertices
    report = import_model.import_model(model, tmp_path / "out.safetensors", known={30: 5})
    assert calls[0]["known"] == {**listed, 30: 5}
    assert calls[0]["listed"] == set(listed) - {30}  # a user's own landmark is never placed anew
    assert [found["name"] for found in report["landmark_lists"]] == ["ibug68_v16"]
    assert json.loads((tmp_path / "out.report.json").read_text())["mesh"] == "facescape_26317"


def test_the_front_of_a_known_head_keeps_the_points_that_lie_in_it(calls, tmp_path):
    listed = landmark_lists("facescape_26317")[0].vertices
    head = torch.tensor(sorted({*listed.values()} - {listed[0]} | set(range(500, 900))))
    model = replace(_points(len(head), f"facescape_{len(head)}_front"), tables={"vertices_of_head": head})
    import_model.import_model(model, tmp_path / "out.safetensors")
    known = calls[0]["known"]
    assert set(known) == set(range(1, 68))
    assert all(int(head[known[point]]) == listed[point] for point in known)


def _points(n: int, name: str) -> ImportedModel:
    mean = 100 * torch.randn(n, 3, generator=torch.Generator().manual_seed(2)).clamp(-1.5, 1.5)
    return ImportedModel(
        kind="linear",
        factors={"mean": mean, "identity_basis": mean[..., None].clone(), "expression_basis": torch.zeros(n, 3, 0)},
        triangles=torch.tensor([[0, 1, 2]]),
        uv=None,
        expression_names=(),
        topology_name=name,
    )
