"""Canonical crops: exact maps, band-limited pictures, cameras that follow."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.fitting.crop import (
    CropSpec,
    FaceCropper,
    apply_affine,
    camera_from_crop,
    camera_to_crop,
    crop_faces,
    invert_affine,
)
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix, matrix_to_euler
from facerecon_torch.images import resample
from facerecon_torch.structures import Camera
from tests.reference.resample_loops import resampled
from tests.tiny_model import tiny_bilinear


@pytest.fixture(scope="module")
def model():
    return tiny_bilinear().to(torch.float64)


def random_camera(n, rng, scale=(0.5, 6.0)):
    angles = 2 * torch.rand(3, n, generator=rng, dtype=torch.float64) - 1
    return Camera(
        rotation=euler_to_matrix(0.7 * angles[0], 0.3 * angles[1], angles[2]),
        scale=scale[0] + (scale[1] - scale[0]) * torch.rand(n, generator=rng, dtype=torch.float64),
        translation=700 + 100 * torch.randn(n, 2, generator=rng, dtype=torch.float64),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )


def scaled_map(scale, shift=(0.0, 0.0), roll=0.0):
    turn = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return torch.cat([scale * turn, torch.tensor(shift)[:, None]], dim=1)[None].double()


def plane_wave(grid, cycles_per_px, angle, phase=0.3):
    """0.5 + 0.4 cos(...) at the points `grid` [h, w, 2], three channels."""
    wave = torch.tensor([math.cos(angle), math.sin(angle)], dtype=grid.dtype)
    value = 0.5 + 0.4 * torch.cos(2 * math.pi * cycles_per_px * (grid @ wave) + phase)
    return value.expand(3, *value.shape)


def pixel_grid(height, width):
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return torch.stack([x, y], dim=-1)


@pytest.mark.parametrize("derotate", [False, True])
def test_faces_land_in_the_middle_at_the_wanted_density(model, derotate, rng):
    camera = random_camera(5, rng)
    cropper = FaceCropper(model, CropSpec(derotate=derotate))
    to_crop = cropper.to_crop(camera)
    inside = camera_to_crop(camera, to_crop)
    assert_close(inside.scale, torch.full((5,), 64 / 45, dtype=torch.float64))
    centre = project(cropper.centre.expand(5, 1, 3), inside)
    assert_close(centre, torch.full_like(centre, 159.5))
    if derotate:
        assert_close(torch.atan2(*_twist(inside.rotation)), torch.zeros(5, dtype=torch.float64))


def _twist(rotation):
    return rotation[:, 1, 0] - rotation[:, 0, 1], rotation[:, 0, 0] + rotation[:, 1, 1]


@pytest.mark.parametrize("derotate", [False, True])
def test_projection_and_crop_commute(model, derotate, rng):
    camera = random_camera(4, rng)
    to_crop = FaceCropper(model, CropSpec(derotate=derotate)).to_crop(camera)
    points = 60 * torch.randn(4, 30, 3, generator=rng, dtype=torch.float64)
    inside = project(points, camera_to_crop(camera, to_crop))
    assert_close(inside, apply_affine(project(points, camera), to_crop), atol=1e-9, rtol=0)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_the_way_back_is_exact(batch, rng, dtype, device):
    turn = euler_to_matrix(*torch.rand(3, *batch, generator=rng, dtype=torch.float64))
    linear = turn[..., :2, :2] + 0.5 * torch.eye(2, dtype=torch.float64)
    shift = 100 * torch.randn(*batch, 2, 1, generator=rng, dtype=torch.float64)
    to_crop = torch.cat([linear, shift], dim=-1).to(device, dtype)
    points = (300 * torch.rand(*batch, 7, 2, generator=rng, dtype=torch.float64)).to(device, dtype)
    back = apply_affine(apply_affine(points, to_crop), invert_affine(to_crop))
    assert_close(back, points, atol=1e-10 if dtype == torch.float64 else 1e-3, rtol=0)
    assert back.dtype == dtype


def test_cameras_come_back(model, rng):
    camera = random_camera(4, rng)
    to_crop = FaceCropper(model, CropSpec(derotate=True)).to_crop(camera)
    back = camera_from_crop(camera_to_crop(camera, to_crop), to_crop)
    assert_close(back.rotation, camera.rotation, atol=1e-12, rtol=0)
    assert_close(back.scale, camera.scale)
    assert_close(back.translation, camera.translation)


def test_the_camera_comes_from_the_mean_face(model, rng):
    camera = random_camera(3, rng)
    cropper = FaceCropper(model, CropSpec())
    mean = model.vertices(model.identity_mean, model.expression_mean)[model.topology.landmark_vertices]
    found = cropper.camera(project(mean.expand(3, 66, 3), camera))
    assert_close(found.rotation, camera.rotation)
    assert_close(found.scale, camera.scale)
    known = cropper.camera(project(mean.expand(3, 66, 3), camera), scale=2 * camera.scale)
    assert_close(known.scale, 2 * camera.scale)


@pytest.mark.parametrize("roll", [0.0, 0.5], ids=["upright", "turned"])
@pytest.mark.parametrize("scale", [1.4, 1.0, 0.61, 0.23, 0.07])
def test_crops_of_smooth_pictures_equal_the_analytic_picture(scale, roll):
    spec = CropSpec(size=48, derotate=roll != 0)
    side = int(110 / scale) + 8
    to_crop = scaled_map(scale, (-20.3, -19.4 if roll == 0 else 3.1), roll)
    cycles = 0.08 * min(scale, 1.0)  # picture px; 12 px of the crop or of the picture per wave
    picture = plane_wave(pixel_grid(side, side), cycles, 0.6)
    crop = crop_faces(picture[None], to_crop, spec).image[0]
    places = apply_affine(pixel_grid(48, 48).reshape(1, -1, 2), invert_affine(to_crop)).reshape(48, 48, 2)
    inside = ((places > 4 / scale) & (places < side - 1 - 4 / scale)).all(-1)
    assert inside.sum() > 600
    error = (crop - plane_wave(places, cycles, 0.6)).abs()[:, inside]
    assert error.max() < 0.02


@pytest.mark.parametrize("roll", [0.0, 0.5], ids=["upright", "turned"])
@pytest.mark.parametrize("scale", [0.61, 0.23, 0.07])
@pytest.mark.parametrize("angle", [0.0, 0.8])
def test_waves_that_the_crop_cannot_hold_vanish(scale, roll, angle):
    spec = CropSpec(size=32, derotate=roll != 0)
    side = int(80 / scale) + 8
    to_crop = scaled_map(scale, (-20.0, -20.0 if roll == 0 else 0.0), roll)
    steepest = max(math.cos(angle), math.sin(angle))
    picture = plane_wave(pixel_grid(side, side), min(1.2 * scale, 0.45 / steepest), angle)
    crop = crop_faces(picture[None], to_crop, spec).image[0]
    assert (crop[:, 4:-4, 4:-4] - 0.5).abs().max() < 0.05


def test_a_shift_by_whole_pixels_copies(rng):
    picture = torch.rand(2, 3, 40, 50, generator=rng)
    to_crop = scaled_map(1.0, (-7.0, -11.0)).float().expand(2, 2, 3)
    crop = crop_faces(picture, to_crop, CropSpec(size=20))
    assert_close(crop.image, picture[:, :, 11:31, 7:27])
    assert torch.equal(crop.to_crop, to_crop)


def test_outside_the_picture(rng):
    picture = torch.rand(1, 3, 30, 30, generator=rng, dtype=torch.float64)
    to_crop = scaled_map(1.0, (10.0, 10.0))
    edge = crop_faces(picture, to_crop, CropSpec(size=60)).image[0]
    zeros = crop_faces(picture, to_crop, CropSpec(size=60, outside="zeros")).image[0]
    assert_close(edge[:, 10:40, 10:40], picture[0])
    assert_close(zeros[:, 10:40, 10:40], picture[0])
    assert_close(edge[:, :10, 10:40], picture[0, :, :1].expand(3, 10, 30))
    assert_close(edge[:, 10:40, 40:], picture[0, :, :, -1:].expand(3, 30, 20))
    assert zeros[:, :10].abs().max() == 0
    assert zeros[:, :, 40:].abs().max() == 0
    far = scaled_map(0.3, (900.0, -900.0))
    assert crop_faces(picture, far, CropSpec(size=8, outside="zeros")).image.abs().max() == 0
    corner = crop_faces(picture, far, CropSpec(size=8)).image[0]
    assert_close(corner, corner[:, :1, :1].expand(3, 8, 8))


@pytest.mark.parametrize("derotate", [False, True])
def test_lists_of_any_size_equal_single_pictures(derotate, rng):
    sizes = [(90, 120), (300, 200), (64, 64)]
    pictures = [torch.rand(3, *size, generator=rng) for size in sizes]
    to_crop = torch.cat([scaled_map(s, (2.0, -3.0), 0.2 if derotate else 0.0) for s in (0.5, 0.2, 1.3)]).float()
    spec = CropSpec(size=32, derotate=derotate)
    together = crop_faces(pictures, to_crop, spec).image
    assert together.dtype == torch.float32
    for k, picture in enumerate(pictures):
        alone = crop_faces(picture[None], to_crop[k : k + 1], spec).image[0]
        assert_close(together[k], alone, atol=1e-6, rtol=0)


def test_batch_rows_do_not_touch_each_other(rng, dtype, device):
    pictures = torch.rand(64, 3, 60, 80, generator=rng, dtype=torch.float64).to(device, dtype)
    scale = 0.55 + torch.rand(64, generator=rng, dtype=torch.float64)
    to_crop = torch.zeros(64, 2, 3, dtype=torch.float64)
    to_crop[:, 0, 0] = to_crop[:, 1, 1] = scale
    to_crop[:, :, 2] = 10 * torch.randn(64, 2, generator=rng, dtype=torch.float64) - 10
    to_crop = to_crop.to(device, dtype)
    spec = CropSpec(size=24)
    together = crop_faces(pictures, to_crop, spec).image
    assert together.dtype == dtype
    alone = crop_faces(pictures[33:34], to_crop[33:34], spec).image[0]
    assert_close(together[33], alone, atol=1e-10 if dtype == torch.float64 else 1e-5, rtol=0)


@pytest.mark.parametrize("derotate", [False, True])
def test_bytes_equal_the_picture_converted_first(derotate, rng):
    pictures = [torch.randint(0, 256, (3, *size), generator=rng, dtype=torch.uint8) for size in ((90, 120), (400, 300))]
    wide = [picture.float() / 255 for picture in pictures]
    to_crop = torch.cat([scaled_map(s, (-3.0, 4.0), 0.2 if derotate else 0.0) for s in (0.7, 0.11)]).float()
    spec = CropSpec(size=40, derotate=derotate)
    crop = crop_faces(pictures, to_crop, spec).image
    assert crop.dtype == torch.float32
    assert torch.equal(crop, crop_faces(wide, to_crop, spec).image)
    together = crop_faces(pictures[0].expand(2, 3, 90, 120), to_crop, spec).image
    assert torch.equal(together, crop_faces(wide[0].expand(2, 3, 90, 120), to_crop, spec).image)


@pytest.mark.parametrize("outside", ["edge", "zeros"])
@pytest.mark.parametrize("shift", [0.0, 70.0, -500.0, 2000.0])
def test_sums_of_rows_equal_products_with_whole_matrices(shift, outside, rng):
    part = torch.rand(2, 3, 130, 170, generator=rng, dtype=torch.float64)
    to_crop = torch.cat([scaled_map(0.6, (shift, -3.0)), scaled_map(1.7, (4.0, shift))])
    places, density = resample._upright(to_crop, 150), resample._density(to_crop)
    sums = resample._separable(part, places, density, 4, outside)
    assert_close(sums, resampled(part, places, density, outside))


def test_slopes_equal_those_of_products_with_whole_matrices(rng):
    part = torch.rand(2, 3, 13, 17, generator=rng, dtype=torch.float64).requires_grad_()
    to_crop = torch.cat([scaled_map(0.6, (1.0, -3.0)), scaled_map(1.7, (4.0, 0.5))])
    places, density = resample._upright(to_crop, 15), resample._density(to_crop)
    towards = torch.rand(2, 3, 15, 15, generator=rng, dtype=torch.float64)
    slopes = [
        torch.autograd.grad((crop * towards).sum(), part)[0]
        for crop in (resample._separable(part, places, density, 4, "edge"), resampled(part, places, density, "edge"))
    ]
    assert_close(slopes[0], slopes[1])


def test_crops_are_differentiable_in_the_picture(rng):
    picture = (0.3 + 0.4 * torch.rand(1, 3, 9, 10, generator=rng, dtype=torch.float64)).requires_grad_()
    for roll in (0.0, 0.4):
        spec = CropSpec(size=4, derotate=roll != 0)
        to_crop = scaled_map(0.6, (-1.0, -0.5), roll)
        assert torch.autograd.gradcheck(lambda x: crop_faces(x, to_crop, spec).image, picture)  # noqa: B023


def test_a_second_crop_is_due_after_a_large_change(model, rng):
    cropper = FaceCropper(model, CropSpec())
    before = random_camera(6, rng)
    density = before.scale / (64 / 45)
    centre = project(cropper.centre.expand(6, 1, 3), before)[:, 0]

    def moved(factor, shift):
        translation = centre + factor * (before.translation - centre)
        translation = translation + shift * density[:, None] * torch.tensor([0.6, 0.8], dtype=torch.float64)
        return Camera(
            rotation=before.rotation, scale=factor * before.scale, translation=translation, degenerate=before.degenerate
        )

    assert not cropper.needs_recrop(before, before).any()
    assert not cropper.needs_recrop(before, moved(1.079, 0.0)).any()
    assert cropper.needs_recrop(before, moved(1.081, 0.0)).all()
    assert cropper.needs_recrop(before, moved(0.919, 0.0)).all()
    assert not cropper.needs_recrop(before, moved(1.0, 9.9)).any()
    assert cropper.needs_recrop(before, moved(1.0, 10.1)).all()
    lost = Camera(
        rotation=before.rotation,
        scale=3 * before.scale,
        translation=before.translation,
        degenerate=torch.ones(6, dtype=torch.bool),
    )
    assert not cropper.needs_recrop(before, lost).any()


def test_a_crop_shows_the_face_where_its_camera_says(model, rng):
    camera = random_camera(2, rng, scale=(1.0, 2.5))
    cropper = FaceCropper(model, CropSpec())
    points = project(cropper.landmarks.expand(2, 66, 3), camera)[:, :49]
    grid = pixel_grid(1400, 1400)
    pictures = torch.zeros(2, 3, 1400, 1400)
    for k in range(2):
        for x, y in points[k, ::8].tolist():
            bump = torch.exp(-0.5 * ((grid - torch.tensor([x, y])) / (3 * float(camera.scale[k]))).square().sum(-1))
            pictures[k] += bump.float()
    crop = cropper.crop(pictures, cropper.camera(project(cropper.landmarks.expand(2, 66, 3), camera)))
    seen = apply_affine(points, crop.to_crop)[:, ::8]
    for k in range(2):
        for x, y in seen[k].tolist():
            left, top = round(x) - 3, round(y) - 3
            patch = crop.image[k, 0, top : top + 7, left : left + 7]
            peak = patch.argmax().item()
            assert abs(left + peak % 7 - x) <= 0.51
            assert abs(top + peak // 7 - y) <= 0.51


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), TypeError),
        (torch.zeros(3, 3, 8, 8), ValueError),
        (torch.zeros(2, 1, 8, 8), ValueError),
        (torch.zeros(2, 3, 0, 8), ValueError),
        ([torch.zeros(3, 8, 8)], ValueError),
        ([torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8)], ValueError),
    ],
)
def test_wrong_images_are_refused(images, error):
    with pytest.raises(error, match="images must"):
        crop_faces(images, scaled_map(1.0).float().expand(2, 2, 3), CropSpec(size=8))


@pytest.mark.parametrize("entry", [0.0, -1.0, math.nan, math.inf])
def test_wrong_maps_are_refused(entry):
    to_crop = scaled_map(1.0).float()
    to_crop[0, 0, 0] = entry
    with pytest.raises(ValueError, match="to_crop must"):
        crop_faces(torch.zeros(1, 3, 8, 8), to_crop, CropSpec(size=8))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"px_per_mm": 0.0}, {"recrop_scale": math.nan}, {"outside": "mirror"}])
def test_wrong_specs_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CropSpec(**wrong)


def test_a_model_without_topology_is_refused(model):
    with pytest.raises(ValueError, match="topology"):
        FaceCropper(model.restrict(torch.arange(3)), CropSpec())


def test_an_upright_crop_has_no_roll(model):
    camera = Camera(
        rotation=euler_to_matrix(*torch.tensor([[0.0], [0.0], [0.4]], dtype=torch.float64)),
        scale=torch.ones(1, dtype=torch.float64),
        translation=torch.zeros(1, 2, dtype=torch.float64),
        degenerate=torch.zeros(1, dtype=torch.bool),
    )
    upright = camera_to_crop(camera, FaceCropper(model, CropSpec(derotate=True)).to_crop(camera))
    assert_close(torch.stack(matrix_to_euler(upright.rotation)), torch.zeros(3, 1, dtype=torch.float64))
