"""Maps and their gather: the widened patch, the slow twin, borders, batches, dtypes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from facerecon_torch.features.hog import HogSpec, gather_hog, hog, hog_field, hog_maps, patch_hog
from facerecon_torch.features.hog.histograms import first_node
from tests.features.test_patch_hog import SPECS, smooth_images, spec_id
from tests.reference.hog_loops import dalal_at, mirror_order, uoctti_at


def at_stride(spec, stride):
    return HogSpec(variant=spec.variant, cell_px=spec.cell_px, vote=spec.vote, stride=stride)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_stride_one_is_the_widened_patch_at_integer_positions(spec, dtype, rng):
    """Everywhere: inside, on the border, half outside and far away."""
    spec = at_stride(spec, 1)
    crops = smooth_images(2, 3, 136, rng, dtype)[..., :120, :]
    points = torch.randint(-60, 200, (2, 12, 2), generator=rng).to(dtype)
    points[0, 0] = torch.tensor([60.0, 62.0])
    got = gather_hog(hog_maps(crops, spec), points, spec)
    expected = patch_hog(crops, points, spec, halo=True)
    assert_close(got, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert expected[0, 0].abs().mean() > 0.05


@pytest.mark.parametrize("vote", ["hard", "linear"])
@pytest.mark.parametrize(("patch", "cell"), [(16, 8), (15, 5)], ids=["even", "odd"])
@pytest.mark.parametrize(("variant", "twin"), [("uoctti", uoctti_at), ("dalal", dalal_at)])
def test_stride_one_is_the_slow_twin_between_pixels_too(variant, twin, patch, cell, vote, rng):
    crop = smooth_images(1, 3, 24, rng)[..., :20]
    points = torch.tensor([[[10.0, 12.0], [9.25, 11.5], [1.7, 22.9], [-3.1, 30.0]]], dtype=torch.float64)
    spec = HogSpec(variant=variant, patch_px=patch, cell_px=cell, vote=vote, stride=1)
    got = gather_hog(hog_maps(crop, spec), points, spec)
    expected = [twin(crop[0].numpy(), tuple(point.tolist()), patch, cell, vote) for point in points[0]]
    assert_close(got[0], torch.from_numpy(np.stack(expected)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
@pytest.mark.parametrize("size", [(119, 120), (121, 122)])
def test_nodes_of_stride_four_hold_what_stride_one_holds_there(spec, size, rng):
    """Whatever the crop's size, and with nothing beyond the outermost nodes."""
    crops = smooth_images(1, 3, 136, rng)[..., : size[0], : size[1]]
    fine, coarse = (hog_maps(crops, at_stride(spec, stride)).histograms for stride in (1, 4))
    lead = first_node(at_stride(spec, 4)) - first_node(at_stride(spec, 1))
    assert lead == int(lead)
    padded = F.pad(fine, (0, 0, 8, 8, 8, 8))[:, 8 + int(lead) :: 4, 8 + int(lead) :: 4]
    assert_close(coarse, padded[:, : coarse.shape[1], : coarse.shape[2]], rtol=0, atol=1e-12)
    assert padded[:, coarse.shape[1] :].abs().sum() == padded[:, :, coarse.shape[2] :].abs().sum() == 0
    assert float(coarse.sum() * 16) == pytest.approx(float(fine.sum()), rel=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_stride_four_is_near_stride_one(spec, rng):
    crops = smooth_images(2, 3, 160, rng)
    points = 40 + 80 * torch.rand(2, 20, 2, generator=rng, dtype=torch.float64)
    fine, coarse = (hog(crops, points, at_stride(spec, stride)) for stride in (1, 4))
    bound = 0.01 if spec.variant == "uoctti" else 0.05  # measured: 0.2 to 0.9 % and 1.9 to 4.7 %
    assert (fine - coarse).abs().mean() < bound * fine.abs().mean()


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_shifted_picture_and_points_have_the_same_descriptors(spec, rng):
    """By whole pixels with stride 1, by whole strides with stride 4."""
    crops = smooth_images(1, 3, 240, rng)
    points = 100 + 30 * torch.rand(1, 9, 2, generator=rng, dtype=torch.float64)
    for stride, shift in ((1, 3), (4, 8)):
        here = at_stride(spec, stride)
        shifted = hog(crops[..., shift:, 2 * shift :], points - torch.tensor([2.0 * shift, 1.0 * shift]), here)
        assert_close(shifted, hog(crops, points, here), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_mirrored_crop_has_the_permuted_descriptor(spec, rng):
    spec = at_stride(spec, 1)
    crops = smooth_images(1, 3, 128, rng)[..., :121]
    points = 30 + 60 * torch.rand(1, 9, 2, generator=rng, dtype=torch.float64)
    mirrored_points = torch.stack([121 - points[..., 0], points[..., 1]], dim=-1)
    order = torch.from_numpy(mirror_order(spec.variant, spec.cells).copy())
    assert_close(hog(crops.flip(-1), mirrored_points, spec), hog(crops, points, spec)[..., order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
@pytest.mark.parametrize("evaluation", ["dense", "patch_halo", "patch"])
def test_landmarks_near_and_beyond_the_border_are_finite(spec, evaluation, rng):
    spec = HogSpec(variant=spec.variant, cell_px=spec.cell_px, vote=spec.vote, evaluation=evaluation)
    crops = smooth_images(1, 3, 96, rng)
    far = [[-5.0, 3.0], [0.0, 0.0], [95.0, 95.5], [130.0, 40.0], [-4e3, 12.0], [1e9, -1e9]]
    described = hog(crops, torch.tensor([far], dtype=torch.float64), spec)
    assert torch.isfinite(described).all()
    if evaluation != "patch":
        assert described[0, -2:].abs().max() == 0  # pixels outside the crop cast no votes


@pytest.mark.parametrize("evaluation", ["dense", "patch_halo", "patch"])
def test_a_nan_point_is_a_nan_descriptor_and_leaves_the_others_alone(evaluation, rng):
    spec = HogSpec(evaluation=evaluation)
    crops = smooth_images(1, 3, 96, rng)
    points = torch.tensor([[[48.0, 40.0], [torch.nan, 40.0], [50.0, 50.0]]], dtype=torch.float64)
    described = hog(crops, points, spec)
    assert described[0, 1].isnan().all()
    assert_close(described[:, [0, 2]], hog(crops, points[:, [0, 2]], spec))


@pytest.mark.parametrize("evaluation", ["dense", "patch_halo", "patch"])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_every_batch_shape(batch, evaluation, device, dtype, rng):
    spec = HogSpec(evaluation=evaluation)
    crops = smooth_images(6, 3, 96, rng, dtype).to(device)[: int(np.prod(batch))].reshape(*batch, 3, 96, 96)
    points = (20 + 60 * torch.rand(*batch, 4, 2, generator=rng, dtype=torch.float64)).to(device, dtype)
    described = hog_field(crops, spec)(points)
    assert described.shape == (*batch, 4, spec.length)
    assert described.dtype == dtype
    assert described.device.type == device.type
    flat = described.reshape(-1, 4, spec.length)
    for i, (crop, around) in enumerate(zip(crops.reshape(-1, 3, 96, 96), points.reshape(-1, 4, 2))):
        assert_close(flat[i], hog(crop, around, spec), rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
def test_batches_of_1_and_64_agree(variant, rng):
    spec = HogSpec(variant=variant)
    crops = smooth_images(64, 3, 96, rng, torch.float32)
    points = 20 + 60 * torch.rand(64, 5, 2, generator=rng)
    together = hog(crops, points, spec)
    alone = torch.cat([hog(crops[i : i + 1], points[i : i + 1], spec) for i in range(64)])
    assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
@pytest.mark.parametrize("evaluation", ["dense", "patch_halo", "patch"])
def test_float32_is_float64_rounded(variant, evaluation, rng):
    spec = HogSpec(variant=variant, evaluation=evaluation)
    crops = smooth_images(2, 3, 96, rng)
    points = 20 + 60 * torch.rand(2, 5, 2, generator=rng, dtype=torch.float64)
    assert_close(hog(crops.float(), points.float(), spec).double(), hog(crops, points, spec), rtol=0, atol=2e-5)


def test_one_field_serves_moving_landmarks(rng):
    spec = HogSpec()
    crops = smooth_images(2, 3, 96, rng)
    field = hog_field(crops, spec)
    for _ in range(2):
        points = 20 + 60 * torch.rand(2, 5, 2, generator=rng, dtype=torch.float64)
        assert_close(field(points), hog(crops, points, spec))


def test_maps_index_and_convert(rng):
    spec = HogSpec()
    crops = smooth_images(3, 3, 96, rng, torch.float32)
    points = 20 + 60 * torch.rand(3, 5, 2, generator=rng)
    maps = hog_maps(crops, spec)
    full = gather_hog(maps, points, spec)
    assert_close(gather_hog(maps[1:], points[1:], spec), full[1:])
    half = gather_hog(maps.to(torch.float16), points, spec)
    assert half.dtype == torch.float32
    assert_close(half, full, rtol=0, atol=1e-3)


def test_maps_of_another_spec_are_refused(rng):
    maps = hog_maps(torch.rand(1, 3, 64, 64, generator=rng), HogSpec())
    with pytest.raises(ValueError, match="made for"):
        gather_hog(maps, torch.zeros(1, 1, 2), HogSpec(vote="hard"))


@pytest.mark.parametrize("evaluation", ["dense", "patch_halo", "patch"])
@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
def test_cuda_agrees_with_cpu(variant, evaluation, dtype, rng, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    spec = HogSpec(variant=variant, evaluation=evaluation)
    crops = smooth_images(3, 3, 96, rng, dtype)
    points = (-10 + 110 * torch.rand(3, 9, 2, generator=rng, dtype=torch.float64)).to(dtype)
    assert_close(hog(crops.cuda(), points.cuda(), spec).cpu(), hog(crops, points, spec), rtol=0, atol=2e-5)


def test_equally_steep_channels_of_eight_bits_do_not_leave_the_choice_to_rounding(rng):
    # Few levels and steps: two channels of one pixel are as steep as one another in every sixth.
    crops = torch.randint(90, 96, (4, 3, 40, 40), generator=rng).double() / 255
    spec = HogSpec(patch_px=16, cell_px=8)
    coarse, fine = hog_maps(crops.float(), spec).histograms, hog_maps(crops, spec).histograms
    torch.testing.assert_close(coarse.double(), fine, rtol=1e-5, atol=1e-5 * float(fine.max()))
