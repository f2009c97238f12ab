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
    assert len(load_topology().triangles) == 2 * 3920
    assert set(source.triangle_parts.tolist()) == set(range(len(source.part_names)))
    asset = read_asset()
    assert asset.corner_uv.shape == (len(source.triangles), 3, 2)
    assert 0 <= float(asset.uv.min()) <= float(asset.uv.max()) <= 1


def test_the_crop_is_bounded_by_one_loop_of_edges():
    triangles = load_topology().triangles
    sides = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).sort(1).values
    edges, uses = sides.unique(dim=0, return_counts=True)
    assert int(uses.max()) == 2
    neighbours: dict[int, list[int]] = {}
    for a, b in edges[uses == 1].tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    assert {len(near) for near in neighbours.values()} == {2}
    start = min(neighbours)
    before, here, loop = start, neighbours[start][0], [start]
    while here != start:
        loop.append(here)
        first, second = neighbours[here]
        before, here = here, second if first == before else first
    assert len(loop) == len(neighbours)
    first, second = triangles.view(-1, 2, 3).unbind(1)
    assert torch.equal(first[:, [0, 2]], second[:, [0, 1]])  # two triangles of one quad follow each other
    quads = torch.bincount(torch.cat([first, second[:, 2:]], 1).flatten())[loop]
    assert int((quads != 2).sum()) <= 4
    assert set(quads.tolist()) <= {2, 3}


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


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data folder is not here")
def test_the_crop_equals_the_independent_derivation():
    asset, other = read_asset(), dict(np.load(SHARED / "mh_compact.npz"))
    base = torch.from_numpy(asset.base[: asset.n_face]).double()
    there_base = torch.from_numpy(other["base"]).double() * 100 * ADULT_SIZE
    gap, place = torch.cdist(base, there_base).min(1)  # its crop is wider than the asset's
    assert float(gap.max()) < 1e-3
    assert len(place.unique()) == asset.n_face
    rows = {name: i for i, name in enumerate(asset.target_names)}
    compared = 0
    for k, name in enumerate(other["names"]):
        if name not in rows:
            assert "child" in name or "head-trans" in name
            continue
        there, here = np.zeros((len(there_base), 3)), np.zeros((len(asset.base), 3))
        span = slice(other["ptr"][k], other["ptr"][k + 1])
        there[np.cumsum(other["idx"][span].astype(np.int64))] = other["val"][span]
        span = slice(asset.target_offsets[rows[name]], asset.target_offsets[rows[name] + 1])
        here[asset.target_vertices[span]] = asset.target_steps[span]
        off = np.abs(here[: asset.n_face] - ADULT_SIZE * there[place.numpy()]).max()
        assert off <= 0.5 + 0.5 * ADULT_SIZE + 1e-6, name  # both are rounded to steps, at their own size
        compared += 1
    assert compared == 408 - 24 - 6
