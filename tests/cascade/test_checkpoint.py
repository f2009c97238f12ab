import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.errors import ModelFileError
from tests.tiny_model import tiny_bilinear


@pytest.fixture
def saved(tiny_outcome, tmp_path):
    trained = tiny_outcome.reconstructor
    face = FaceReconstructor(trained.face_model, trained.cascade, trained.spec, training={"counts": 3})
    face.save_pretrained(tmp_path / "cascade.safetensors")
    return face, tmp_path / "cascade.safetensors"


def test_round_trip(saved):
    face, path = saved
    again = FaceReconstructor.from_pretrained(path, face_model=face.face_model)
    assert again.spec == face.spec
    assert again.training_facts == {"counts": 3}
    for a, b in zip(again.cascade.stages, face.cascade.stages, strict=True):
        assert torch.equal(a.ridge.weight, b.ridge.weight)
    assert not list(path.parent.glob("*.part"))


def test_the_error_of_expressions_is_kept(tiny_outcome, tmp_path):
    face, path = tiny_outcome.reconstructor, tmp_path / "cascade.safetensors"
    face.save_pretrained(path, half=True)
    again = FaceReconstructor.from_pretrained(path, face_model=face.face_model)
    for name in ("offset", "gain", "covariance", "penalty"):
        assert torch.equal(getattr(again.expression_error, name), getattr(face.expression_error, name))
    beta = face.face_model.expression_rows
    weights = face.face_model.expression_weights(beta, face.naming)
    assert torch.equal(face.face_model.expression_weights(beta, again.naming), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("expression_error.gain"), "gain missing"),
        (lambda tensors: tensors.update({"expression_error.gain": torch.zeros(2, 3)}), r"gain: expected finite"),
        (lambda tensors: tensors["expression_error.offset"].fill_(torch.nan), r"offset: expected finite"),
    ],
)
def test_a_damaged_error_of_expressions_is_refused(change, message, tiny_outcome, tmp_path):
    face, path = tiny_outcome.reconstructor, tmp_path / "cascade.safetensors"
    face.save_pretrained(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, str(path), metadata=metadata)
    with pytest.raises(ModelFileError, match=message):
        FaceReconstructor.from_pretrained(path, face_model=face.face_model)


def test_half_precision_is_close(tiny_outcome, tmp_path):
    face = tiny_outcome.reconstructor
    face.save_pretrained(tmp_path / "half.safetensors", half=True)
    face.save_pretrained(tmp_path / "full.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "full.safetensors").stat().st_size
    weight = (
        FaceReconstructor.from_pretrained(tmp_path / "half.safetensors", face_model=face.face_model)
        .cascade.stages[0]
        .ridge.weight
    )
    full = face.cascade.stages[0].ridge.weight
    assert_close(weight, full, rtol=0.0, atol=2**-11 * float(full.abs().max()))


def test_a_cascade_for_another_model_is_refused(saved):
    _, path = saved
    with pytest.raises(ModelFileError, match=r"cascade\.safetensors: model_sha256: .*another face model"):
        FaceReconstructor.from_pretrained(path, face_model=tiny_bilinear(n_identity=5))


def edit(path, change):
    with safe_open(str(path), framework="pt") as file:
        document = json.loads(file.metadata()["facerecon"])
    change(document)
    save_file(load_file(path), str(path), metadata={"facerecon": json.dumps(document)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=1), "version: expected 2; got 1"),
        (lambda d: d.update(format="model"), "format: expected 'facerecon-cascade'; got 'model'"),
        (lambda d: d.update(convention="dlib"), "convention must be mediapipe or ibug; got 'dlib'"),
        (lambda d: d.pop("crop"), "metadata keys: expected .*'crop'"),
        (lambda d: d["features"]["hog"].update(cell_px=7), "patch_px must be a multiple of cell_px"),
        (lambda d: d["fit"].update(colour=1), "colour"),
        (lambda d: d.update(training=[1]), "metadata 'training': expected dict; got "),
        (lambda d: d.update(model_sha256=None), "metadata 'model_sha256': expected str; got None"),
    ],
)
def test_wrong_documents_are_refused(saved, change, message):
    face, path = saved
    edit(path, change)
    with pytest.raises(ModelFileError, match=message):
        FaceReconstructor.from_pretrained(path, face_model=face.face_model)


@pytest.mark.parametrize("size", [0, 1, 7, 100, 5000])
def test_truncated_files_are_refused(saved, size):
    face, path = saved
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"cascade\.safetensors"):
        FaceReconstructor.from_pretrained(path, face_model=face.face_model)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cascade must be an existing file"):
        FaceReconstructor.from_pretrained(tmp_path / "none.safetensors")
