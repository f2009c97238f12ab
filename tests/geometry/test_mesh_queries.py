"""Z-buffer, closest point and rays against brute force, for whichever backends are installed."""

import importlib

import numpy as np
import pytest
import torch
import trimesh
from torch.testing import assert_close

from facerecon_torch.geometry import mesh_queries
from facerecon_torch.geometry.laplacian import cotangent_laplacian
from facerecon_torch.geometry.mesh_queries import get_backend, use_backend
from facerecon_torch.geometry.mesh_types import nearest_in_triangle
from tests.geometry import fake_pytorch3d
from tests.reference import mesh_loops


@pytest.fixture(params=["warp", "pytorch3d", "pytorch3d as documented"])
def backend(request, monkeypatch):
    """Every backend; of pytorch3d the package itself, where it is installed, and a stand-in with its documented API."""
    if request.param == "pytorch3d":
        pytest.importorskip("pytorch3d")
    if request.param == "pytorch3d as documented":
        fake_pytorch3d.install(monkeypatch)
        return importlib.import_module(fake_pytorch3d.BACKEND).Pytorch3dBackend()
    return get_backend(request.param)


def _soup(rng, shape=(), triangles=14, size=24.0):
    points = torch.rand(*shape, 3 * triangles, 3, generator=rng, dtype=torch.float64) * size * 1.4 - 0.2 * size
    return points, torch.arange(3 * triangles).reshape(-1, 3)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_raster_equals_brute_force(shape, backend, rng, device, dtype):
    points, triangles = _soup(rng, shape)
    raster = backend.rasterise(points.to(device, dtype), triangles.to(device), 20, 24)
    assert raster.triangle.shape == (*shape, 20, 24)
    assert raster.depth.dtype == raster.barycentric.dtype == dtype
    rows = [i.reshape(-1, *i.shape[len(shape) :]) for i in (points, raster.triangle, raster.barycentric, raster.depth)]
    for corners, index, weights, depth in zip(*rows, strict=True):
        expected = mesh_loops.rasterise(corners.numpy(), triangles.numpy(), 20, 24)
        assert (index.cpu().numpy() == expected[0]).all()
        assert (expected[0] >= 0).any()
        tolerance = 2e-4 if dtype == torch.float32 else 1e-9  # float32 points shift thin triangles' weights
        np.testing.assert_allclose(weights.cpu().numpy(), expected[1], atol=tolerance)
        np.testing.assert_allclose(depth.cpu().numpy(), expected[2], atol=tolerance * 30)


def test_pixel_centres_are_whole_numbers_and_edges_count(backend):
    corners = torch.tensor([[1.0, 1, 5], [3, 1, 5], [1, 3, 5]])
    drawn = backend.rasterise(corners, torch.tensor([[0, 1, 2]]), 5, 5).triangle
    expected = torch.full((5, 5), -1)
    expected[1, 1:4] = expected[2, 1:3] = expected[3, 1] = 0
    assert drawn.tolist() == expected.tolist()


def test_both_sides_are_drawn_and_the_nearer_wins(backend):
    square = torch.tensor([[0.0, 0, 0], [8, 0, 0], [0, 8, 0]])
    points = torch.cat([square, square + torch.tensor([0.0, 0, 2]), square + torch.tensor([0.0, 0, 1])])
    raster = backend.rasterise(points, torch.tensor([[0, 1, 2], [3, 5, 4], [6, 7, 8]]), 4, 4)
    assert (raster.triangle == 1).all()
    assert_close(raster.depth, torch.full((4, 4), 2.0))


def test_neighbours_leave_no_gap(backend, rng, dtype):
    grid = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij"), -1).reshape(-1, 2)
    points = torch.cat([grid * 1.7 - 3, torch.zeros(1600, 1)], -1).double()
    points[:, :2] += 0.6 * torch.rand(1600, 2, generator=rng, dtype=torch.float64)
    cell = (torch.arange(39)[:, None] * 40 + torch.arange(39)).reshape(-1, 1)
    triangles = torch.cat([cell + torch.tensor([0, 1, 40]), cell + torch.tensor([1, 41, 40])])
    assert (backend.rasterise(points.to(dtype), triangles, 60, 60).triangle >= 0).all()


def test_one_answer_per_pixel_does_not_depend_on_the_batch(backend, rng):
    points, triangles = _soup(rng, (5,))
    together = backend.rasterise(points, triangles, 16, 16)
    for i in range(5):
        alone = backend.rasterise(points[i], triangles, 16, 16)
        assert (alone.triangle == together.triangle[i]).all()
        assert_close(alone.depth, together.depth[i], atol=1e-13, rtol=0)  # three products of at most 30


