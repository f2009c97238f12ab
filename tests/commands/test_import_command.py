"""facerecon import-model: every kind has its reader; a foreign mesh becomes a model that can be fitted."""

import importlib
import inspect
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.import_model import command as import_entry
from facerecon_torch.commands.import_model import convert as import_model
from facerecon_torch.errors import ModelFileError
from facerecon_torch.export.meshes import save_obj
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.importers.template_mesh import read_template_mesh
from facerecon_torch.model.io import load_model
from facerecon_torch.model.load import ModelSpec, load_face_model
from facerecon_torch.registration.topology.complete import TopologySpec
from facerecon_torch.registration.topology.fit import TopologyFitSpec
from facerecon_torch.structures import Camera, FaceParameters, Mesh
from tests.registration.foreign_face import make_foreign_face

QUICK = TopologySpec(fit=TopologyFitSpec(rounds=8, stiffness=(10.0, 1.0)))
KNOWN = [30, 36, 39, 42, 45, 48, 51, 54, 57]


@pytest.fixture(scope="module")
def foreign():
    return make_foreign_face(seed=5)


@pytest.fixture(scope="module")
def folder(foreign, tmp_path_factory):
    """template.obj, modes.npz and known.json: vertices for some points, places for others."""
    folder = tmp_path_factory.mktemp("foreign model")
    save_obj(Mesh(vertices=foreign.vertices.float(), triangles=foreign.triangles), folder / "template.obj")
    vertices = foreign.vertices.numpy()
    centred = vertices - vertices.mean(0)
    nose, chin = foreign.truth[foreign.topology.landmark_vertices[[13, 49 + 8]]].numpy()
    bumps = [np.exp(-(((vertices - at) / 30) ** 2).sum(1))[:, None] for at in (nose, chin)]
    identity = np.stack([0.03 * centred * [1, 0, 0], 0.03 * centred * [0, 1, 0], bumps[0] * [0.0, -3.0, 2.0]])
    drop = bumps[1] * [0.0, -8.0, -2.0]
    np.savez(folder / "modes.npz", identity=identity, expression=drop[None], expression_names=np.array(["jawOpen"]))
    known = foreign.known(KNOWN)
    table = {point: vertex if point < 45 else vertices[vertex].tolist() for point, vertex in known.items()}
    (folder / "known.json").write_text(json.dumps(table))
    return folder


@pytest.fixture(scope="module")
def template(folder):
    return read_template_mesh(folder / "template.obj", folder / "modes.npz")


def _words(folder, out):
    return ["import-model", "mesh", f"{folder / 'template.obj'}", f"{out}", "--modes", f"{folder / 'modes.npz'}"]


@pytest.fixture(scope="module")
def imported(folder):
    """The command's status, its files' stem, and what `derive_topology` gave."""
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        derive = partial(import_model.derive_topology, spec=QUICK)
        patch.setattr(import_model, "derive_topology", lambda *a, spec, **k: kept.append(derive(*a, **k)) or kept[-1])
        status = main([*_words(folder, folder / "out.safetensors"), "--landmarks", str(folder / "known.json")])
    assert status == 0
    return folder / "out.safetensors", kept[0]


def test_the_import_writes_model_report_and_review(imported, foreign):
    out, _ = imported
    model, report = load_model(out), json.loads(out.with_suffix(".report.json").read_text())
    assert (model.n_vertices, model.n_identity, model.n_expression) == (len(foreign.vertices), 3, 1)
    assert report["sha256"] == model.sha256
    assert report["landmarks"] == {"known": len(KNOWN), "derived": 66 - len(KNOWN), "uncertain": 0}
    assert report["bytes"] == out.stat().st_size
    review = read_image(out.with_suffix(".review.png"))
    assert review.shape[-2:] == (1400, 1400)
    assert review.std() > 0.1


def test_landmarks_given_as_vertices_and_as_places_arrive(imported, foreign):
    vertices = load_model(imported[0]).topology.landmark_vertices
    for point, vertex in foreign.known(KNOWN).items():
        assert vertices[IBUG_OF_PAPER.index(point)] == vertex


