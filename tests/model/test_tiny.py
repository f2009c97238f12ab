"""The tiny face is a face in the model's conventions: closed under its own claims about triangles and landmarks."""

import pytest
import torch

from tests.tiny_model import tiny_bilinear, tiny_linear

BUILDERS = pytest.mark.parametrize("build", [tiny_bilinear, tiny_linear])


def mean_face(build):
    model = build()
    return model, model.vertices(model.identity_mean, model.expression_mean)


@BUILDERS
def test_is_the_same_every_time(build):
    assert build().sha256 == build().sha256


@BUILDERS
def test_triangles_face_outwards(build):
    model, points = mean_face(build)
    a, b, c = (points[model.topology.triangles[:, k]] for k in range(3))
    normals = torch.linalg.cross(b - a, c - a)
    inside = torch.tensor([0.0, 0.0, -20.0])
    assert bool(((normals * ((a + b + c) / 3 - inside)).sum(dim=-1) > 0).all())
    assert float(normals.norm(dim=-1).min()) > 1  # mm^2: no slivers


@BUILDERS
def test_every_vertex_is_used_and_landmarks_differ(build):
    topology = build().topology
    assert topology.triangles.unique().numel() == topology.n_vertices
    assert topology.landmark_vertices.unique().numel() == 66


@BUILDERS
def test_size_and_frame(build):
    _, points = mean_face(build)
    extent = points.amax(dim=0) - points.amin(dim=0)
    assert bool((extent > torch.tensor([130.0, 170.0, 100.0])).all())
    assert bool((extent < torch.tensor([170.0, 230.0, 160.0])).all())
    assert float(points.mean(dim=0).norm()) < 3  # mm


@BUILDERS
def test_landmarks_lie_where_their_names_say(build):
    model, points = mean_face(build)
    landmarks = points[model.topology.landmark_vertices]
    brows, nose_tip, eyes, mouth, jaw = (
        landmarks[:10],
        landmarks[13],
        landmarks[19:31],
        landmarks[31:49],
        landmarks[49:],
    )
    assert brows[:, 1].min() > eyes[:, 1].max() > nose_tip[1] > mouth[:, 1].max() > jaw[8, 1]
    assert landmarks[:, 2].max() == landmarks[10:19, 2].max()
    assert bool((jaw[1:, 0] > jaw[:-1, 0]).all())  # image left to image right
    assert bool((brows[:5, 0] < 0).all() and (brows[5:, 0] > 0).all())
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(jaw.flip(0) * mirror, jaw, rtol=0, atol=1e-3)


@BUILDERS
def test_contour_lines_hold_their_landmark_and_run_to_the_front(build):
    model, points = mean_face(build)
    topology = model.topology
    for line, landmark in zip(topology.contour_lines, topology.landmark_vertices[49:]):
        vertices = line[line >= 0]
        assert int(landmark) in vertices.tolist()
        depth = points[vertices, 2]
        assert bool((depth[1:] > depth[:-1]).all())
    assert bool((topology.contour_lines == -1).any())


def test_ranks_are_free_up_to_the_data():
    model = tiny_bilinear(24, 7)
    assert (model.n_identity, model.n_expression) == (24, 7)
    with pytest.raises(ValueError, match="identity_rank"):
        tiny_bilinear(25)
