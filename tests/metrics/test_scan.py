import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.align import Alignment
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.metrics.scan import face_mask, scan_to_mesh
from tests.reference import mesh_loops

_LANDMARKS = torch.tensor(
    [[-45.0, 30, 0], [-18, 30, 0], [18, 30, 0], [45, 30, 0], [0, -12, 0], [-25, -40, 0], [25, -40, 0]],
    dtype=torch.float64,
)


def _relief(points):
    """A face-like height over the plane, without symmetries that would leave a pose open."""
    x, y = points[..., 0], points[..., 1]
    nose = 25 * torch.exp(-(x**2 / 250 + (y + 5) ** 2 / 700))
    brow = 8 * torch.exp(-((x - 25) ** 2 / 300 + (y - 35) ** 2 / 200))
    return torch.stack([x, y, nose + brow - (x**2 + 0.7 * y**2) / 160], -1)


def _mesh(step=4.0):
    line = torch.arange(-100.0, 101.0, step, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    n = len(line)
    cell = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1, 1)
    return _relief(grid), torch.cat([cell + torch.tensor([0, n, 1]), cell + torch.tensor([1, n, n + 1])])


def _scan(vertices, triangles, rng, n=1500):
    corners = vertices[triangles[torch.randint(len(triangles), (n,), generator=rng)]]
    weights = torch.rand(n, 3, generator=rng, dtype=torch.float64) + 0.01
    return ((weights / weights.sum(1, keepdim=True))[..., None] * corners).sum(1)


def _placement(scale=1.0):
    turn = axis_angle_to_matrix(torch.tensor([0.2, -0.5, 0.1], dtype=torch.float64))
    shift = torch.tensor([300.0, -40.0, 900.0], dtype=torch.float64)
    return Alignment(torch.tensor(scale, dtype=torch.float64), turn, shift)


@pytest.mark.parametrize(("scale", "factor"), [(True, 1.25), (False, 1.0)], ids=["similarity", "rigid"])
def test_a_scan_of_the_mesh_itself_is_found_from_poor_landmarks(scale, factor, rng, device):
    vertices, triangles = _mesh()
    truth = _placement(factor)
    scan, marks = truth.apply(_scan(vertices, triangles, rng)), truth.apply(_relief(_LANDMARKS))
    poor = _relief(_LANDMARKS) + 4 * torch.randn(7, 3, generator=rng, dtype=torch.float64)
    inputs = (t.to(device) for t in (scan, marks, vertices, triangles, poor))
    found = scan_to_mesh(*inputs, scale=scale)
    assert found.distances.max() < 1e-3
    assert_close(found.alignment.rotation.cpu(), truth.rotation, atol=1e-4, rtol=0)
    assert_close(found.alignment.scale.cpu(), truth.scale, atol=1e-4, rtol=0)
    assert_close(found.alignment.translation.cpu(), truth.translation, atol=0.1, rtol=0)
    assert max(found.median, found.mean, found.deviation) < 1e-3


def test_without_scale_a_wrong_size_stays_an_error(rng):
    vertices, triangles = _mesh()
    scan = _scan(vertices, triangles, rng)
    sized = 1.1 * vertices
    marks = _relief(_LANDMARKS)
    free = scan_to_mesh(scan, marks, sized, triangles, 1.1 * marks)
    metrical = scan_to_mesh(scan, marks, sized, triangles, 1.1 * marks, scale=False)
    assert free.mean < 1e-3
    assert metrical.mean > 0.2
    assert metrical.alignment.scale == 1


@pytest.mark.parametrize("scale", [True, False], ids=["similarity", "rigid"])
def test_no_small_motion_lowers_the_squared_distance_of_a_noisy_scan(scale, rng):
    vertices, triangles = _mesh()
    scan = _scan(vertices, triangles, rng) + 1.5 * torch.randn(1500, 3, generator=rng, dtype=torch.float64)
    marks = _relief(_LANDMARKS)
    found = scan_to_mesh(scan, marks, vertices, triangles, marks, scale=scale)
    points, placed = scan[found.mask], found.alignment.apply(vertices)

    def cost(moved):
        return get_backend().closest_point(points, moved, triangles).distance.square().mean()

    best = cost(placed)
    assert_close(found.distances.square().mean(), best)
    centre = points.mean(0)
    for column in range(7 if scale else 6):
        for sign in (-1, 1):
            step = torch.zeros(7, dtype=torch.float64)
            step[column] = sign * (0.05 if 3 <= column < 6 else 0.001)
            turned = (placed - centre) @ axis_angle_to_matrix(step[:3]).mT
            assert cost((1 + step[6]) * turned + centre + step[3:6]) > best


def test_distances_are_those_to_the_placed_mesh(rng):
    vertices, triangles = _mesh(25.0)
    scan, marks = _scan(vertices, triangles, rng, n=150) + 2, _relief(_LANDMARKS)
    found = scan_to_mesh(scan, marks, vertices, triangles, marks)
    placed = found.alignment.apply(vertices)
    distance, _ = mesh_loops.closest_point(scan[found.mask].numpy(), placed.numpy(), triangles.numpy())
    assert_close(found.distances, torch.from_numpy(distance))
    assert found.median == pytest.approx(float(torch.from_numpy(distance).median()))


def test_mask_is_the_sphere_of_the_benchmark():
    bridge, bottom = torch.tensor([0.0, 30.0, 0.0]), torch.tensor([0.0, -12.0, 0.0])
    centre, radius = bottom + 0.3 * (bridge - bottom), 1.4 * (90 + 42) / 2
    line = torch.tensor([[0.0, 0.0, radius - 0.01], [0.0, 0.0, radius + 0.01]])
    assert face_mask(centre + line, _LANDMARKS.float()).tolist() == [True, False]


def test_landmarks_of_another_frame_are_refused():
    vertices, triangles = _mesh(20.0)
    with pytest.raises(ValueError, match="no point of the scan"):
        scan_to_mesh(vertices + 1e4, _LANDMARKS, vertices, triangles, _LANDMARKS)
