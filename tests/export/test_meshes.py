"""OBJ, PLY and GLB read back by trimesh and, for what trimesh repairs silently, by hand."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from facerecon_torch.export import save_glb, save_obj, save_ply
from facerecon_torch.model.default_face import load_source, load_topology
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


def _with_seam(mesh, rng):
    """The mesh with other texture coordinates on its right half: its middle line is a seam."""
    corner_uv = mesh.uv[mesh.triangles]
    right = mesh.vertices[mesh.triangles][..., 0].mean(dim=1) > 0
    return replace(mesh, corner_uv=torch.where(right[:, None, None], (corner_uv + 1) / 3, corner_uv))


def _obj_corners(path):
    """Positions, texture coordinates and normals at the corners [T, 3, n] that the lines of an OBJ file name."""
    tables = {"v": [], "vt": [], "vn": []}
    corners = []
    for kind, *words in map(str.split, path.read_text().splitlines()):
        if kind in tables:
            tables[kind].append([float(word) for word in words])
        elif kind == "f":
            corners.append([[int(index) - 1 for index in word.split("/")] for word in words])
    corners = np.array(corners)
    return [np.array(table)[corners[..., k]] for k, table in enumerate(tables.values())]


def test_a_seam_is_kept_in_an_obj_and_vertices_stay_whole(tmp_path, rng):
    mesh = _with_seam(_mesh(rng), rng)
    positions, uv, normals = _obj_corners(save_obj(mesh, tmp_path / "a.obj"))
    np.testing.assert_allclose(uv, mesh.corner_uv, atol=1e-6)
    np.testing.assert_allclose(positions, mesh.vertices[mesh.triangles], atol=1e-5)
    assert normals.shape == positions.shape
    text = (tmp_path / "a.obj").read_text()
    assert text.count("\nv ") == len(mesh.vertices) < text.count("\nvt ")


def test_a_glb_splits_vertices_at_a_seam_only(tmp_path, rng):
    mesh = _with_seam(_mesh(rng), rng)
    colours = torch.rand(len(mesh.vertices), 3, generator=rng)
    columns = _columns(*_glb(save_glb(mesh, tmp_path / "a.glb", colours=colours)))
    at = columns["indices"].reshape(-1, 3)
    uv = columns["TEXCOORD_0"][at]
    np.testing.assert_allclose(np.stack([uv[..., 0], 1 - uv[..., 1]], -1), mesh.corner_uv, atol=1e-6)
    np.testing.assert_allclose(columns["POSITION"][at] * 1e3, mesh.vertices[mesh.triangles], atol=1e-4)
    whole = _columns(*_glb(save_glb(replace(mesh, corner_uv=None), tmp_path / "b.glb", colours=colours)))
    old = whole["indices"].reshape(-1, 3)
    for name in ("NORMAL", "COLOR_0"):
        np.testing.assert_array_equal(columns[name][at], whole[name][old])
    right = mesh.vertices[mesh.triangles][..., 0].mean(dim=1) > 0
    both = np.intersect1d(mesh.triangles[right], mesh.triangles[~right])
    assert len(columns["POSITION"]) == len(mesh.vertices) + len(both)


def test_texture_coordinates_of_corners_must_be_finite(tmp_path, rng):
    mesh = _with_seam(_mesh(rng), rng)
    mesh.corner_uv[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"mesh.corner_uv must be finite"):
        save_obj(mesh, tmp_path / "a.obj")


def test_the_default_face_has_no_torn_triangle(tmp_path):
    """Every triangle's texture is that of the source; with one coordinate a vertex, triangles at seams are torn."""
    topology = load_topology()
    mesh = Mesh(vertices=load_source().mean[: topology.n_vertices], **topology.surface())
    _, uv, _ = _obj_corners(save_obj(mesh, tmp_path / "a.obj"))
    sides = np.linalg.norm(uv - uv[:, [1, 2, 0]], axis=-1).max(axis=1)
    torn = (topology.uv[topology.triangles] - topology.corner_uv).abs().amax(dim=(1, 2)) > 1e-4
    assert int(torn.sum()) > 0
    assert sides.max() < 0.2
    one_each = topology.uv[topology.triangles]
    assert (one_each - one_each[:, [1, 2, 0]]).norm(dim=-1).max() > 0.2


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
