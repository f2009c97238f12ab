"""The source's meshes: the committed asset, the alignment of people, and expressions carried over to them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.model.default_face.asset import ADULT_SIZE, read_asset

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "makehuman"


@pytest.fixture(scope="module")
def source():
    return load_source(torch.float64)


@pytest.fixture(scope="module")
def people(source):
    return source.sample(4, torch.Generator().manual_seed(2)).sliders.double()


def test_the_face_comes_first_and_every_part_is_there(source):
    assert (source.n_face, len(source.expression_names)) == (3960, 46)
    assert source.n_head > source.n_face
    assert len(load_topology().triangles) == read_asset().n_face_triangles
    assert set(source.triangle_parts.tolist()) == set(range(len(source.part_names)))
    asset = read_asset()
    assert asset.corner_uv.shape == (len(source.triangles), 3, 2)
    assert 0 <= float(asset.uv.min()) <= float(asset.uv.max()) <= 1


def test_triangles_are_counter_clockwise_from_outside(source):
    for part in ("left_eye", "right_eye"):
        rows = source.triangles[source.triangle_parts == source.part_names.index(part)]
        a, b, c = source.mean[rows].unbind(1)
        middle = source.mean[torch.unique(rows)].mean(0)
        outward = (torch.linalg.cross(b - a, c - a) * (a - middle)).sum(-1)
        assert float((outward > 0).double().mean()) > 0.95
    face = load_topology().triangles
    a, b, c = source.mean[face].unbind(1)
    tip = source.mean[:, 2].argmax()
    nose = (face == tip).any(1)
    assert (torch.linalg.cross(b - a, c - a)[nose, 2] > 0).all()


def test_left_is_image_right(source):
    left = source.triangles[source.triangle_parts == source.part_names.index("left_eye")]
    assert float(source.mean[left, 0].mean()) > 25


def test_the_mean_face_belongs_to_the_mean_sliders_and_is_centred(source):
    torch.testing.assert_close(source.identity_vertices(source.mean_sliders), source.mean)
    assert float(source.mean[: source.n_face].mean(0).abs().max()) < 1e-9


def test_people_lie_rigidly_on_the_mean_face_and_keep_their_size(source, people):
    meshes = source.identity_vertices(people)
    face = meshes[:, : source.n_face]
    again = align_rigid(face, source.mean[: source.n_face].expand_as(face)).apply(face)
    torch.testing.assert_close(again, face)
    raw = torch.from_numpy(read_asset().base).double() + torch.tensordot(people, source.identity_targets, 1)
    torch.testing.assert_close(torch.pdist(face[0, ::40]), torch.pdist(raw[0, : source.n_face : 40]))


def test_expressions_of_the_mean_face_are_the_units_themselves(source):
    torch.testing.assert_close(source.expression_basis(source.mean), source.expression_targets)


def test_weights_and_basis_agree(source, people):
    weights = torch.rand(4, 46, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    neutral = source.identity_vertices(people)
    by_basis = neutral + torch.einsum("ne,nevk->nvk", weights, source.expression_basis(neutral))
    torch.testing.assert_close(source.expression_vertices(people, weights), by_basis)


def test_a_larger_turned_head_makes_larger_turned_expressions(source):
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.2, 0.1], [0.2, 0, 0.3], [-0.1, -0.3, 0]]).double())
    other = 1.2 * source.mean @ turn.mT
    expected = 1.2 * source.expression_targets @ turn.mT
    moved = source.expression_targets.norm(dim=-1) > 1.0
    ratio = (source.expression_basis(other) - expected).norm(dim=-1)[moved] / expected.norm(dim=-1)[moved]
    assert float(ratio.mean()) < 0.1


def test_expressions_depend_on_the_person_a_little(source, people):
    jaw = source.expression_names.index("jawOpen")
    own = source.expression_basis(source.identity_vertices(people))[:, jaw]
    difference = (own - source.expression_targets[jaw]).norm(dim=-1).amax(-1)
    assert (difference > 0.2).all()
    assert (difference < 12).all()


def test_merged_expressions(source):
    asset_rows = {name: i for i, name in enumerate(read_asset().target_names)}
    assert "face/tongueOut" in asset_rows
    assert "tongueOut" not in source.expression_names
    index = source.expression_names.index
    close, jaw = source.expression_targets[index("mouthClose")], source.expression_targets[index("jawOpen")]
    lips = source.masks["lips"][: source.n_face] > 0.5
    gap = {k: float(v[: source.n_face][lips, 1].std()) for k, v in (("open", jaw), ("close", close))}
    assert gap["close"] < 0.5 * gap["open"]


def test_dtype_of_the_answer():
    single = load_source()
    assert single.identity_vertices(single.mean_sliders).dtype == torch.float32
    torch.testing.assert_close(single.mean.double(), load_source(torch.float64).mean, atol=1e-4, rtol=0)


def test_the_face_ends_along_one_edge_loop():
    """Quads are pairs of triangles with a common diagonal; on a loop of edges every vertex has two of them."""
    face = load_topology().triangles
    quads = torch.stack([face[0::2, 0], face[0::2, 1], face[0::2, 2], face[1::2, 2]], 1)
    edges = torch.cat([quads[:, [k, (k + 1) % 4]] for k in range(4)]).sort(1).values
    pairs, counts = edges.unique(dim=0, return_counts=True)
    rim = pairs[counts == 1]
    vertices, degree = rim.unique(return_counts=True)
    assert (degree == 2).all()
    start, here, steps = int(rim[0, 0]), int(rim[0, 1]), 1
    left = {tuple(pair) for pair in rim[1:].tolist()}
    while here != start:
        edge = next(pair for pair in left if here in pair)
        left.remove(edge)
        here, steps = sum(edge) - here, steps + 1
    assert not left  # one closed loop
    assert steps == len(vertices)
    quads_at = torch.bincount(quads.flatten(), minlength=int(face.max()) + 1)[vertices]
    assert int((quads_at != 2).sum()) <= 4  # at poles of the mesh


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data folder is not here")
def test_the_crop_equals_the_independent_derivation():
    """The other derivation has the former, larger crop in MakeHuman's size; targets are rounded to 0.025 mm in both."""
    asset, other = read_asset(), dict(np.load(SHARED / "mh_compact.npz"))
    own = torch.from_numpy(asset.base[: asset.n_face]).double() / ADULT_SIZE
    theirs = torch.from_numpy(other["base"]).double() * 100
    place = torch.cdist(own, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(place.amin(1).max()) < 2e-3
    row = place.argmin(1).numpy()
    assert len(set(row.tolist())) == asset.n_face
    rows = {name: i for i, name in enumerate(asset.target_names)}
    compared = 0
    for k, name in enumerate(other["names"]):
        if name not in rows:
            assert "child" in name or "head-trans" in name
            continue
        there, here = np.zeros((len(other["base"]), 3)), np.zeros((len(asset.base), 3))
        span = slice(other["ptr"][k], other["ptr"][k + 1])
        there[np.cumsum(other["idx"][span].astype(np.int64))] = other["val"][span]
        span = slice(asset.target_offsets[rows[name]], asset.target_offsets[rows[name] + 1])
        here[asset.target_vertices[span]] = asset.target_steps[span]
        apart = np.abs(here[: asset.n_face] / ADULT_SIZE - there[row]).max()
        assert apart <= 0.5 + 0.5 / ADULT_SIZE + 1e-9, name
        compared += 1
    assert compared == 408 - 24 - 6