def test_broken_triangles_are_left_out(backend):
    points = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [torch.nan, 1, 1], [1e20, -1e20, 4], [torch.inf, 0, 0]])
    triangles = torch.tensor([[0, 1, 3], [0, 1, 5], [0, 0, 1], [0, 1, 2]])
    raster = backend.rasterise(points, triangles, 3, 3)
    assert (raster.triangle == 3).all()
    far = backend.rasterise(points, torch.tensor([[0, 2, 4]]), 3, 3)
    assert torch.isfinite(far.depth).all()


def test_nothing_to_draw(backend):
    empty = backend.rasterise(torch.zeros(2, 3, 3), torch.zeros(0, 3, dtype=torch.long), 4, 5)
    assert (empty.triangle == -1).all()
    assert empty.triangle.shape == (2, 4, 5)
    with pytest.raises(ValueError, match="height and width"):
        backend.rasterise(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), 0, 5)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_closest_point_equals_brute_force(shape, backend, rng, device, dtype):
    vertices, triangles = _soup(rng, shape)
    points = torch.rand(*shape, 30, 3, generator=rng, dtype=torch.float64) * 40 - 10
    found = backend.closest_point(points.to(device, dtype), vertices.to(device, dtype), triangles.to(device))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    flat = [
        t.reshape(-1, *t.shape[len(shape) :]).cpu().double().numpy()
        for t in (points, vertices, found.distance, found.point)
    ]
    for p, v, distance, point in zip(*flat, strict=True):
        expected = mesh_loops.closest_point(p, v, triangles.numpy())
        np.testing.assert_allclose(distance, expected[0], atol=tolerance)
        np.testing.assert_allclose(point, expected[1], atol=10 * tolerance)
    corners = torch.stack(
        [vertices.reshape(-1, *vertices.shape[-2:])[i][triangles] for i in range(max(1, len(flat[0])))]
    )
    picked = corners.gather(1, found.triangle.cpu().reshape(len(corners), -1)[..., None, None].expand(-1, -1, 3, 3))
    rebuilt = (found.barycentric.cpu().double().reshape(len(corners), -1, 3)[..., None, :] @ picked).squeeze(-2)
    np.testing.assert_allclose(rebuilt.numpy(), flat[3], atol=10 * tolerance)


def test_distance_far_from_the_origin_keeps_the_dtype(backend):
    shift = torch.tensor([1e5, -2e5, 3e5], dtype=torch.float64)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=80)
    vertices = torch.as_tensor(ball.vertices.copy()) + shift
    found = backend.closest_point(vertices * 1.0, vertices, torch.as_tensor(ball.faces.copy()))
    assert found.distance.max() < 1e-9


def test_closest_point_without_triangles(backend):
    found = backend.closest_point(torch.zeros(2, 4, 3), torch.zeros(2, 5, 3), torch.zeros(0, 3, dtype=torch.long))
    assert torch.isinf(found.distance).all()
    assert (found.triangle == -1).all()


def test_closest_point_gradient(backend, rng):
    ball = trimesh.creation.icosphere(subdivisions=1, radius=10)
    vertices, triangles = torch.as_tensor(ball.vertices.copy()), torch.as_tensor(ball.faces.copy())
    points = 15 * torch.randn(6, 3, generator=rng, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p, v: backend.closest_point(p, v, triangles).distance,
        (points.requires_grad_(), vertices.requires_grad_()),
        eps=1e-5,
    )


def test_nearest_in_triangle_on_slivers_and_points():
    corners = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[1.0, 1, 1]] * 3], requires_grad=True)
    points = torch.tensor([[1.5, 1.0, 0.0], [4.0, 5.0, 1.0]])
    weights = nearest_in_triangle(points, corners)
    assert_close((weights[:, None] @ corners).squeeze(1), torch.tensor([[1.5, 0, 0], [1.0, 1, 1]]))
    weights.sum().backward()
    assert torch.isfinite(corners.grad).all()


@pytest.mark.parametrize("shape", [(), (2,)])
def test_first_hit_of_a_sphere(shape, backend, rng, device, dtype):
    ball = trimesh.creation.icosphere(subdivisions=5)
    vertices = torch.as_tensor(ball.vertices.copy(), dtype=dtype, device=device).expand(*shape, -1, -1) * 10
    triangles = torch.as_tensor(ball.faces.copy(), device=device)
    across = torch.rand(*shape, 40, 2, generator=rng, dtype=torch.float64).to(device, dtype) * 9
    origins = torch.cat([across, torch.full_like(across[..., :1], 20)], -1)
    down = torch.tensor([0.0, 0, -1], dtype=dtype, device=device).expand_as(origins)
    hit = backend.first_hit(origins, down, vertices, triangles)
    inside = across.square().sum(-1) < 9.9**2
    expected = 20 - (100 - across.square().sum(-1)).clamp_min(0).sqrt()
    assert_close(hit.distance[inside], expected[inside], atol=0.06, rtol=0)
    missed = across.square().sum(-1) > 100
    assert missed.any()
    assert torch.isinf(hit.distance[missed]).all()
    assert (hit.triangle[missed] == -1).all()


