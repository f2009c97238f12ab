import torch
from torch.testing import assert_close

from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.metrics.vertex_error import Placement, pose_error_degrees, surface_errors


def a_sheet():
    """A flat grid facing the viewer, 6 x 6 vertices 10 mm apart."""
    x, y = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="xy")
    points = torch.stack([10 * x, 10 * y, torch.zeros_like(x)], -1).reshape(-1, 3)
    cell = (torch.arange(5)[:, None] * 6 + torch.arange(5)).reshape(-1, 1)
    return points, torch.cat([cell + torch.tensor([0, 1, 7]), cell + torch.tensor([0, 7, 6])])


def test_lift_and_slide_are_told_apart_in_the_scans_frame():
    points, triangles = a_sheet()
    turn = euler_to_matrix(*torch.tensor([[0.4], [0.2], [-0.1]]))
    shift = torch.tensor([[5.0, -3.0, 700.0]])
    truth = Placement(points[None], turn, shift)
    moved = points + torch.tensor([0.3, -0.4, 1.2])
    counted = torch.ones(1, len(points), dtype=torch.bool)
    counted[0, 7] = False
    found = surface_errors(Placement(moved[None], turn, shift), truth, triangles, counted)
    kept = counted[0]
    assert_close(found.across[0, kept], torch.full((35,), 1.2).double(), rtol=0, atol=2e-4)
    assert_close(found.along[0, kept], torch.full((35,), 0.5).double(), rtol=0, atol=5e-4)
    assert_close(found.straight[0, kept], torch.full((35,), 1.3).double(), rtol=0, atol=2e-4)
    assert torch.isnan(found.across[0, 7])


def test_what_pose_and_shape_exchange_does_not_count():
    points, triangles = a_sheet()
    turn = euler_to_matrix(*torch.tensor([[0.0], [0.1], [0.0]])).double()
    counted = torch.ones(1, len(points), dtype=torch.bool)
    truth = Placement(points[None].double(), turn, torch.zeros(1, 3).double())
    same = Placement(truth.in_scan, torch.eye(3)[None].double(), torch.zeros(1, 3).double())
    assert float(surface_errors(same, truth, triangles, counted).straight.max()) < 1e-9
    assert_close(pose_error_degrees(same.rotation, truth.rotation), torch.rad2deg(torch.tensor([0.1]).double()))


def test_angles_between_rotations():
    angles = torch.tensor([0.0, 0.25, 1.0])
    zero = torch.zeros(3)
    turned = euler_to_matrix(angles, zero, zero)
    assert_close(
        pose_error_degrees(turned, euler_to_matrix(zero, zero, zero)).float(), torch.rad2deg(angles), atol=1e-3, rtol=0
    )
