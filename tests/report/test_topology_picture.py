"""The review picture shows what is derived, what is doubtful and what is neither."""

import pytest
import torch

from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.report.topology import TopologyMarks, draw_topology
from tests.tiny_model import tiny_bilinear

RED, YELLOW = (255, 30, 20), (255, 225, 50)


@pytest.fixture(scope="module")
def face():
    model = tiny_bilinear()
    return model.vertices(model.identity_mean, model.expression_mean), model.topology


def _drawn(face, **marks):
    return draw_topology(*face, TopologyMarks(**marks), IBUG_OF_PAPER, tile=200)


def _count(picture, colour):
    pixels = (picture * 255).round().long()
    return int((pixels == torch.tensor(colour)[:, None, None]).all(0).sum())


def test_four_views_without_doubts_hold_neither_red_nor_yellow(face):
    picture = _drawn(face)
    assert picture.shape == (3, 400, 400)
    assert _count(picture, RED) == _count(picture, YELLOW) == 0
    for tile in picture.unfold(1, 200, 200).unfold(2, 200, 200).permute(1, 2, 0, 3, 4).flatten(0, 1):
        assert tile.std() > 0.1


def test_derived_landmarks_are_yellow_and_doubtful_ones_red(face):
    every = frozenset(range(66))
    assert _count(_drawn(face, derived=every), YELLOW) > 500
    doubtful = _drawn(face, derived=every, uncertain_landmarks=frozenset({13}))
    assert 10 < _count(doubtful, RED) < 300
    assert _count(doubtful, YELLOW) > 500


def test_a_doubtful_line_is_red(face):
    assert _count(_drawn(face, uncertain_lines=frozenset({0, 8})), RED) > 20


def test_a_doubtful_set_changes_its_tint(face):
    plain, doubtful = _drawn(face), _drawn(face, uncertain_sets=frozenset({"whole"}))
    changed = (plain - doubtful).abs().amax(0) > 0.1
    assert changed.float().mean() > 0.02


def test_another_number_of_vertices_is_refused(face):
    with pytest.raises(ValueError, match="vertices must have trailing shape"):
        draw_topology(face[0][:-1], face[1], TopologyMarks(), IBUG_OF_PAPER)
