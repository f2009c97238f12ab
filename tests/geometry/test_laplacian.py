"""Laplacians against loops over triangles, smooth fields against a dense solution."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.testing import assert_close

from facerecon_torch.geometry.laplacian import SmoothSolver, cotangent_laplacian, laplacian_of_weights
from tests.reference import laplacian_twin


def _sheet(rows, columns, rng):
    """A bent, uneven sheet: vertices [n, 3] in float64 and triangles."""
    v, u = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    points = torch.stack([u, v, 0.1 * (u - 4.0) ** 2 + 0.2 * v], -1).double().reshape(-1, 3)
    points += 0.25 * torch.rand(points.shape, generator=rng, dtype=torch.float64)
    index = torch.arange(rows * columns).view(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return points, torch.cat([torch.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])


def _two_parts(rng):
    """Two sheets that do not touch."""
    (p, s), (q, t) = _sheet(9, 12, rng), _sheet(5, 6, rng)
    return torch.cat([p, q + 30]), torch.cat([s, t + len(p)])


def _dense(laplacian, n):
    return laplacian(torch.eye(n, dtype=torch.float64, device=laplacian.areas.device)).cpu().numpy()


def test_cotangent_laplacian_is_its_twin(rng):
    points, triangles = _two_parts(rng)
    found = cotangent_laplacian(points, triangles)
    matrix, areas = laplacian_twin.cotangent(points.numpy(), triangles.numpy())
    np.testing.assert_allclose(found.areas.numpy(), areas, rtol=1e-9)
    np.testing.assert_allclose(_dense(found, len(points)), matrix / np.sqrt(areas)[:, None], atol=1e-9)


def test_a_linear_field_on_a_flat_sheet_does_not_bend_inside(rng):
    points, triangles = _sheet(7, 8, rng)
    flat = points * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    field = flat @ torch.tensor([[2.0], [-1.0], [0.0]], dtype=torch.float64) + 5
    bent = cotangent_laplacian(flat, triangles)(field).reshape(7, 8)
    assert_close(bent[1:-1, 1:-1], torch.zeros(5, 6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_triangle_without_area_does_no_harm(rng):
    points, triangles = _sheet(5, 5, rng)
    points[12] = points[11]
    found = cotangent_laplacian(points, triangles)
    assert bool(torch.isfinite(found.bending.values).all())
    assert float(found.areas.min()) > 0


def _problem(rng, b=3):
    points, triangles = _two_parts(rng)
    n = len(points)
    stiffness = 0.5 + 20 * torch.rand(b, n, generator=rng, dtype=torch.float64)
    weight = torch.rand(b, n, generator=rng, dtype=torch.float64)
    weight = torch.where(torch.rand(b, n, generator=rng) < 0.6, 0.0, weight)  # most have no goal at all
    weight[:, [0, n - 1]] = 1e-2
    goal = torch.randn(b, n, 3, generator=rng, dtype=torch.float64)
    return points, triangles, stiffness, weight, goal


def test_smooth_field_is_its_twin(device, dtype, rng):
    points, triangles, stiffness, weight, goal = _problem(rng)
    solver = SmoothSolver(cotangent_laplacian(points, triangles), device=device, dtype=dtype)
    tables = [table.to(device, dtype) for table in (stiffness, weight, goal)]
    tight = 1e-9 if dtype == torch.float64 else 1e-5
    found = solver.solve(*tables, tolerance=tight, max_steps=500)
    matrix, areas = laplacian_twin.cotangent(points.numpy(), triangles.numpy())
    want = [
        laplacian_twin.smooth_field(matrix, areas, *(t[k].numpy() for t in (stiffness, weight, goal))) for k in range(3)
    ]
    assert found.field.dtype == dtype
    assert found.field.device.type == device.type
    assert_close(found.field.double().cpu(), torch.tensor(np.array(want)), atol=2e4 * tight**0.9, rtol=0)


def test_coarse_bumps_save_steps(rng, monkeypatch):
    points, triangles = _sheet(30, 40, rng)
    links = np.abs(laplacian_twin.uniform(triangles, len(points)))
    np.fill_diagonal(links, 0)
    laplacian = laplacian_of_weights(sparse.csr_matrix(links), np.ones(len(points)))
    goal = torch.randn(1, len(points), 1, generator=rng, dtype=torch.float64)
    ones = torch.ones(1, len(points), dtype=torch.float64)

    def steps(stiffness):
        solver = SmoothSolver(laplacian, device="cpu", dtype=torch.float64)
        return solver.solve(stiffness * ones, ones, goal, max_steps=2000).steps

    soft, stiff = steps(10.0), steps(1000.0)
    assert stiff <= 100
    monkeypatch.setattr("facerecon_torch.geometry.laplacian._COARSEST", len(points))  # the diagonal alone
    assert steps(10.0) >= 2 * soft
    assert steps(1000.0) >= 4 * stiff


def test_a_batch_is_its_faces_one_by_one(rng):
    points, triangles, stiffness, weight, goal = _problem(rng)
    weight[1] *= 100  # solved sooner than the others
    solver = SmoothSolver(cotangent_laplacian(points, triangles), device="cpu", dtype=torch.float64)
    tight = {"tolerance": 1e-12, "max_steps": 500}  # a column that stopped a step earlier would be off by the tolerance
    together = solver.solve(stiffness, weight, goal, **tight).field
    for k in range(3):
        alone = solver.solve(stiffness[k : k + 1], weight[k : k + 1], goal[k : k + 1], **tight).field
        assert_close(together[k : k + 1], alone, atol=1e-9, rtol=0)


def test_what_has_no_weight_does_not_count(rng):
    points, triangles, stiffness, weight, goal = _problem(rng)
    solver = SmoothSolver(cotangent_laplacian(points, triangles), device="cpu", dtype=torch.float64)
    without = solver.solve(stiffness, weight, goal).field
    hollow = torch.where(weight[..., None] > 0, goal, torch.nan)
    assert_close(solver.solve(stiffness, weight, hollow).field, without, atol=0, rtol=0)


def test_a_solution_needs_no_more_steps(rng):
    points, triangles, stiffness, weight, goal = _problem(rng)
    solver = SmoothSolver(cotangent_laplacian(points, triangles), device="cpu", dtype=torch.float64)
    first = solver.solve(stiffness, weight, goal, tolerance=1e-6, max_steps=500)
    assert 0 < first.steps < 500
    assert float(first.residual.max()) <= 1e-6
    again = solver.solve(stiffness, weight, goal, start=first.field, tolerance=1e-5)
    assert again.steps == 0
    assert solver.solve(stiffness, weight, goal, max_steps=5).steps == 5
    with pytest.raises(ValueError, match="tolerance"):
        solver.solve(stiffness, weight, goal, tolerance=0.0)