def test_rays_meet_triangles_from_either_side(backend):
    corners, triangles = torch.tensor([[-9.0, -9, 4], [9, -9, 4], [0, 9, 4]]), torch.tensor([[0, 1, 2]])
    origins = torch.tensor([[0.0, 0, 1], [0, 0, 9], [0, 0, 5]])
    directions = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 1]])
    hit = backend.first_hit(origins, directions, corners, triangles)
    assert hit.triangle.tolist() == [0, 0, -1]
    assert_close(hit.distance, torch.tensor([3.0, 5.0, torch.inf]))


@pytest.mark.parametrize("bad", [-1, 3])
def test_a_vertex_index_outside_the_mesh_is_refused(bad, backend):
    triangles = torch.tensor([[0, 1, bad]])
    points = torch.zeros(3, 3)
    for call in (
        lambda: backend.rasterise(points, triangles, 4, 4),
        lambda: backend.closest_point(points, points, triangles),
        lambda: backend.first_hit(points, points, points, triangles),
    ):
        with pytest.raises(ValueError, match=r"must index vertices 0\.\.2"):
            call()


def test_backends_are_made_once_on_first_use(monkeypatch):
    made = []

    class Other:
        rasterise = shade = closest_point = first_hit = laplacian = print

    monkeypatch.setitem(mesh_queries._factories, "other", lambda: made.append(1) or Other())
    assert not made
    assert get_backend("other") is get_backend("other")
    assert made == [1]
    with pytest.raises(ValueError, match="'none'"):
        get_backend("none")


def test_the_chosen_backend_is_taken_where_none_is_named(monkeypatch):
    queries = ("rasterise", "shade", "closest_point", "first_hit", "laplacian")
    chosen = type("Chosen", (), dict.fromkeys(queries, print))()
    monkeypatch.setitem(mesh_queries._factories, "chosen", lambda: chosen)
    before = get_backend()
    try:
        assert use_backend("chosen") is chosen
        assert get_backend() is chosen
    finally:
        use_backend("warp")
    assert get_backend() is before


@pytest.mark.skipif(importlib.util.find_spec("pytorch3d") is not None, reason="pytorch3d is installed")
def test_a_backend_whose_package_is_missing_says_so():
    with pytest.raises(ValueError, match=r"pytorch3d needs the package pytorch3d: .*; use warp"):
        use_backend("pytorch3d")
    assert get_backend() is get_backend("warp")


def test_laplacian_of_a_mesh(backend, rng):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=50)
    vertices, triangles = torch.as_tensor(ball.vertices.copy()), torch.as_tensor(ball.faces.copy())
    vertices = vertices + torch.randn(vertices.shape, generator=rng, dtype=torch.float64)
    field = torch.randn(len(vertices), 2, generator=rng, dtype=torch.float64)
    laplacian = backend.laplacian(vertices, triangles)
    assert laplacian.areas.dtype == torch.float64
    assert_close(laplacian.areas.sum(), torch.tensor(trimesh.Trimesh(vertices, triangles).area), rtol=1e-6, atol=0)
    # pytorch3d computes cotangents in float32, of triangles with sides of 30 mm.
    assert_close(laplacian(field), cotangent_laplacian(vertices, triangles)(field), rtol=1e-5, atol=1e-5)


def test_cotangents_of_slivers_are_clamped(backend):
    fan = torch.tensor([[0.0, 0, 0], [10, 0, 0], [5, 0.01, 0], [5, 9, 0], [5, -9, 0]], dtype=torch.float64)
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 1, 3], [1, 0, 4]])
    field = torch.eye(5, dtype=torch.float64)
    bent = backend.laplacian(fan, triangles)(field)
    assert_close(bent, cotangent_laplacian(fan, triangles)(field), rtol=1e-4, atol=1e-5)
    assert float(bent.abs().max()) < 30  # cotangents of the sliver are up to 500


def test_the_stand_in_refuses_what_pytorch3d_refuses():
    with (
        torch.sparse.check_sparse_tensor_invariants(enable=False),
        pytest.raises(RuntimeError, match="dtype"),
    ):
        fake_pytorch3d.cot_laplacian(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
