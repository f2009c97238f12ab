import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.projection import project, project_with_depth, rotate_to_view
from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.structures import Camera


def _camera(rng, shape, dtype=torch.float64):
    draw = [torch.randn(*shape, n, generator=rng, dtype=torch.float64).to(dtype) for n in (3, 1, 2)]
    flag = torch.zeros(shape, dtype=torch.bool)
    return Camera(
        rotation=axis_angle_to_matrix(draw[0]), scale=draw[1][..., 0].exp(), translation=draw[2], degenerate=flag
    )


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_projection_is_equation_4_point_by_point(shape, rng, device, dtype, tolerance):
    camera = _camera(rng, shape, dtype)
    points = torch.randn(*shape, 7, 3, generator=rng, dtype=torch.float64).to(dtype)
    pixels = project(points.to(device), camera.to(device)).cpu()
    turned = rotate_to_view(points, camera)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in (*shape, 7, 1))).tolist():
        *row, point, _ = index
        one = camera[tuple(row)]
        v = one.rotation @ points[(*row, point)]
        assert_close(turned[(*row, point)], v, atol=tolerance, rtol=tolerance)
        expected = one.scale * torch.stack([v[0], -v[1]]) + one.translation
        assert_close(pixels[(*row, point)], expected, atol=tolerance, rtol=tolerance)


def test_up_in_the_model_is_up_in_the_image():
    eye = Camera(
        rotation=torch.eye(3),
        scale=torch.tensor(2.0),
        translation=torch.tensor([10.0, 20.0]),
        degenerate=torch.tensor(False),
    )
    assert_close(project(torch.tensor([[1.0, 3.0, 5.0]]), eye), torch.tensor([[12.0, 14.0]]))


def test_projection_gradcheck(rng):
    camera = _camera(rng, (2,))
    points = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)

    def through(points, rotation, scale, translation):
        return project(
            points, Camera(rotation=rotation, scale=scale, translation=translation, degenerate=camera.degenerate)
        )

    inputs = [t.requires_grad_() for t in (points, camera.rotation, camera.scale, camera.translation)]
    assert torch.autograd.gradcheck(through, inputs)


def test_depth_is_in_pixels_towards_the_viewer(rng):
    camera = _camera(rng, (3,))
    points = torch.randn(3, 5, 3, generator=rng, dtype=torch.float64)
    seen = project_with_depth(points, camera)
    assert_close(seen[..., :2], project(points, camera))
    assert_close(seen[..., 2], camera.scale[:, None] * rotate_to_view(points, camera)[..., 2])
