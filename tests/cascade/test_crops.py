"""Windows of bytes give the crops of whole float pictures."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade.crops import ImageCropper
from facerecon_torch.fitting.crop import CropSpec, FaceCropper
from facerecon_torch.images.read import in_unit_range
from facerecon_torch.structures import Camera


def cameras(rng, scale, place):
    n = len(scale)
    return Camera(
        rotation=torch.eye(3).expand(n, 3, 3),
        scale=torch.tensor(scale),
        translation=torch.tensor(place),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )


@pytest.mark.parametrize("derotate", [False, True])
@pytest.mark.parametrize("outside", ["edge", "zeros"])
def test_crops_of_windows_are_crops_of_pictures(tiny_setup, rng, device, derotate, outside):
    spec = CropSpec(size=48, px_per_mm=0.3, derotate=derotate, outside=outside)
    model = tiny_setup.model.to(device)
    pictures = [torch.randint(0, 256, (3, h, w), generator=rng).byte() for h, w in ((700, 900), (61, 500), (900, 640))]
    # small in the middle, across a border, finer than five px a crop px, and beyond the picture
    for scale, place in (
        ([0.5, 0.4, 0.7], [[500.0, 300.0], [250.0, 30.0], [320.0, 450.0]]),
        ([0.3, 0.3, 0.3], [[20.0, 690.0], [490.0, 5.0], [630.0, 10.0]]),
        ([1.7, 2.9, 2.2], [[450.0, 350.0], [250.0, 30.0], [300.0, 500.0]]),
        ([0.5, 0.5, 0.5], [[-90.0, 300.0], [700.0, 30.0], [320.0, -200.0]]),
    ):
        camera = cameras(rng, scale, place).to(device)
        plain = FaceCropper(model, spec).crop([in_unit_range(p).to(device) for p in pictures], camera)
        for given in (pictures, [in_unit_range(p) for p in pictures], [p.to(device) for p in pictures]):
            crop = ImageCropper(model, spec).crop(given, camera)
            assert torch.equal(crop.to_crop, plain.to_crop)
            assert_close(crop.image, plain.image, rtol=0, atol=2e-6)


def test_only_the_window_is_made_floats(tiny_setup, rng, monkeypatch):
    seen = []

    def watch(pixels):
        seen.append(tuple(pixels.shape))
        return in_unit_range(pixels)

    monkeypatch.setattr("facerecon_torch.images.resample.in_unit_range", watch)
    picture = torch.zeros(3, 3000, 4000, dtype=torch.uint8)
    cropper = ImageCropper(tiny_setup.model, CropSpec(size=48, px_per_mm=0.3))
    cropper.crop([picture], cameras(rng, [0.5], [[2000.0, 1500.0]]))
    ((_, channels, height, width),) = seen
    assert channels == 3
    assert max(height, width) < 250


@pytest.mark.parametrize("wrong", [torch.zeros(3, 9, 9, dtype=torch.int64), torch.zeros(2, 9, 9), torch.zeros(9, 9)])
def test_what_is_no_picture_is_refused_as_ever(tiny_setup, rng, wrong):
    cropper = ImageCropper(tiny_setup.model, CropSpec(size=16, px_per_mm=0.3))
    with pytest.raises((TypeError, ValueError), match="images must"):
        cropper.crop([wrong], cameras(rng, [0.5], [[4.0, 4.0]]))
