import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.features.hog import hog
from facerecon_torch.features.hog_spec import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.coefficients import LandmarkFitter
from facerecon_torch.pipeline import crop_bank
from facerecon_torch.pipeline.crop_bank import build_bank, join_banks
from facerecon_torch.pipeline.observe import FaceObserver, Observed, select_blocks
from tests.pipeline.tiny_world import make_samples, make_setup


@pytest.fixture(scope="module")
def crops():
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.avg_pool2d(torch.rand(5, 3, 200, 200, generator=generator), 3, 1, 1)[..., :96, :96]


def points_for(n: int) -> torch.Tensor:
    return 20 + 56 * torch.rand(n, 7, 2, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("evaluation", ["dense", "patch", "patch_halo"])
def test_a_bank_describes_as_the_features_do(crops, evaluation):
    spec = HogSpec(patch_px=32, evaluation=evaluation)
    eight_bit = (crops * 255).round() / 255
    bank = join_banks(
        [build_bank(eight_bit[:2], spec, keep=torch.float32), build_bank(eight_bit[2:], spec, keep=torch.float32)]
    )
    points = points_for(5)
    assert_close(bank.field(slice(0, 5), points)(points), hog(eight_bit, points, spec), rtol=0.0, atol=1e-5)
    order = torch.tensor([4, 0, 3])
    part = bank.at(order).field(slice(1, 3), points)(points[order[1:]])
    assert_close(part, hog(eight_bit[order[1:]], points[order[1:]], spec), rtol=0.0, atol=1e-5)


def test_maps_too_large_to_keep_are_made_again(crops, monkeypatch):
    spec = HogSpec(patch_px=32)
    eight_bit = (crops * 255).round() / 255
    kept = build_bank(eight_bit, spec, keep=torch.float32)
    monkeypatch.setattr(crop_bank, "LARGEST_MAP", 10)
    made = build_bank(eight_bit, spec, keep=torch.float32)
    assert made.source.dtype == torch.uint8
    points = points_for(5)
    everything = slice(0, 5)
    assert_close(made.field(everything, points)(points), kept.field(everything, points)(points), rtol=0.0, atol=1e-5)


def test_half_precision_maps_are_close(crops):
    spec = HogSpec(patch_px=32)
    points = points_for(5)
    half, full = (build_bank(crops, spec, keep=k).field(slice(0, 5), points)(points) for k in (torch.half, torch.float))
    assert float((half - full).abs().max()) < 2e-3
    assert float((half - full).abs().mean()) < 1e-4


def test_blocks_are_columns_of_the_joint_feature():
    spec = JointSpec(hog=HogSpec(patch_px=32))
    joint = torch.arange(2.0 * spec.length).reshape(2, spec.length)
    hog_columns, ld_columns = (select_blocks(joint, spec, (name,)) for name in spec.blocks)
    assert torch.equal(torch.cat([hog_columns, ld_columns], 1), joint)
    assert hog_columns.data_ptr() == joint.data_ptr()
    assert torch.equal(select_blocks(joint, spec, ("ld", "hog")), torch.cat([ld_columns, hog_columns], 1))


def test_stage_zero_is_computed_once():
    setup = make_setup()
    samples = make_samples(setup, people=3, images=2, seed=8)
    fitter = LandmarkFitter(setup.model, setup.fit)
    fit = fitter.fit(samples.landmarks)
    observed = Observed(samples.landmarks, fit.camera, samples.bank)
    observer = FaceObserver(fitter, setup.model.n_identity, observed, setup.features)
    joint = observer(fit.parameters.flat, 0)
    only = observer.with_blocks(("ld",), joint)
    assert only(fit.parameters.flat, 0).data_ptr() == joint[:, setup.features.block_sizes[0] :].data_ptr()
    assert_close(only(fit.parameters.flat, 1), only(fit.parameters.flat, 0), rtol=0.0, atol=1e-5)


def test_displacements_vanish_where_landmarks_are_met():
    setup = make_setup()
    samples = make_samples(setup, people=2, images=2, seed=8, noise=0.0)
    fitter = LandmarkFitter(setup.model, setup.fit)
    camera = fitter.fit(samples.landmarks).camera
    observed = Observed(samples.landmarks, camera, samples.bank)
    observer = FaceObserver(fitter, setup.model.n_identity, observed, JointSpec(hog=setup.features.hog, blocks=("ld",)))
    truth = samples.truth.parameters.flat
    exact = float(observer(truth, 0).abs().mean())
    moved = truth.clone()
    moved[:, 1] += 3 * setup.model.identity_variance[1].sqrt()
    assert exact < 0.02  # mm; the contour may choose other vertices
    assert float(observer(moved, 0).abs().mean()) > 10 * exact
