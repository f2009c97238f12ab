"""The renderer of the benchmarks against the product's rasteriser."""

import pytest
import torch
from torch.testing import assert_close

from benchmarks.speed.data import SIZE, default_model, draw_faces
from benchmarks.speed.raster import rasterise
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.projection import project, rotate_to_view


def test_faces_are_rasterised_as_by_warp():
    pytest.importorskip("warp")
    model = default_model(torch.device("cpu"), torch.float32)
    faces = draw_faces(model, 2, seed=3)
    shape = model.vertices(faces.parameters.identity, faces.parameters.expression)
    seen = torch.cat([project(shape, faces.camera), rotate_to_view(shape, faces.camera)[..., 2:]], -1)
    expected = get_backend("warp").rasterise(seen, model.topology.triangles, SIZE, SIZE)
    nearest, barycentric = rasterise(seen, model.topology.triangles, SIZE)
    same = nearest == expected.triangle
    assert same.double().mean() > 0.9999
    assert_close(barycentric[same].float(), expected.barycentric[same], rtol=0, atol=1e-4)
    assert 0.3 < (nearest >= 0).double().mean() < 0.9


def test_overlapping_outside_and_flat_triangles():
    points = torch.tensor([[0.0, 0, 1], [3, 0, 1], [0, 3, 1], [-1, -1, 2], [9, -1, 2], [-1, 9, 2], [50, 50, 9]])
    triangles = torch.tensor([[0, 1, 2], [3, 5, 4], [0, 1, 1], [6, 6, 6]])
    nearest, barycentric = rasterise(points[None], triangles, 4)
    assert nearest.tolist() == [[[1] * 4] * 4]
    assert_close(barycentric.sum(-1), torch.ones(1, 4, 4, dtype=torch.float64))
    corners = points.double()[triangles[1]]
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    assert_close((barycentric @ corners[:, :2])[0], torch.stack([x, y], -1).double())
