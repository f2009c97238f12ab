"""GLB files with morph targets and texture, read back by hand, by trimesh and by the format's own validator."""

import io
import json
import shutil
import struct
import subprocess

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from facerecon_torch.export.glb import MorphTargets, save_glb
from facerecon_torch.export.meshes import save_obj
from facerecon_torch.export.texture import encode_texture
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.named_shapes import named_shapes
from facerecon_torch.structures import FaceParameters, Mesh

_VALIDATE = """
const validator = require('gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(scope="module")
def model():
    return load_default_face()


@pytest.fixture(scope="module")
def shapes(model):
    alpha = model.identity_mean + 0.5 * model.identity_variance.sqrt()
    return named_shapes(model, FaceParameters(alpha, model.expression_mean))


@pytest.fixture(scope="module")
def texture():
    ramp = torch.arange(64, dtype=torch.uint8).expand(64, 64) * 4
    return encode_texture(torch.stack([ramp, ramp.T, 255 - ramp]))


@pytest.fixture(scope="module")
def file(model, shapes, texture, tmp_path_factory):
    mesh = Mesh(vertices=shapes.neutral, **model.topology.surface())
    weights = torch.zeros(len(shapes.names))
    weights[shapes.names.index("jawOpen")], weights[shapes.names.index("mouthSmileLeft")] = 0.75, 0.5
    targets = MorphTargets(names=shapes.names, displacements=shapes.displacements, weights=weights)
    path = tmp_path_factory.mktemp("glb") / "face.glb"
    return save_glb(mesh, path, texture=texture, targets=targets), weights


def _read(path):
    """The document, and a function from the number of an accessor to its values."""
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    document, binary = json.loads(content[20 : 20 + length]), content[28 + length :]

    def values(number):
        accessor = document["accessors"][number]
        view = document["bufferViews"][accessor["bufferView"]]
        kind, width = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]], {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
        table = np.frombuffer(binary, kind, accessor["count"] * width[accessor["type"]], view["byteOffset"])
        return table.reshape(accessor["count"], -1)

    return document, binary, values


def test_weights_of_zero_are_the_neutral_mesh_and_the_set_ones_the_posed(file, model, shapes):
    path, weights = file
    document, _, values = _read(path)
    (described,) = document["meshes"]
    (primitive,) = described["primitives"]
    assert described["extras"]["targetNames"] == list(shapes.names)
    assert described["weights"] == weights.tolist()
    corners = values(primitive["indices"]).reshape(-1, 3)
    neutral = values(primitive["attributes"]["POSITION"])
    triangles = model.topology.triangles.numpy()
    np.testing.assert_allclose(neutral[corners] * 1e3, shapes.neutral.numpy()[triangles], atol=1e-4)
    moved = neutral + sum(
        weight * values(target["POSITION"]) for weight, target in zip(described["weights"], primitive["targets"])
    )
    posed = shapes.neutral + torch.einsum("n,nvc->vc", weights, shapes.displacements)
    np.testing.assert_allclose(moved[corners] * 1e3, posed.numpy()[triangles], atol=1e-4)
    assert (posed - shapes.neutral).abs().max() > 5


def test_the_texture_is_the_file_that_was_given(file, texture):
    document, binary, _ = _read(file[0])
    (image,) = document["images"]
    view = document["bufferViews"][image["bufferView"]]
    assert binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] == texture
    assert document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}


def test_trimesh_shows_the_same_texture_from_glb_and_obj(file, model, shapes, texture, tmp_path):
    glb = trimesh.load_mesh(file[0], process=False)
    mesh = Mesh(vertices=shapes.neutral, **model.topology.surface())
    obj = trimesh.load_mesh(save_obj(mesh, tmp_path / "a face.obj", texture=texture), process=False)
    picture = np.asarray(Image.open(io.BytesIO(texture)))
    for loaded, image in ((glb, glb.visual.material.baseColorTexture), (obj, obj.visual.material.image)):
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), picture)
        uv = loaded.visual.uv[loaded.faces]
        np.testing.assert_allclose(uv, model.topology.corner_uv, atol=2e-6)


def test_the_validator_finds_no_error_and_no_warning(file):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    checked = subprocess.run([node, "-e", _VALIDATE, str(file[0])], capture_output=True, text=True, timeout=120)
    if "Cannot find module" in checked.stderr:
        pytest.skip("the npm package gltf-validator is not installed")
    issues = json.loads(checked.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_targets_must_fit_the_mesh(model, shapes, tmp_path):
    mesh = Mesh(vertices=shapes.neutral, **model.topology.surface())
    with pytest.raises(ValueError, match=r"weights must have trailing shape"):
        MorphTargets(names=("a",), displacements=torch.zeros(1, 4, 3), weights=torch.zeros(2))
    few = MorphTargets(names=("a",), displacements=torch.zeros(1, 4, 3), weights=torch.zeros(1))
    with pytest.raises(ValueError, match=r"targets\.displacements must have"):
        save_glb(mesh, tmp_path / "a.glb", targets=few)


@pytest.mark.parametrize(("save", "suffix"), [(save_glb, "glb"), (save_obj, "obj")])
def test_a_texture_needs_texture_coordinates(save, suffix, shapes, model, texture, tmp_path):
    bare = Mesh(vertices=shapes.neutral, triangles=model.topology.triangles)
    with pytest.raises(ValueError, match="a texture needs a mesh with texture coordinates"):
        save(bare, tmp_path / f"a.{suffix}", texture=texture)
    assert not list(tmp_path.iterdir())
