import pytest
import torch
import trimesh
from torch.testing import assert_close

from facerecon_torch.report.overlay import OverlaySpec, draw_overlay


def _ball(centre=(30.0, 40.0), radius=20.0):
    """A ball in the image frame; mirrored in y, so its triangles still run counter-clockwise seen from
    outside."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    points = torch.as_tensor(ball.vertices.copy(), dtype=torch.float32) * torch.tensor([1.0, -1, 1])
    return points + torch.tensor([*centre, 0.0]), torch.as_tensor(ball.faces.copy())


def _distance(height, width, centre=(30.0, 40.0)):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.hypot(x - centre[0], y - centre[1])


def test_the_photograph_outside_the_mesh_is_untouched_and_the_input_too(rng):
    image = torch.rand(3, 80, 60, generator=rng)
    before = image.clone()
    drawn = draw_overlay(image, *_ball())
    assert image.equal(before)
    distance = _distance(80, 60)
    assert drawn[:, distance > 21.5].equal(image[:, distance > 21.5])
    assert ((drawn - image).abs().amax(0)[distance < 15] > 0).float().mean() > 0.95
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_light_from_the_upper_left_and_the_photograph_shines_through():
    black, white = (draw_overlay(torch.full((3, 80, 60), v), *_ball()) for v in (0.0, 1.0))
    assert black[0, 30, 22] > 1.5 * black[0, 52, 40]
    inside = _distance(80, 60) < 15
    assert_close((white - black)[:, inside], torch.full((3, int(inside.sum())), 1 - OverlaySpec().opacity))


def test_pixel_centres_and_antialiased_edges():
    """A rectangle from 10 to 20.5 covers pixels 10..20 by their areas: half of each border pixel, then whole
    ones."""
    corners = torch.tensor([[10.0, 10, 0], [20.5, 10, 0], [20.5, 20, 0], [10, 20, 0]])
    faces = torch.tensor([[0, 3, 2], [0, 2, 1]])
    spec = OverlaySpec(opacity=1.0, ambient=1.0, colour=(1.0, 1.0, 1.0), supersample=8)
    cover = draw_overlay(torch.zeros(3, 32, 32), corners, faces, spec=spec)[0]
    row = cover[15]
    assert_close(row[[9, 10, 11, 20, 21]], torch.tensor([0.0, 0.5, 1.0, 1.0, 0.0]), atol=0.07, rtol=0)
    column = cover[:, 15]
    assert_close(column[[9, 10, 19, 20, 21]], torch.tensor([0.0, 0.5, 1.0, 0.5, 0.0]), atol=0.07, rtol=0)


@pytest.mark.parametrize("shift", [(-25.0, 0.0), (0.0, 45.0), (31.5, -41.5)])
def test_a_mesh_that_leaves_the_picture_is_clipped(shift, rng):
    image = torch.rand(3, 80, 60, generator=rng)
    points, triangles = _ball()
    # On a grid of 1/256 px float32 moves the points without rounding: triangles seen edge on would magnify it.
    moved = (256 * points).round() / 256 + torch.tensor([*shift, 0.0])
    wide = torch.zeros(3, 240, 180)
    wide[:, 80:160, 60:120] = image
    expected = draw_overlay(wide, moved + torch.tensor([60.0, 80, 0]), triangles)[:, 80:160, 60:120]
    assert_close(draw_overlay(image, moved, triangles), expected, atol=1e-5, rtol=0)


def test_a_mesh_outside_the_picture_draws_nothing(rng):
    image = torch.rand(3, 40, 40, generator=rng)
    for centre in ((-500.0, 20.0), (20.0, 500.0)):
        assert draw_overlay(image, *_ball(centre)).equal(image)


def test_landmarks_are_dots_at_their_pixels_fitted_ones_on_top():
    landmarks = torch.tensor([[5.0, 6.0], [50.0, 70.0], [-3.0, 900.0]])
    spec = OverlaySpec()
    drawn = draw_overlay(torch.zeros(3, 80, 60), *_ball(), landmarks, landmarks[1:], spec=spec)
    assert_close(drawn[:, 6, 5], torch.tensor(spec.landmark_colour))
    assert_close(drawn[:, 70, 50], torch.tensor(spec.fitted_colour))
    assert (drawn[:, 6, 9] == 0).all()
    assert (drawn[:, 14, 5] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_device_dtype_and_grey(channels, device, dtype, rng):
    image = torch.rand(channels, 80, 60, generator=rng).to(device, dtype)
    points, triangles = _ball()
    drawn = draw_overlay(image, points.to(device), triangles.to(device), torch.zeros(66, 2, device=device))
    assert drawn.shape == (3, 80, 60)
    assert (drawn.device, drawn.dtype) == (image.device, dtype)


def test_a_large_face_is_drawn_without_supersampling_within_bounds(monkeypatch):
    monkeypatch.setattr("facerecon_torch.report.overlay._SAMPLES", 100)
    coarse = draw_overlay(torch.zeros(3, 80, 60), *_ball())
    monkeypatch.undo()
    fine = draw_overlay(torch.zeros(3, 80, 60), *_ball())
    inside = _distance(80, 60) < 17
    assert_close(coarse[:, inside], fine[:, inside], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": torch.zeros(4, 8, 8)}, r"image must be \[3, H, W\]"),
        ({"points_image": torch.full((3, 3), torch.nan)}, "points_image must be finite"),
        ({"landmarks": torch.full((66, 2), torch.inf)}, "landmarks must be finite"),
        ({"fitted_landmarks": torch.zeros(66, 3)}, "fitted_landmarks must have trailing shape"),
    ],
)
def test_bad_input_is_named(change, words):
    good = {
        "image": torch.zeros(3, 8, 8),
        "points_image": torch.eye(3),
        "triangles": torch.tensor([[0, 1, 2]]),
    }
    with pytest.raises(ValueError, match=words):
        draw_overlay(**{**good, **change})


def test_a_bad_spec_is_refused():
    for change in ({"opacity": 1.5}, {"ambient": -0.1}, {"supersample": 0}, {"dot": 0.0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            OverlaySpec(**change)


def test_bytes_are_drawn_as_floats_are_to_a_level(rng):
    image = torch.randint(0, 256, (3, 80, 60), generator=rng, dtype=torch.uint8)
    dots = torch.tensor([[5.0, 6.0], [50.0, 70.0]])
    drawn = draw_overlay(image, *_ball(), dots)
    exact = draw_overlay(image.double() / 255, *_ball(), dots) * 255
    assert drawn.dtype == torch.uint8
    assert (drawn - exact).abs().max() <= 1


def test_the_far_side_of_the_mesh_is_not_drawn():
    square = torch.tensor([[10.0, 10, 0], [50, 10, 0], [50, 50, 0], [10, 50, 0]])
    faces = torch.tensor([[0, 3, 2], [0, 2, 1]])
    grey = torch.full((3, 60, 60), 0.5)
    assert not draw_overlay(grey, square, faces).equal(grey)
    assert draw_overlay(grey, square, faces.flip(1)).equal(grey)
