"""Meshes in the camera's frame and depth maps agree with the projection."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.export.frames import DEPTH_STEPS_PER_MM, DEPTH_ZERO, depth_map, in_camera_frame
from facerecon_torch.geometry.projection import project, project_with_depth
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.structures import Camera


@pytest.fixture
def camera():
    yaw, pitch, roll = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)
    return Camera(
        rotation=euler_to_matrix(yaw, pitch, roll),
        scale=torch.tensor(1.7, dtype=torch.float64),
        translation=torch.tensor([40.0, 31.0], dtype=torch.float64),
        degenerate=torch.tensor(False),
    )


def test_x_and_y_of_the_camera_s_frame_are_px_of_the_image(camera, rng):
    vertices = 20 * torch.randn(50, 3, generator=rng, dtype=torch.float64)
    framed = in_camera_frame(vertices, camera)
    assert_close(framed[:, :2] * torch.tensor([1.7, -1.7], dtype=torch.float64), project(vertices, camera))
    assert_close(framed[:, 2] * 1.7, project_with_depth(vertices, camera)[:, 2])
    assert_close((framed[1:] - framed[:-1]).norm(dim=1), (vertices[1:] - vertices[:-1]).norm(dim=1))


def test_a_depth_map_holds_the_depth_in_hundredths_of_a_mm(camera):
    corners = torch.tensor([[-10.0, -10, 5], [12, -8, 9], [0, 14, -7]], dtype=torch.float64)
    depth = torch.from_numpy(depth_map(corners, torch.tensor([[0, 1, 2]]), camera, (64, 80)).astype("int64"))
    inside = corners.mean(0)
    (x, y), z = project(inside[None], camera)[0].round().long().tolist(), in_camera_frame(corners, camera)[:, 2]
    mm = (depth[y, x] - DEPTH_ZERO) / DEPTH_STEPS_PER_MM
    assert abs(mm - z.mean()) < 1  # within a px of the middle
    shown = (depth[depth > 0] - DEPTH_ZERO) / DEPTH_STEPS_PER_MM
    assert z.min() - 0.01 <= shown.min()
    assert shown.max() <= z.max() + 0.01
    assert 100 < len(shown) < 64 * 80 / 2


@pytest.mark.parametrize("move", [(500.0, 0.0), (-500.0, 0.0), (0.0, 900.0), (0.0, -900.0)])
def test_a_face_outside_the_image_has_no_depth(camera, move):
    corners = torch.tensor([[-10.0, -10, 5], [12, -8, 9], [0, 14, -7]], dtype=torch.float64)
    away = corners + torch.tensor([*move, 0.0], dtype=torch.float64)
    assert not depth_map(away, torch.tensor([[0, 1, 2]]), camera, (64, 80)).any()
