import pytest
import torch
import trimesh

from facerecon_torch.geometry.mesh_queries import visible_vertices
from facerecon_torch.geometry.rotation import axis_angle_to_matrix


def _ball(radius=80.0, dtype=torch.float32):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return torch.as_tensor(ball.vertices.copy(), dtype=dtype), torch.as_tensor(ball.faces.copy())


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_the_near_half_of_a_ball_is_seen(shape, rng, device, dtype):
    vertices, triangles = _ball(dtype=dtype)
    turn = axis_angle_to_matrix(torch.randn(*shape, 3, generator=rng, dtype=torch.float64).to(dtype))
    points = (vertices @ turn.mT).to(device)
    seen = visible_vertices(points, triangles.to(device))
    sure = points[..., 2].abs() > 2
    assert (seen == (points[..., 2] > 0))[sure].all()


def test_a_plate_in_front_hides_what_is_behind_it_and_nothing_else():
    vertices, triangles = _ball()
    plate = torch.tensor([[0.0, -200, 100], [200, -200, 100], [200, 200, 100], [0, 200, 100]])
    n = len(vertices)
    both = torch.cat([vertices, plate])
    faces = torch.cat([triangles, torch.tensor([[n, n + 1, n + 2], [n, n + 2, n + 3]])])
    seen = visible_vertices(both, faces)
    front = vertices[:, 2] > 2
    assert not seen[:n][front & (vertices[:, 0] > 1)].any()
    assert seen[:n][front & (vertices[:, 0] < -1)].all()
    assert seen[n:].all()
    assert not visible_vertices(both - plate.mean(0) * torch.tensor([0, 0, 2.0]), faces.flip(1))[n:].any()


def test_facing_leaves_out_grazing_vertices():
    vertices, triangles = _ball()
    seen = visible_vertices(vertices, triangles, facing=0.5)
    assert vertices[seen][:, 2].min() > 0.45 * 80
    assert (vertices[~seen][:, 2] < 0.55 * 80).all()