def test_the_imported_model_can_be_fitted_to_landmarks(imported, rng):
    model = load_model(imported[0])
    n = 4
    truth = FaceParameters(identity=torch.randn(n, 3, generator=rng), expression=torch.rand(n, 1, generator=rng))
    yaw = torch.tensor([-0.6, -0.2, 0.0, 0.5])
    camera = Camera(
        rotation=euler_to_matrix(yaw, 0.1 * yaw, torch.zeros(n)),
        scale=torch.full((n,), 2.0),
        translation=torch.full((n, 2), 200.0),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )
    fitter = LandmarkFitter(model, FitSpec())
    points, _ = fitter.landmarks(truth, camera)
    fit = fitter.fit(project(points, camera))
    assert fit.inner_residual.max() < 0.5
    cosine = ((fit.camera.rotation * camera.rotation).sum((-2, -1)) - 1) / 2
    assert torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).max() < 3


def test_training_and_show_take_the_file(imported, tmp_path, capsys):
    model = load_face_model(ModelSpec(path=str(imported[0])))
    assert model.sha256 == load_model(imported[0]).sha256
    assert main(["show", str(imported[0]), str(tmp_path / "sheet.png")]) == 0
    assert f"{model.n_vertices} vertices, 3 x 1" in capsys.readouterr().out


def test_uncertain_tables_are_refused_with_their_reasons_unless_allowed(
    imported, folder, tmp_path, monkeypatch, capsys
):
    derived = imported[1]
    items = [replace(item, reason="the mesh is 9.9 mm away" if item.index == 50 else "") for item in derived.items]
    doubtful = replace(derived, items=tuple(items))
    monkeypatch.setattr(import_model, "derive_topology", lambda *a, **k: doubtful)
    monkeypatch.setattr(import_model, "draw_topology", partial(import_model.draw_topology, tile=60))
    out = tmp_path / "doubtful.safetensors"
    assert main(_words(folder, out)) == 2
    said = capsys.readouterr().err
    assert "landmark 1 (contour_2): the mesh is 9.9 mm away" in said
    assert said.count("\n") == 1
    assert not out.exists()
    assert out.with_suffix(".review.png").exists()
    assert json.loads(out.with_suffix(".report.json").read_text())["landmarks"]["uncertain"] == 1
    assert main([*_words(folder, out), "--allow-uncertain", "--storage", "float16"]) == 0
    assert "uncertain: landmark 1 (contour_2)" in capsys.readouterr().out
    assert load_model(out).n_vertices == derived.topology.n_vertices


def test_a_mesh_without_known_landmarks_says_what_it_needs(folder, tmp_path, capsys):
    assert main(_words(folder, tmp_path / "out.safetensors")) == 2
    assert "at least 4 known inner landmarks (iBUG 17 to 67); got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bfm2009", "no.mat", "out.safetensors"], "no.mat"),
        (["flame", "no.pkl", "out.obj"], "OUT must end in .safetensors"),
        (["surrey", "no.bin", "out.safetensors"], "no.bin"),
    ],
)
def test_wrong_calls_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["import-model", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_unknown_kind_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["import-model", "bfm1999", "a", "b"])
    assert "invalid choice: 'bfm1999'" in capsys.readouterr().err


@pytest.mark.parametrize("name", import_entry.KINDS)
def test_every_kind_has_a_reader_that_takes_its_options(name):
    kind = import_entry.KINDS[name]
    module, _, function = kind.reader.partition(".")
    reader = getattr(importlib.import_module(f"facerecon_torch.model.importers.{module}"), function)
    parameters = inspect.signature(reader).parameters
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty} - {"path"}
    options = {import_entry.dest_of(option) for option in kind.options}
    options = {"spec" if option in import_entry.BUILD else option for option in options}
    assert options <= set(parameters)
    assert required <= options
    with pytest.raises(SystemExit, match="0"):
        main(["import-model", name, "--help"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a JSON object"),
        ("{", "expected a JSON object"),
        ('{"68": 1}', "expected an iBUG point"),
        ('{"-1": 1}', "expected an iBUG point"),
        ('{"30": 1000000}', "expected a vertex below"),
        ('{"30": true}', "expected a vertex below"),
        ('{"30": [1, 2]}', "expected a vertex below"),
        ('{"30": [1, 2, NaN]}', "expected a vertex below"),
    ],
)
def test_damaged_landmark_files_are_named(text, message, template, tmp_path):
    (tmp_path / "known.json").write_text(text)
    with pytest.raises(ModelFileError, match=f"known.json: .*{message}"):
        import_model.read_known(tmp_path / "known.json", template)
