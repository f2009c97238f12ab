"""The native model file: exact round trips, and every damaged file refused with file, key, expected and got."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model import io as native
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.io import load_model, save_model
from facerecon_torch.model.linear import LinearModel
from tests.tiny_model import tiny_bilinear, tiny_linear, with_gauge

BUILDERS = {
    "bilinear": tiny_bilinear,
    "free": lambda: with_gauge(tiny_bilinear(), "free"),
    "linear": tiny_linear,
    "bare": lambda: BilinearModel(
        *tiny_bilinear().factors().values(), None, expression_names=[f"expression {k}" for k in range(7)]
    ),
    "untextured": lambda: LinearModel(torch.zeros(4, 3), torch.ones(4, 3, 2), torch.ones(4, 3, 1), None),
}


@pytest.fixture
def path(tmp_path):
    """A model file in a folder whose name needs care."""
    folder = tmp_path / "my models, v=1"
    folder.mkdir()
    save_model(tiny_bilinear(), folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


def read(path):
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}, json.loads(file.metadata()["facerecon"])


def rewrite(path, tensors=None, document=None, rehash=True):
    """The file with tensors or document entries changed (None removes one), its hash made to fit unless told not to."""
    new_tensors, new_document = read(path)
    for target, changes in ((new_tensors, tensors or {}), (new_document, document or {})):
        target.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del target[name]
    if rehash and "sha256" not in (document or {}):
        new_document["sha256"] = native._digest(new_document, new_tensors)
    save_file(new_tensors, str(path), metadata={"facerecon": json.dumps(new_document)})


@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_round_trip_is_exact(tmp_path, kind, storage):
    model = BUILDERS[kind]().to(getattr(torch, storage))
    save_model(model, tmp_path / "model.safetensors", storage=storage)
    again = load_model(tmp_path / "model.safetensors")
    assert type(again) is type(model)
    assert again.expression_names == model.expression_names
    assert getattr(again, "gauge", None) == getattr(model, "gauge", None)
    assert again.sha256 == model.sha256
    for (name, ours), (_, theirs) in zip(again.factors().items(), model.factors().items(), strict=True):
        assert_close(ours, theirs, rtol=0, atol=0, msg=name)
    if storage == "float32":  # in float64, the statistics were rounded to float32 before the model was moved
        for (name, ours), (_, theirs) in zip(again.named_buffers(), model.named_buffers(), strict=True):
            assert_close(ours, theirs, rtol=0, atol=0, msg=name)
    assert (again.topology is None) == (model.topology is None)
    if model.topology is not None:
        for ours, theirs in zip(again.topology.tables().values(), model.topology.tables().values(), strict=True):
            assert_close(ours, theirs, rtol=0, atol=0)


def with_seams(model):
    """The model with texture coordinates of corners that no two triangles share."""
    corner_uv = torch.rand(len(model.topology.triangles), 3, 2, generator=torch.Generator().manual_seed(0))
    seamed = deepcopy(model)
    seamed._topology = replace(model.topology, corner_uv=corner_uv)
    return seamed


@pytest.mark.parametrize("build", [tiny_bilinear, tiny_linear])
def test_texture_seams_are_kept_and_change_no_hash(tmp_path, build):
    model = build()
    seamed = with_seams(model)
    assert seamed.sha256 == model.sha256
    save_model(seamed, tmp_path / "seams.safetensors")
    save_model(model, tmp_path / "none.safetensors")
    assert [read(tmp_path / f"{name}.safetensors")[1]["version"] for name in ("none", "seams")] == [1, 2]
    again = load_model(tmp_path / "seams.safetensors")
    assert torch.equal(again.topology.corner_uv, seamed.topology.corner_uv)
    assert load_model(tmp_path / "none.safetensors").topology.corner_uv is None
    assert again.to(torch.float64).topology.corner_uv.dtype == torch.float64


@pytest.mark.parametrize("build", [tiny_bilinear, tiny_linear])
def test_half_storage_rounds_only_the_large_arrays(tmp_path, build):
    model = build()
    save_model(model, tmp_path / "half.safetensors", storage="float16")
    again = load_model(tmp_path / "half.safetensors")
    assert again.dtype == torch.float32
    mean = (model.identity_mean, model.expression_mean)
    error = (again.vertices(*mean) - model.vertices(*mean)).abs().max()
    assert 0 < error < 0.06  # mm: half an ulp at 64..128 mm is 0.03, and several factors add up
    tensors, _ = read(tmp_path / "half.safetensors")
    large = {"core", "identity_basis", "expression_basis", "texture_basis"}
    assert {name for name, array in tensors.items() if array.dtype == torch.float16} == large & set(tensors)


def test_file_is_written_from_any_device(tmp_path, device):
    save_model(tiny_bilinear().to(device), tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").sha256 == tiny_bilinear().sha256


def test_failed_write_leaves_the_old_file_alone(path, monkeypatch):
    before = path.read_bytes()
    big = tiny_bilinear()
    big.core[0, 0, 0, 0] = 1e5
    with pytest.raises(ValueError, match=r"core must fit into float16; its largest magnitude is 100000"):
        save_model(big, path, storage="float16")

    def fail(tensors, target, metadata):
        with open(target, "wb") as file:
            file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(native, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(big, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_save_refuses_unknown_storage_and_models(path):
    with pytest.raises(ValueError, match=r"storage must be one of float16, float32, float64; got 'bfloat16'"):
        save_model(tiny_bilinear(), path, storage="bfloat16")

    class Other(BilinearModel):
        pass

    with pytest.raises(ValueError, match="model must have all of its vertices to be saved"):
        save_model(tiny_bilinear().restrict(torch.arange(5)), path)
    other = tiny_bilinear()
    other.__class__ = Other
    with pytest.raises(TypeError, match="got Other"):
        save_model(other, path)


@pytest.mark.parametrize("keep", [0, 4, 8, 200, -1])
def test_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match=r"tiny.safetensors: expected a complete safetensors file"):
        load_model(path)


def test_foreign_bytes_are_refused(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    with pytest.raises(ModelFileError, match="complete safetensors file"):
        load_model(path)


def test_missing_file_and_folder_are_named(tmp_path):
    for target in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(target)):
            load_model(target)


def test_every_changed_byte_is_noticed(path):
    whole = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in range(header, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="sha256: expected"):
            load_model(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": "cascade"}, r"format: expected 'facerecon-model'; got 'cascade'"),
        ({"version": 3}, r"version: expected 1 or 2; got 3"),
        ({"version": 2}, r"tensors: expected .*missing \['topology.corner_uv'\]"),
        ({"version": None}, r"version: expected 1 or 2; got None"),
        ({"version": True}, r"version: expected a value of type int; got True"),
        ({"gauge": None}, r"metadata keys: expected .*'gauge'.*; got "),
        ({"surprise": 1}, r"metadata keys: expected .*; got .*'surprise'"),
        ({"kind": "cubic"}, r"kind: expected one of \['bilinear', 'linear'\]; got 'cubic'"),
        ({"storage": "int8"}, r"storage: expected one of .*; got 'int8'"),
        ({"expression_names": "neutral"}, r"expression_names: expected a value of type list; got 'neutral'"),
        ({"expression_names": [1] * 7}, r"expression_names: expected a list of strings; got \[1"),
        ({"expression_names": ["a"]}, r"expression_names must name 7 rows; got 1"),
        ({"gauge": "loose"}, r"gauge: expected one of \['fixed', 'free'\]; got 'loose'"),
        ({"sha256": "0" * 64}, r"sha256: expected 0{64}; got contents with [0-9a-f]{64}"),
        ({"topology": False}, r"tensors: expected .*unknown \['topology"),
        ({"storage": "float64"}, r"core: expected torch.float64; got torch.float32"),
    ],
)
def test_wrong_document_is_refused(path, document, message):
    rewrite(path, document=document)
    with pytest.raises(ModelFileError, match=r"tiny.safetensors: .*" + message):
        load_model(path)


def test_document_is_covered_by_the_hash(path):
    _, document = read(path)
    rewrite(path, document={"expression_names": document["expression_names"][::-1]}, rehash=False)
    with pytest.raises(ModelFileError, match="sha256: expected"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {"other": "{}"}, {"facerecon": "{"}, {"facerecon": "[1]"}])
def test_file_without_document_is_refused(path, metadata):
    tensors, _ = read(path)
    save_file(tensors, str(path), metadata=metadata)
    with pytest.raises(ModelFileError, match=r"metadata 'facerecon': expected a JSON document|format: expected"):
        load_model(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"identity_rows": None}, r"tensors: expected \['core', .*; got missing \['identity_rows'\], unknown \[\]"),
        ({"extra": torch.zeros(2)}, r"got missing \[\], unknown \['extra'\]"),
        ({"core": torch.zeros(313, 3, 6, 4).double()}, r"core: expected torch.float32; got torch.float64"),
        ({"topology.triangles": torch.zeros(5, 3).int()}, r"topology.triangles: expected torch.int64; got torch.int32"),
        ({"core": torch.zeros(313, 3, 6, 5)}, r"expression_rows must have trailing shape \(any, 5\); got \(7, 4\)"),
        ({"core": torch.zeros(313, 3, 24)}, r"core must have trailing shape"),
        ({"core": torch.zeros(312, 3, 6, 4)}, r"topology must have 312 vertices"),
        ({"core": torch.full((313, 3, 6, 4), torch.nan)}, r"core must be finite"),
        (
            {"topology.landmark_vertices": torch.arange(68)},
            r"landmark_vertices must have shape \(66\) and not be empty; got \(68,\)",
        ),
        ({"topology.triangles": torch.full((5, 3), 313)}, r"topology.triangles must lie in \[0, 313\); got 313 to 313"),
    ],
)
def test_wrong_tensors_are_refused(path, tensors, message):
    rewrite(path, tensors=tensors)
    with pytest.raises(ModelFileError, match=r"tiny.safetensors: .*" + message):
        load_model(path)


def test_arrays_that_share_memory_are_stored_apart(tmp_path):
    tiny = tiny_linear()
    shared = torch.zeros(tiny.n_vertices, 3, 4)
    model = LinearModel(tiny.mean, shared[..., :2], shared[..., 2:], tiny.topology)
    save_model(model, tmp_path / "m.safetensors")
    assert_close(load_model(tmp_path / "m.safetensors").expression_basis, torch.zeros(tiny.n_vertices, 3, 2))
