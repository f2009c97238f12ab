"""Scan-to-mesh of batches: the slow twin, one by one, alignments of known transforms, regions."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.align import Alignment
from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.metrics.regions import FACE_REGIONS, face_regions, mesh_to_scan, region_errors, surface_quality
from facerecon_torch.metrics.scan import measured_again, scan_to_mesh, scans_to_meshes
from tests.metrics.test_scan import _LANDMARKS, _mesh, _relief, _scan
from tests.reference.scan_to_mesh_search import now_numbers


def _batch(rng, n=120, b=3):
    vertices, triangles = _mesh(25.0)
    scans = torch.stack([_scan(vertices, triangles, rng, n=n) for _ in range(b)])
    scans = scans + torch.randn(scans.shape, generator=rng, dtype=torch.float64)
    marks = _relief(_LANDMARKS).expand(b, -1, -1)
    turn = axis_angle_to_matrix(0.2 * torch.randn(b, 3, generator=rng, dtype=torch.float64))
    moved = Alignment(torch.linspace(0.8, 1.3, b, dtype=torch.float64), turn, 50 * turn[:, 0])
    return scans, marks, moved.apply(vertices.expand(b, -1, -1)), triangles, moved.apply(marks)


@pytest.mark.parametrize("align", ["rigid", "similarity"])
def test_numbers_equal_a_brute_force_search(rng, align):
    scans, marks, meshes, triangles, seven = _batch(rng, n=40, b=1)
    if align == "rigid":
        meshes, seven = 1.2 * meshes, 1.2 * seven
    counted = torch.ones(scans.shape[:2], dtype=torch.bool)
    found = scans_to_meshes(scans, marks, meshes, triangles, seven, counted=counted, align=align)
    arrays = (t[0].numpy() for t in (scans, marks, meshes))
    twin = now_numbers(*arrays, triangles.numpy(), seven[0].numpy(), scale=align == "similarity")
    numbers = [np.nanmedian(found.distances[0].numpy()), float(found.mean), float(found.deviation)]
    assert numbers == pytest.approx(twin, abs=2e-3)
    assert found.mean > 0.2


def test_a_batch_is_its_members(rng):
    scans, marks, meshes, triangles, seven = _batch(rng)
    counted = torch.ones(scans.shape[:2], dtype=torch.bool)
    counted[1, 90:] = False
    found = scans_to_meshes(scans, marks, meshes, triangles, seven, counted=counted)
    for k, n in enumerate((120, 90, 120)):
        one = scan_to_mesh(scans[k, :n], marks[k], meshes[k], triangles, seven[k])
        assert_close(found.alignment.scale[k], one.alignment.scale, atol=1e-5, rtol=0)
        assert float(found.mean[k]) == pytest.approx(one.mean, abs=1e-4)
        assert float(found.median[k]) == pytest.approx(one.median, abs=1e-3)


def test_known_transforms_are_recovered_and_none_moves_nothing(rng):
    vertices, triangles = _mesh(10.0)
    scan, marks = _scan(vertices, triangles, rng, n=300)[None], _relief(_LANDMARKS)[None]
    turn = axis_angle_to_matrix(torch.tensor([[0.1, -0.3, 0.2]], dtype=torch.float64))
    truth = Alignment(torch.tensor([0.7], dtype=torch.float64), turn, torch.tensor([[5.0, -9.0, 30.0]]).double())
    back = truth.inverse()
    meshes, seven = back.apply(vertices[None]), back.apply(marks)
    counted = torch.ones(1, 300, dtype=torch.bool)
    call = {"counted": counted}
    free = scans_to_meshes(scan, marks, meshes, triangles, seven, align="similarity", **call)
    assert_close(free.alignment.scale, truth.scale, atol=1e-4, rtol=0)
    assert_close(free.alignment.rotation, truth.rotation, atol=1e-4, rtol=0)
    kept = scans_to_meshes(scan, marks, meshes, triangles, seven, align="rigid", **call)
    assert float(kept.alignment.scale) == 1
    assert float(kept.mean) > 1
    still = scans_to_meshes(scan, marks, vertices[None], triangles, marks, align="none", **call)
    assert float(still.mean) < 1e-5
    assert float(scans_to_meshes(scan, marks, meshes, triangles, seven, align="none", **call).mean) > 10
    with pytest.raises(ValueError, match="align must be one of"):
        scans_to_meshes(scan, marks, meshes, triangles, seven, align="affine", **call)


def test_other_points_are_measured_without_aligning_again(rng):
    scans, marks, meshes, triangles, seven = _batch(rng)
    some = torch.zeros(scans.shape[:2], dtype=torch.bool)
    some[:, :60] = True
    found = scans_to_meshes(scans, marks, meshes, triangles, seven, counted=some)
    again = measured_again(found, scans, meshes, triangles, torch.ones_like(some))
    known = ~found.distances.isnan()
    assert_close(again.distances[known], found.distances[known])
    assert not again.distances.isnan().any()


def test_regions_lie_where_their_names_say():
    points = torch.tensor(
        [[[0.0, 5, 0], [0, -42, 0], [0, 55, 0], [35, -25, 0], [-35, -25, 0], [30, 30, 0], [0, 400, 0]]]
    )
    masks = face_regions(points.double(), _relief(_LANDMARKS)[None])
    table = torch.stack([masks[name][0] for name in FACE_REGIONS])
    assert [table[:, k].nonzero().flatten().tolist() for k in range(7)] == [[0], [1], [2], [3], [3], [], []]


def test_an_error_in_the_nose_stays_in_the_nose(rng):
    vertices, triangles = _mesh(4.0)
    scan, marks = _scan(vertices, triangles, rng, n=2500)[None], _relief(_LANDMARKS)[None]
    x, y = vertices[:, 0], vertices[:, 1]
    dent = vertices.clone()
    dent[:, 2] += 6 * torch.sin(y / 2) * torch.exp(-((x / 8) ** 4 + ((y + 2) / 8) ** 4))
    errors = scans_to_meshes(scan, marks, dent[None], triangles, marks, counted=torch.ones(1, 2500, dtype=torch.bool))
    regions = {k: float(v) for k, v in region_errors(scan, marks, dent[None], triangles, errors).items()}
    assert regions["nose"] > 0.1
    assert max(regions[name] for name in ("mouth", "forehead", "cheeks")) < 0.1 * regions["nose"]


def test_a_shifted_plane_has_known_quality():
    line = torch.arange(-100.0, 101.0, 10.0, dtype=torch.float64)
    grid = torch.stack([*torch.meshgrid(line, line, indexing="ij")], -1).reshape(-1, 2)
    flat = torch.cat([grid, torch.zeros(len(grid), 1, dtype=torch.float64)], 1)
    _, triangles = _mesh(10.0)
    marks = _LANDMARKS[None]
    above = flat + torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    counted = torch.ones(1, len(flat), dtype=torch.bool)
    errors = scans_to_meshes(flat[None], marks, above[None], triangles, marks, counted=counted, align="none")
    backward = mesh_to_scan(above, triangles, flat, triangles, _LANDMARKS)
    tilted = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64).expand(1, len(flat), 3)
    quality = surface_quality(errors, tilted, above[None], triangles, backward[None])
    assert float(quality.chamfer) == pytest.approx(2.0, abs=1e-5)
    assert float(quality.normal_degrees) == pytest.approx(36.8699, abs=1e-3)
    assert float(quality.complete_percent) == 100
    far = scans_to_meshes(flat[None], marks, above[None] * 8, triangles, marks, counted=counted, align="none")
    assert float(surface_quality(far, tilted, above[None] * 8, triangles, backward[None]).complete_percent) == 0
