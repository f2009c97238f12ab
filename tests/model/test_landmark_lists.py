"""The carried landmark lists: complete, in range, symmetric in number, and chosen as documented."""

import pytest

from facerecon_torch.model.topology import known_landmarks, landmark_lists

_COUNTS = {
    "facewarehouse_11510": 68,
    "bfm2009_53490": 68,
    "bfm_53215": 68,
    "bfm_38365": 68,
    "bfm_35709": 68,
    "bfm2017_nomouth": 26,
    "sfm_3448": 50,
    "facescape_26317": 68,
    "facescape_26317_v10": 68,
    "ict_26719": 68,
    "flame_5023": 68,
    "gnm_17821": 68,
}


def test_every_list_counts_different_vertices_of_its_mesh_and_names_its_source():
    for found in landmark_lists():
        assert len(set(found.vertices.values())) == len(found.vertices) > 10
        assert set(found.vertices.values()) <= set(range(found.n_vertices))
        assert set(found.vertices) <= set(range(68))
        assert min(len(found.source), len(found.licence), len(found.verified)) > 2


def test_the_lists_are_those_of_the_topologies_an_importer_meets():
    assert {found.topology for found in landmark_lists()} == set(_COUNTS)
    for topology, count in _COUNTS.items():
        assert len(known_landmarks(topology, landmark_lists(topology)[0].n_vertices)) == count


def test_the_first_list_wins_and_the_others_only_fill():
    first, second = landmark_lists("facewarehouse_11510")
    assert first.vertices != second.vertices
    assert known_landmarks("facewarehouse_11510", 11510) == first.vertices


def test_two_lists_derived_from_each_other_keep_their_offsets():
    trimmed, whole = known_landmarks("bfm_53215", 53215), known_landmarks("bfm2009_53490", 53490)
    assert all(0 <= whole[i] - trimmed[i] <= 53490 - 53215 for i in trimmed)


def test_the_first_part_of_a_mesh_keeps_the_points_that_lie_in_it():
    short = known_landmarks("ict_26719", 2000)
    assert 0 < len(short) < 68
    assert max(short.values()) < 2000


def test_a_mesh_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="at most 3448 vertices; got 3449"):
        known_landmarks("sfm_3448", 3449)


def test_an_unknown_topology_has_no_landmarks():
    assert known_landmarks("somebody's mesh", 100) == {}
