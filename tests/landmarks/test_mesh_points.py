"""The map from Face Mesh's points to landmarks: the tool that fits it finds pairs that are there, and is symmetric."""

import torch
from torch import Tensor
from torch.testing import assert_close

from facerecon_torch.commands.build_assets.mesh_points import fit_pairs, mesh_mirror
from facerecon_torch.landmarks.mediapipe.mesh_points import mesh_to_ibug68
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, MIRROR_66

FLIP = torch.tensor([-1.0, 1.0], dtype=torch.float64)


def _faces(rng: torch.Generator) -> tuple[Tensor, Tensor, list[tuple[int, int, float]]]:
    """Meshes [80, 468, 2] that are symmetric on average, landmarks on pairs of their points, and those pairs."""
    columns, rows = torch.arange(13, dtype=torch.float64), torch.arange(18, dtype=torch.float64)
    half = 4.0 * torch.cartesian_prod(columns + 0.5, rows)[torch.randperm(234, generator=rng)]
    half = half + 0.8 * torch.rand(234, 2, dtype=torch.float64, generator=rng)  # no two neighbours are equally near
    mean = torch.cat([half, half * FLIP])
    meshes = mean + torch.randn(80, 468, 2, dtype=torch.float64, generator=rng)
    pairs: list[tuple[int, int, float]] = []
    for k in range(66):
        if MIRROR_66[k] < k:
            a, b, share = pairs[MIRROR_66[k]]
            pairs.append(((a + 234) % 468, (b + 234) % 468, share))
        elif MIRROR_66[k] == k:
            pairs.append((k, k + 234, 0.5))  # on the midline, between a point and its mirror image
        else:
            near = (mean - mean[k]).norm(dim=1).argsort()
            pairs.append((k, int(near[1]), 0.3))
    first, second = (torch.tensor([p[i] for p in pairs]) for i in (0, 1))
    share = torch.tensor([p[2] for p in pairs], dtype=torch.float64)[:, None]
    return meshes, torch.lerp(meshes[:, first], meshes[:, second], share), pairs


def test_the_tool_finds_the_pairs(rng: torch.Generator) -> None:
    meshes, landmarks, pairs = _faces(rng)
    found = fit_pairs(meshes, landmarks, torch.zeros(80))
    side = [k for k in range(66) if MIRROR_66[k] != k]
    for k in side:
        a, b, share = found[k]
        assert (a, b, share) in [pairs[k], (pairs[k][1], pairs[k][0], round(1 - pairs[k][2], 4))]


def test_a_mesh_and_its_mirror_image(rng: torch.Generator) -> None:
    meshes, _, _ = _faces(rng)
    opposite, mutual = mesh_mirror(meshes.mean(0))
    assert bool(mutual.all())
    assert opposite.tolist() == [*range(234, 468), *range(234)]


def test_the_committed_map_is_symmetric() -> None:
    """Mirror landmarks move alike under mirror moves of the points: their shares are equal."""
    basis = torch.eye(468, dtype=torch.float64)
    weights = mesh_to_ibug68(torch.stack([basis, basis], dim=-1).permute(1, 0, 2))[..., 0]  # [468, 68]
    assert_close(weights.sum(0), torch.ones(68, dtype=torch.float64))
    for k, mirror in enumerate(MIRROR_66):
        one, other = (weights[:, IBUG_OF_PAPER[i]] for i in (k, mirror))
        assert_close(one[one > 0].sort().values, other[other > 0].sort().values)
