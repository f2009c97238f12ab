"""Smooth fields: their symmetry and size, on made-up vertices and in the asset."""

import numpy as np
import pytest
import torch

from facerecon_torch.commands.build_assets.default_face_targets import EYES, MIDDLE, SIDES, quantise, smooth_fields
from facerecon_torch.model.default_face import load_source
from facerecon_torch.model.default_face.asset import ADULT_SIZE, STEP_MM, read_asset

MIRROR = np.array([-1.0, 1.0, 1.0])
INNER_EYE = np.array([16.0, 700.0, 120.0])


@pytest.fixture
def marks():
    numbers = np.zeros(68, dtype=np.int64)
    numbers[42] = 1
    return numbers


def test_fields_of_mirrored_vertices_are_mirrored(marks):
    half = np.random.default_rng(0).normal(0, 60, (300, 3)) + INNER_EYE
    vertices = np.concatenate([[INNER_EYE * MIRROR, INNER_EYE], half, half * MIRROR])
    fields = smooth_fields(vertices, marks)
    assert len(fields) == 2 * len(MIDDLE) + 3 * len(SIDES) == 55
    for name, moves in fields.items():
        assert np.abs(moves).max() > 0.01, name
        np.testing.assert_allclose(moves[302:], moves[2:302] * MIRROR, atol=1e-12, err_msg=name)


def test_a_field_moves_its_place_by_one_millimetre(marks):
    origin = INNER_EYE * (0, 1, 1) - EYES
    places = [origin + np.array([0, y, z]) for y, z in MIDDLE.values()] + [origin + place for place in SIDES.values()]
    fields = smooth_fields(np.array([INNER_EYE * MIRROR, INNER_EYE, *places]), marks)
    for k, name in enumerate((*MIDDLE, *SIDES), start=2):
        for axis, letter in enumerate("xyz"):
            if f"field/{name}-{letter}" in fields:
                move = fields[f"field/{name}-{letter}"][k]
                other = 2 * SIDES[name][0] if name in SIDES else np.inf  # the place's mirror image reaches it
                sign = -1 if letter == "x" else 1
                assert move[axis] == pytest.approx(1 + sign * np.exp(-(other**2) / (2 * 18.0**2)), abs=1e-9)
                assert np.count_nonzero(move) == 1


def test_fields_of_the_default_face_are_symmetric():
    source, asset = load_source(torch.float64), read_asset()
    base = torch.from_numpy(asset.base).double()
    gap, mirror = torch.cdist(base * torch.from_numpy(MIRROR), base).min(1)
    even = gap < 0.01  # garments and shoulders are not quite
    assert bool(even[: source.n_face].all())
    names = [i for i, name in enumerate(source.identity_names) if name.startswith("field/")]
    assert len(names) == 55
    moves = source.identity_targets[names]
    off = moves[:, mirror] - moves * torch.from_numpy(MIRROR)
    assert float(off[:, even].abs().max()) <= STEP_MM + 1e-9  # both sides are rounded


def test_fields_of_the_asset_are_those_of_its_vertices():
    asset, source = read_asset(), load_source(torch.float64)
    fields = smooth_fields(asset.base.astype(np.float64) / ADULT_SIZE, asset.anatomy)
    assert tuple(fields) == tuple(name for name in asset.target_names if name.startswith("field/"))
    for name, moves in fields.items():
        stored = source.identity_targets[source.identity_names.index(name)].numpy()
        assert np.abs(stored - ADULT_SIZE * moves).max() < 0.51 * STEP_MM, name


def test_targets_beyond_int16_are_refused():
    with pytest.raises(ValueError, match="far must fit int16 steps; it reaches"):
        quantise({"far": np.full((2, 3), 900.0)})


def test_rows_that_round_to_nothing_are_left_out():
    names, offsets, vertices, steps = quantise(
        {"a": np.array([[0.0, 0.012, 0], [0, 0.013, 0]]), "b": np.array([[-0.05, 0, 0], [0, 0, 0]])}
    )
    assert (names, offsets.tolist(), vertices.tolist()) == (("a", "b"), [0, 1, 2], [1, 0])
    assert steps.tolist() == [[0, 1, 0], [-2, 0, 0]]
