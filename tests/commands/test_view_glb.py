"""Morph targets read from GLB files, whole and damaged."""

import json
import struct

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from facerecon_torch.commands.view.glb_file import read_targets
from facerecon_torch.errors import DataFileError
from facerecon_torch.export.glb import METRES_PER_UNIT, MorphTargets, save_glb
from facerecon_torch.structures import Mesh

MESH = Mesh(
    vertices=torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]),
    triangles=torch.tensor([[0, 1, 2], [2, 3, 0]]),
)
TARGETS = MorphTargets(
    names=["smile", "blink"], displacements=torch.arange(24.0).reshape(2, 4, 3), weights=torch.tensor([0.25, 1.5])
)


@pytest.fixture
def content(tmp_path):
    return save_glb(MESH, tmp_path / "face.glb", targets=TARGETS).read_bytes()


def _changed(content, change):
    """The file with another document."""
    length = struct.unpack_from("<I", content, 12)[0]
    document = json.loads(content[20 : 20 + length])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = content[20 + length :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def test_targets_come_back_as_they_were_written(content, tmp_path):
    read = read_targets(content, tmp_path)
    assert read.names == ["smile", "blink"]
    assert_allclose(read.displacements, TARGETS.displacements.numpy() * METRES_PER_UNIT, rtol=1e-6)
    assert_allclose(read.weights, [0.25, 1.5])


def test_what_the_format_leaves_out_has_its_defaults(content, tmp_path):
    bare = _changed(content, lambda document: [document["meshes"][0].pop(key) for key in ("weights", "extras")])
    read = read_targets(bare, tmp_path)
    assert read.names == ["target 1", "target 2"]
    assert_allclose(read.weights, [0, 0])
    placed = _changed(content, lambda document: document["nodes"][0].update(weights=[0.5, 0.75]))
    assert_allclose(read_targets(placed, tmp_path).weights, [0.5, 0.75])


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["meshes"][0]["primitives"][0].pop("targets"),
        lambda document: document["meshes"].append(document["meshes"][0]),
        lambda document: document["nodes"][0].update(scale=[2, 2, 2]),
        lambda document: document.pop("meshes"),
    ],
    ids=["no targets", "two meshes", "placed", "no mesh"],
)
def test_other_files_have_no_targets(content, change, tmp_path):
    assert read_targets(_changed(content, change), tmp_path) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: b"", "begins with glTF"),
        (lambda content: b"PK" + content[2:], "begins with glTF"),
        (
            lambda content: content[:4] + struct.pack("<I", 1) + content[8:],
            "expected version 2",
        ),
        (lambda content: content[:-4], "it is damaged"),
        (lambda content: content[:12] + struct.pack("<I", 10**6) + content[16:], "expected a chunk of 1000000 bytes"),
        (lambda content: content[:16] + b"ABCD" + content[20:], "expected a chunk JSON"),
        (lambda content: content[:20] + b"?" + content[21:], "expected a JSON document"),
    ],
)
def test_damaged_files_are_refused_by_their_fault(content, change, words, tmp_path):
    with pytest.raises(DataFileError, match=words):
        read_targets(change(content), tmp_path / "face.glb")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document.pop("accessors"), "it lacks 'accessors'"),
        (lambda document: document["accessors"][-1].update(count=3), "is not of 4 points of floats"),
        (lambda document: document["accessors"][-1].update(componentType=5123), "is not of 4 points of floats"),
        (lambda document: document["accessors"][-1].update(sparse={}), "is sparse"),
        (lambda document: document["bufferViews"][-1].update(byteStride=24), "is interleaved"),
        (lambda document: document["bufferViews"][-1].update(byteOffset=10**6), "lies outside"),
        (lambda document: document["bufferViews"][-1].update(byteOffset=-12), "lies outside"),
        (lambda document: document["meshes"][0].update(weights=[1.0]), "2 targets have 2 names and weights"),
        (lambda document: document["meshes"][0].update(weights=["a", "b"]), "morph targets"),
        (lambda document: document["meshes"][0].update(primitives=7), "morph targets"),
        (lambda document: document.update(meshes=[[]]), "morph targets"),
    ],
)
def test_damaged_targets_are_refused_by_their_fault(content, change, words, tmp_path):
    with pytest.raises(DataFileError, match=words):
        read_targets(_changed(content, change), tmp_path / "face.glb")


def test_targets_that_are_not_finite_are_refused(content, tmp_path):
    damaged = content[:-12] + np.full(3, np.nan, "<f4").tobytes()
    with pytest.raises(DataFileError, match="not finite"):
        read_targets(damaged, tmp_path / "face.glb")
