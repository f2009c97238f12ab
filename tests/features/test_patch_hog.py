"""Patches on their own: scikit-image, the slow twin, symmetries."""

import numpy as np
import pytest
import torch
from skimage.feature import hog as skimage_hog
from torch.testing import assert_close

from facerecon_torch.features.hog import HogSpec, describe_patches, patch_hog
from tests.reference.hog_loops import mirror_order, uoctti_patch

SPECS = [
    HogSpec(variant=variant, cell_px=cell, vote=vote)
    for variant in ("uoctti", "dalal")
    for cell in (16, 32)
    for vote in ("hard", "linear")
]


def spec_id(spec):
    return f"{spec.variant}{spec.cell_px}-{spec.vote}"


def smooth_images(n, channels, size, rng, dtype=torch.float64):
    coarse = torch.rand(n, channels, size // 8 + 3, size // 8 + 3, generator=rng, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    noise = torch.rand(n, channels, size, size, generator=rng, dtype=torch.float64)
    return (0.15 + 0.6 * smooth + 0.1 * noise).to(dtype)


@pytest.mark.parametrize("cell_px", [8, 16, 32])
@pytest.mark.parametrize("colour", [True, False], ids=["colour", "grey"])
def test_dalal_with_hard_votes_is_scikit_images_hog(colour, cell_px, dtype, rng):
    patches = smooth_images(6, 3 if colour else 1, 64, rng, dtype)
    spec = HogSpec(variant="dalal", cell_px=cell_px, vote="hard", colour=colour)
    expected = [
        skimage_hog(
            patch.permute(1, 2, 0).numpy() if colour else patch[0].numpy(),
            orientations=9,
            pixels_per_cell=(cell_px, cell_px),
            cells_per_block=(2, 2),
            block_norm="L2-Hys",
            channel_axis=2 if colour else None,
        )
        for patch in patches
    ]
    got = describe_patches(patches, spec)
    assert np.abs(got.numpy() - np.stack(expected)).max() < 1e-5


def test_grey_levels_that_tie_at_bin_borders_are_still_scikit_images(rng):
    """Pictures of four grey levels: half of the gradients lie exactly on 0, 90 or 180 degrees."""
    patches = torch.randint(0, 4, (6, 1, 64, 64), generator=rng).double() / 3
    expected = [skimage_hog(p[0].numpy(), 9, (16, 16), (2, 2), "L2-Hys") for p in patches]
    got = describe_patches(patches, HogSpec(variant="dalal", vote="hard"))
    assert np.abs(got.numpy() - np.stack(expected)).max() < 1e-5


@pytest.mark.parametrize("vote", ["hard", "linear"])
@pytest.mark.parametrize("cell_px", [8, 16])
def test_uoctti_is_the_published_description(cell_px, vote, rng):
    patches = smooth_images(2, 3, 32, rng)
    got = describe_patches(patches, HogSpec(patch_px=32, cell_px=cell_px, vote=vote))
    expected = np.stack([uoctti_patch(patch.numpy(), cell_px, vote) for patch in patches])
    assert_close(got, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_point_at_an_integer_position_takes_the_pixels_themselves(spec, rng):
    crops = smooth_images(2, 3, 96, rng)
    points = torch.tensor([[[40.0, 50.0], [32.0, 64.0]], [[64.0, 32.0], [45.0, 47.0]]], dtype=torch.float64)
    got = patch_hog(crops, points, spec, halo=False)
    for b in range(2):
        for n in range(2):
            x, y = points[b, n].long().tolist()
            window = crops[b : b + 1, :, y - 32 : y + 32, x - 32 : x + 32]
            assert_close(got[b, n], describe_patches(window, spec)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_a_mirrored_patch_has_the_permuted_descriptor(spec, rng):
    patches = smooth_images(4, 3, 64, rng)
    # Flat outer rows: without them dalal's border pixels lie exactly on the border between its bins 0 and 8.
    patches[..., [0, -1], :] = 0.5
    order = torch.from_numpy(mirror_order(spec.variant, spec.cells).copy())
    mirrored = describe_patches(patches.flip(-1), spec)
    plain = describe_patches(patches, spec)
    assert_close(mirrored, plain[:, order], rtol=0, atol=1e-9)
    assert (mirrored - plain).abs().max() > 0.05


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
@pytest.mark.parametrize("halo", [False, True], ids=["alone", "halo"])
def test_a_flat_patch_is_all_zeros(spec, halo, dtype):
    crops = torch.full((1, 3, 80, 80), 0.4, dtype=dtype)
    described = patch_hog(crops, torch.tensor([[[40.0, 38.5]]], dtype=dtype), spec, halo=halo)
    assert described.shape == (1, 1, spec.length)
    assert described.abs().max() == 0


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_brightness_does_not_matter_and_contrast_hardly(spec, rng):
    patches = 0.5 * smooth_images(4, 3, 64, rng)
    described = describe_patches(patches, spec)
    assert_close(describe_patches(patches + 0.3, spec), described, rtol=0, atol=1e-9)
    # Only the floors of the norms know the scale.
    assert_close(describe_patches(2 * patches, spec), described, rtol=0, atol=2e-4)


def test_grey_is_the_luma_of_a_colour_patch(rng):
    patches = smooth_images(2, 3, 64, rng)
    luma = (patches * torch.tensor([0.299, 0.587, 0.114], dtype=patches.dtype)[:, None, None]).sum(1, keepdim=True)
    spec = HogSpec(colour=False)
    assert_close(describe_patches(patches, spec), describe_patches(luma, spec), rtol=0, atol=1e-6)


def test_two_channels_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels"):
        describe_patches(torch.zeros(1, 2, 64, 64), HogSpec())
