"""OBJ, PLY and GLB read back by trimesh and, for what trimesh repairs silently, by hand."""

import json
import struct

import numpy as np
import pytest
import torch
import trimesh

from facerecon_torch.export import save_glb, save_obj, save_ply
from facerecon_torch.structures import Mesh

WRITERS = {".obj": save_obj, ".ply": save_ply, ".glb": save_glb}


@pytest.fixture(params=WRITERS)
def suffix(request):
    return request.param


def _mesh(rng, dtype=torch.float32):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=80)
    vertices = torch.as_tensor(ball.vertices.copy(), dtype=dtype) + torch.tensor([0.0, 12.5, 3.0], dtype=dtype)
    uv = torch.rand(len(vertices), 2, generator=rng, dtype=torch.float64).to(dtype)
    return Mesh(vertices=vertices, triangles=torch.as_tensor(ball.faces.copy()), uv=uv)


def _read(path):
    return trimesh.load(path, process=False, force="mesh")


def _glb(path):
    content = path.read_bytes()
    magic, version, total = struct.unpack("<4sII", content[:12])
    assert (magic, version, total) == (b"glTF", 2, len(content))
    size, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON"
    assert size % 4 == 0
    binary_size, binary_kind = struct.unpack("<I4s", content[20 + size : 28 + size])
    assert binary_kind == b"BIN\0"
    assert 28 + size + binary_size == len(content)
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def _columns(document, binary):
    primitive = document["meshes"][0]["primitives"][0]
    rows = {**primitive["attributes"], "indices": primitive["indices"]}
    columns = {}
    for name, index in rows.items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        kind = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        columns[name] = np.frombuffer(part, kind).reshape(accessor["count"], width)
        assert columns[name].min(axis=0).tolist() == accessor["min"]
        assert columns[name].max(axis=0).tolist() == accessor["max"]
    return columns


@pytest.mark.parametrize("with_normals", [True, False])
@pytest.mark.parametrize("with_uv", [True, False])
@pytest.mark.parametrize("with_colours", [True, False])
def test_geometry_survives_every_combination(suffix, with_normals, with_uv, with_colours, rng, tmp_path):
    mesh = _mesh(rng)
    colours = torch.rand(len(mesh.vertices), 3, generator=rng) if with_colours else None
    mesh = mesh if with_uv else Mesh(vertices=mesh.vertices, triangles=mesh.triangles)
    path = tmp_path / f"face{suffix}"
    assert WRITERS[suffix](mesh, path, normals=with_normals, colours=colours) == path
    read = _read(path)
    unit = 1000 if suffix == ".glb" else 1
    np.testing.assert_array_equal(read.faces, mesh.triangles.numpy())
    np.testing.assert_allclose(read.vertices * unit, mesh.vertices.numpy(), atol=1e-5 if suffix == ".obj" else 1e-4)
    assert read.volume > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_uv_and_colours_come_back(suffix, dtype, rng, tmp_path):
    mesh = _mesh(rng, dtype)
    colours = torch.rand(len(mesh.vertices), 3, generator=rng).to(dtype)
    path = tmp_path / f"face{suffix}"
    WRITERS[suffix](mesh, path, colours=colours)
    outwards = torch.nn.functional.normalize(mesh.vertices - torch.tensor([0.0, 12.5, 3.0], dtype=dtype), dim=-1)
    read = _read(path)
    np.testing.assert_allclose(read.vertex_normals, outwards.numpy(), atol=0.02)
    if suffix == ".glb":
        columns = _columns(*_glb(path))
        flipped = np.stack([mesh.uv[:, 0].numpy(), 1 - mesh.uv[:, 1].numpy()], 1)
        np.testing.assert_allclose(columns["TEXCOORD_0"], flipped, atol=1e-6)
        assert columns["COLOR_0"].max() <= 1
        back = np.where(
            columns["COLOR_0"] <= 0.0031308,
            columns["COLOR_0"] * 12.92,
            1.055 * columns["COLOR_0"] ** (1 / 2.4) - 0.055,
        )
        np.testing.assert_allclose(back, colours.numpy(), atol=1e-4)
    elif suffix == ".ply":
        raw = read.metadata["_ply_raw"]["vertex"]["data"]
        np.testing.assert_allclose(np.stack([raw["s"], raw["t"]], 1), mesh.uv.numpy(), atol=1e-6)
        np.testing.assert_allclose(
            np.stack([raw[c] for c in ("red", "green", "blue")], 1) / 255, colours.numpy(), atol=0.002
        )
    else:
        lines = path.read_text().splitlines()
        texture = np.array([line.split()[1:] for line in lines if line.startswith("vt ")], dtype=float)
        np.testing.assert_allclose(texture, mesh.uv.numpy(), atol=1e-6)
        tail = np.array([line.split()[4:] for line in lines if line.startswith("v ")], dtype=float)
        np.testing.assert_allclose(tail, colours.numpy(), atol=1e-5)


