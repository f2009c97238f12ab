"""Landmarks, contour lines and vertex sets of the default face, on its mean face."""

import pytest
import torch

from facerecon_torch.model.default_face import load_source, load_topology

# left-right partners of the 66 landmarks in paper order (brows, eyes, mouth corners, contour)
MIRROR = [(0, 9), (4, 5), (19, 28), (22, 25), (14, 18), (31, 37), *((49 + k, 65 - k) for k in range(8))]


@pytest.fixture(scope="module")
def mean():
    source = load_source()
    return source.mean[: source.n_face]


@pytest.fixture(scope="module")
def tables():
    return load_topology()


def test_landmarks_lie_where_their_names_say(mean, tables):
    marks = mean[tables.landmark_vertices]
    for a, b in MIRROR:
        torch.testing.assert_close(marks[a] * torch.tensor([-1.0, 1.0, 1.0]), marks[b], atol=1.5, rtol=0)
    assert int(marks[:, 2].argmax()) == 13  # the nose's tip
    assert float(marks[57, 1] - marks[:, 1].min()) < 1.0  # the chin; its neighbours stand on the same flat edge
    brow, eye, nose, mouth = (marks[rows, 1].mean() for rows in ([2, 7], [20, 26], [16], [31, 37]))
    assert brow > eye > nose > mouth > marks[57, 1]
    assert (marks[:5, 0] < 0).all()  # the brow on image left first
    assert 80 < float((marks[19] - marks[28]).norm()) < 105  # outer eye corners


def test_lines_hold_their_landmark_and_run_to_the_front_of_it(mean, tables):
    for k, line in enumerate(tables.contour_lines):
        line, mark = line[line >= 0], tables.landmark_vertices[49 + k]
        place = (line == mark).nonzero().flatten()
        assert len(place) == 1, k
        assert 0 < int(place) < len(line) - 1, k
        assert len(line.unique()) == len(line), k
        points = mean[line]
        assert points[0, 2] < points[int(place), 2] < points[-1, 2], k
        assert float((points[1:] - points[:-1]).norm(dim=-1).max()) < 18, k


def test_lines_stay_level_except_at_the_chin(mean, tables):
    for k, line in enumerate(tables.contour_lines):
        points, mark = mean[line[line >= 0]], mean[tables.landmark_vertices[49 + k]]
        if k in range(6, 11):
            assert points[-1, 1] > mark[1] + 8, k
            assert points[0, 1] < mark[1], k
        else:
            ahead = points[
                int((line == tables.landmark_vertices[49 + k]).nonzero()) :
            ]  # where the silhouette is sought
            assert float((ahead[:, 1] - mark[1]).abs().max()) < 8, k  # before the ear the mesh's rows are 8 mm apart
            assert float((points[:, 1] - mark[1]).abs().max()) < 11, k
            assert (points[:, 0] * mark[0] > 0).all(), k


def test_lines_avoid_ears_eyes_and_lips(tables):
    masks, n_face = load_source().masks, load_source().n_face
    used = tables.contour_lines[tables.contour_lines >= 0]
    for region in ("ears", "eyelids", "lips", "inside-mouth"):
        assert float(masks[region][:n_face][used].max()) < 0.5, region


def test_sets_are_nested_and_on_the_outer_face(mean, tables):
    source = load_source()
    whole, centre = tables.whole_vertices, tables.centre_vertices
    assert torch.isin(centre, whole).all()
    assert len(centre) < 0.8 * len(whole)
    for part in ("left_eye", "right_eye", "mouth"):
        parts = source.triangle_parts[: len(tables.triangles)]
        rows = tables.triangles[parts == source.part_names.index(part)]
        inner = mean[torch.unique(rows)]
        seam = torch.isin(whole, torch.unique(rows)).sum()
        assert int(seam) <= 0.02 * len(whole), (part, len(inner))
    assert float(source.masks["ears"][: source.n_face][whole].max()) < 0.5
    tip = mean[tables.landmark_vertices[13]]
    assert float((mean[centre] - tip).norm(dim=-1).max()) < 1.2 * 95
    assert torch.isin(tables.landmark_vertices[[13, 16, 57, 53, 61]], whole).all()


def test_tables_fit_the_face(tables):
    assert tables.n_vertices == load_source().n_face
    assert int(tables.triangles.max()) == tables.n_vertices - 1
