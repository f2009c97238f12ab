import pytest
import torch
import trimesh
from torch.testing import assert_close

from facerecon_torch.geometry.normals import triangle_normals, vertex_normals


def _sphere(dtype=torch.float64):
    ball = trimesh.creation.icosphere(subdivisions=4)
    return torch.as_tensor(ball.vertices.copy(), dtype=dtype), torch.as_tensor(ball.faces.copy())


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_normals_of_a_sphere_point_outwards(shape, device, dtype):
    vertices, triangles = _sphere(dtype)
    normals = vertex_normals(vertices.expand(*shape, -1, -1).to(device), triangles.to(device)).cpu()
    assert_close(normals, vertices.expand(*shape, -1, -1), atol=0.01, rtol=0)
    assert_close(normals.norm(dim=-1), torch.ones(*shape, len(vertices), dtype=dtype))


def test_normals_equal_a_loop_over_triangles(rng):
    vertices = torch.randn(12, 3, generator=rng, dtype=torch.float64)
    triangles = torch.randint(12, (20, 3), generator=rng)
    sums = torch.zeros_like(vertices)
    for n, (i, j, k) in enumerate(triangles.tolist()):
        cross = torch.linalg.cross(vertices[j] - vertices[i], vertices[k] - vertices[i])
        for corner in (i, j, k):
            sums[corner] += cross
        if len({i, j, k}) == 3:
            assert_close(triangle_normals(vertices, triangles)[n], cross / cross.norm())
    used = sums.norm(dim=-1) > 0
    assert_close(vertex_normals(vertices, triangles)[used], (sums / sums.norm(dim=-1, keepdim=True))[used])


def test_nothing_to_stand_on_gives_zero_and_finite_gradients():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]], requires_grad=True)
    triangles = torch.tensor([[0, 1, 2]])
    normals = vertex_normals(vertices, triangles)
    assert_close(normals.detach(), torch.zeros(4, 3))
    assert_close(triangle_normals(vertices, triangles).detach(), torch.zeros(1, 3))
    normals.sum().backward()
    assert torch.isfinite(vertices.grad).all()


def test_vertex_normals_gradcheck(rng):
    vertices = torch.randn(2, 6, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    triangles = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 0]])
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, triangles), vertices)