def test_glb_is_exact_about_its_own_bytes(rng, tmp_path):
    mesh = _mesh(rng)
    path = tmp_path / "a face, with = signs.glb"
    save_glb(mesh, path, colours=torch.ones(len(mesh.vertices), 3))
    document, binary = _glb(path)
    columns = _columns(document, binary)
    assert document["asset"]["version"] == "2.0"
    assert set(columns) == {"POSITION", "NORMAL", "TEXCOORD_0", "COLOR_0", "indices"}
    assert document["buffers"] == [{"byteLength": len(binary)}]
    assert [view["target"] for view in document["bufferViews"]] == [34962] * 4 + [34963]
    np.testing.assert_allclose(np.linalg.norm(columns["NORMAL"], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(columns["POSITION"] * 1000, mesh.vertices.numpy(), atol=1e-4)
    assert columns["POSITION"][:, 1].max() == pytest.approx(0.0925, abs=0.003)


@pytest.mark.parametrize("colour", [0.0, 0.04045, 0.5, 1.0])
def test_vertex_colours_are_linear_in_glb(colour, rng, tmp_path):
    mesh = _mesh(rng)
    save_glb(mesh, tmp_path / "a.glb", colours=torch.full((len(mesh.vertices), 3), colour))
    stored = _columns(*_glb(tmp_path / "a.glb"))["COLOR_0"]
    expected = {0.0: 0.0, 0.04045: 0.0031308, 0.5: 0.2140411, 1.0: 1.0}[colour]
    np.testing.assert_allclose(stored, expected, atol=1e-6)


def test_unused_vertices_get_a_unit_normal(suffix, tmp_path):
    vertices = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [5, 5, 5]])
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](Mesh(vertices=vertices, triangles=torch.tensor([[0, 1, 2]])), path)
    if suffix == ".glb":
        np.testing.assert_allclose(np.linalg.norm(_columns(*_glb(path))["NORMAL"], axis=1), 1)
    assert len(_read(path).faces) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vertices": torch.full((3, 3), torch.nan)}, "mesh.vertices must be finite"),
        ({"triangles": torch.tensor([[0, 1, 3]])}, r"0\.\.2; got 0\.\.3"),
        ({"triangles": torch.tensor([[0, -1, 2]])}, "got -1"),
        ({"triangles": torch.zeros(0, 3, dtype=torch.long)}, "at least one triangle"),
        ({"uv": torch.full((3, 2), torch.inf)}, "mesh.uv must be finite"),
    ],
)
def test_a_mesh_that_cannot_be_written_leaves_the_old_file(suffix, change, words, tmp_path):
    good = {"vertices": torch.eye(3), "triangles": torch.tensor([[0, 1, 2]]), "uv": None}
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](Mesh(**good), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        WRITERS[suffix](Mesh(**{**good, **change}), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_suffix_and_colour_shape_are_refused(suffix, tmp_path):
    mesh = Mesh(vertices=torch.eye(3), triangles=torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match=f"must end in {suffix}"):
        WRITERS[suffix](mesh, tmp_path / "a.stl")
    with pytest.raises(ValueError, match=r"colours must have trailing shape \(3, 3\)"):
        WRITERS[suffix](mesh, tmp_path / f"a{suffix}", colours=torch.zeros(2, 3))
    assert not list(tmp_path.iterdir())
