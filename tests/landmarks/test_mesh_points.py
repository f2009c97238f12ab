"""The map from Face Mesh's points to landmarks: its tool finds weights that are there; the committed one mirrors."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from facerecon_torch.commands.build_assets.mesh_points import fit_weights, mesh_mirror
from facerecon_torch.landmarks.mediapipe.mesh_points import mesh_to_ibug68, mesh_to_ibug68_3d
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, MIRROR_66

FLIP = torch.tensor([-1.0, 1.0], dtype=torch.float64)


def _faces(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Meshes [300, 468, 2] that are symmetric on average, landmarks on lines between two of their points, and the
    weights [66, 468] of those landmarks."""
    columns, rows = torch.arange(13, dtype=torch.float64), torch.arange(18, dtype=torch.float64)
    half = 4.0 * torch.cartesian_prod(columns + 0.5, rows)[torch.randperm(234, generator=rng)]
    half = half + 0.8 * torch.rand(234, 2, dtype=torch.float64, generator=rng)  # no two neighbours are equally near
    mean = torch.cat([half, half * FLIP])
    meshes = mean + torch.randn(300, 468, 2, dtype=torch.float64, generator=rng)
    weights = torch.zeros(66, 468, dtype=torch.float64)
    for k, mirror in enumerate(MIRROR_66):
        if mirror == k:
            weights[k, k] = weights[k, k + 234] = 0.5  # on the midline, between a point and its mirror image
        else:
            side = 234 * (mirror < k)
            weights[k, min(k, mirror) + side], weights[k, min(k, mirror) + 100 + side] = 0.7, 0.3
    return meshes, weights @ meshes, weights


def test_the_tool_finds_the_weights(rng: torch.Generator) -> None:
    meshes, landmarks, weights = _faces(rng)
    found = fit_weights(meshes, landmarks, torch.zeros(300), 1e-4)
    assert_close(found, weights, atol=1e-6, rtol=0)


def test_weights_under_scatter_are_those_of_a_regression_with_a_row_per_weight(rng: torch.Generator) -> None:
    meshes, landmarks, _ = _faces(rng)
    landmarks = landmarks + torch.randn(landmarks.shape, dtype=torch.float64, generator=rng)
    found = fit_weights(meshes, landmarks, torch.zeros(300), 0.8)
    opposite = torch.cat([torch.arange(234, 468), torch.arange(234)])
    seen = torch.cat([meshes, (meshes * FLIP)[:, opposite]])
    wanted = torch.cat([landmarks, (landmarks * FLIP)[:, list(MIRROR_66)]])
    centre = seen.mean(1, keepdim=True)
    rows = torch.cat([(seen - centre)[..., axis] for axis in (0, 1)])
    goals = torch.cat([(wanted - centre)[..., axis] for axis in (0, 1)])
    penalty = len(rows) ** 0.5 * 0.8 * torch.eye(468, dtype=torch.float64)
    slow = torch.linalg.lstsq(
        torch.cat([rows, penalty]), torch.cat([goals, torch.zeros(468, 66, dtype=torch.float64)])
    ).solution.T
    assert_close(found - found.mean(1, keepdim=True), slow - slow.mean(1, keepdim=True), atol=1e-9, rtol=0)
    assert_close(found.sum(1), torch.ones(66, dtype=torch.float64))
    assert_close(found[list(MIRROR_66)][:, opposite], found, atol=1e-9, rtol=0)


def test_a_vertex_without_a_mirror_image_has_no_weight(rng: torch.Generator) -> None:
    meshes, landmarks, _ = _faces(rng)
    meshes[:, 300] += 2.5  # nearer to another's mirror image than to its own
    _, mutual = mesh_mirror(meshes.mean(0))
    assert not mutual.all()
    found = fit_weights(meshes, landmarks, torch.zeros(300), 1.0)
    assert found[:, ~mutual].count_nonzero() == 0
    assert bool((found[:, mutual] != 0).any(0).all())


def test_a_mesh_and_its_mirror_image(rng: torch.Generator) -> None:
    meshes, _, _ = _faces(rng)
    opposite, mutual = mesh_mirror(meshes.mean(0))
    assert bool(mutual.all())
    assert opposite.tolist() == [*range(234, 468), *range(234)]


def test_the_committed_map_is_symmetric() -> None:
    """Mirror landmarks move alike under mirror moves of the points: their weights are equal."""
    basis = torch.eye(468, dtype=torch.float64)
    weights = mesh_to_ibug68(torch.stack([basis, basis], dim=-1).permute(1, 0, 2))[..., 0]  # [468, 68]
    assert_close(weights.sum(0), torch.ones(68, dtype=torch.float64), atol=1e-6, rtol=0)
    for k, mirror in enumerate(MIRROR_66):
        one, other = (weights[:, IBUG_OF_PAPER[i]] for i in (k, mirror))
        assert_close(one.sort().values, other.sort().values, atol=1e-6, rtol=0)


def test_landmarks_follow_a_turned_and_moved_mesh(rng: torch.Generator) -> None:
    mesh = 100 * torch.rand(478, 2, dtype=torch.float64, generator=rng)
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    moved = 1.7 * mesh @ turn + torch.tensor([1000.0, -20.0], dtype=torch.float64)
    expected = 1.7 * mesh_to_ibug68(mesh) @ turn + torch.tensor([1000.0, -20.0], dtype=torch.float64)
    assert_close(mesh_to_ibug68(moved), expected, atol=1e-3, rtol=0)


def test_points_in_space_are_those_of_every_plane(rng: torch.Generator) -> None:
    mesh = 100 * torch.rand(2, 478, 3, dtype=torch.float64, generator=rng)
    found = mesh_to_ibug68_3d(mesh)
    assert_close(found[..., :2], mesh_to_ibug68(mesh))
    assert_close(found[..., [2, 0]], mesh_to_ibug68(mesh[..., [2, 0]]))
    with pytest.raises(ValueError, match=r"points must be \[\.\.\., 468 or 478, 3\]; got \[478, 2\]"):
        mesh_to_ibug68_3d(mesh[0, :, :2])


def test_a_face_has_the_same_points_beside_others(rng: torch.Generator) -> None:
    meshes = 1000 * torch.rand(37, 478, 3, generator=rng)
    together = mesh_to_ibug68(meshes)
    assert all(torch.equal(together[k], mesh_to_ibug68(meshes[k])) for k in range(37))
