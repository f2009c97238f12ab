from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade import feature_cache as crop_bank
from facerecon_torch.cascade import observe
from facerecon_torch.cascade.feature_cache import BankTable, build_bank, row_bytes
from facerecon_torch.cascade.observe import FaceObserver, Observed, select_blocks
from facerecon_torch.features.hog import hog
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec, joint_feature
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.regression.moments import row_chunks
from facerecon_torch.runtime import memory as train_memory
from facerecon_torch.runtime.memory import UNBOUNDED, BankPlace, MemoryBudget, memory_budget
from tests.tiny_world import make_samples, make_setup

ROUNDING = 1e-5  # of features below 1, sums of some 100 products in float32, when another number of faces goes together


@pytest.fixture(scope="module")
def crops():
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.avg_pool2d(torch.rand(5, 3, 200, 200, generator=generator), 3, 1, 1)[..., :96, :96]


def points_for(n: int) -> torch.Tensor:
    return 20 + 56 * torch.rand(n, 7, 2, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("evaluation", ["dense", "patch", "patch_halo"])
def test_a_bank_describes_as_the_features_do(crops, evaluation, in_file, tmp_path):
    spec = HogSpec(patch_px=32, evaluation=evaluation)
    eight_bit = (crops * 255).round() / 255
    place = BankPlace(torch.device("cpu"), tmp_path if in_file else None)
    table = BankTable(5, spec, place, keep=torch.float32)
    table.put(0, eight_bit[:2])
    table.put(2, eight_bit[2:])
    bank = table.bank()
    assert bank.row_bytes == row_bytes(96, spec, torch.float32)
    assert not list(tmp_path.iterdir())  # nothing is left behind, whatever happens to the run
    points = points_for(5)
    assert_close(bank.field(slice(0, 5), points)(points), hog(eight_bit, points, spec), rtol=0.0, atol=ROUNDING)
    order = torch.tensor([4, 0, 3])
    part = bank.at(order).field(slice(1, 3), points)(points[order[1:]])
    assert_close(part, hog(eight_bit[order[1:]], points[order[1:]], spec), rtol=0.0, atol=ROUNDING)


def test_maps_too_large_to_keep_are_made_again(crops, monkeypatch):
    spec = HogSpec(patch_px=32)
    eight_bit = (crops * 255).round() / 255
    kept = build_bank(eight_bit, spec, keep=torch.float32)
    monkeypatch.setattr(crop_bank, "LARGEST_MAP", 10)
    made = build_bank(eight_bit, spec, keep=torch.float32)
    assert made.source.dtype == torch.uint8
    points = points_for(5)
    everything = slice(0, 5)
    assert_close(
        made.field(everything, points)(points), kept.field(everything, points)(points), rtol=0.0, atol=ROUNDING
    )


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


@pytest.fixture(scope="module")
def watched():
    """(samples, observer of both blocks under a memory budget, where to look)."""
    setup = make_setup()
    samples = make_samples(setup, people=3, images=2, seed=8)
    fitter = LandmarkFitter(setup.model, setup.fit)
    fit = fitter.fit(samples.landmarks)
    observed = Observed(samples.landmarks, fit.camera, samples.bank)

    def observer(memory=UNBOUNDED):
        return FaceObserver(fitter, setup.model.n_identity, observed, setup.features, memory=memory)

    return setup, observer, fit.parameters.flat


def test_stage_zero_is_computed_once(watched):
    setup, observer, x = watched
    joint = observer()(x, 0)
    columns = select_blocks(joint, setup.features, ("ld",))
    only = observer().with_blocks(("ld",), columns)
    assert only(x, 0) is columns
    assert_close(only(x, 1), columns, rtol=0.0, atol=ROUNDING)


def test_features_that_do_not_fit_come_as_a_source(watched, monkeypatch):
    _, observer, x = watched
    joint = observer()(x, 0)
    monkeypatch.setattr(train_memory, "_CHUNK", 4)
    source = observer(MemoryBudget(4.0 * joint.nbytes - 1))(x, 0)
    for _ in range(2):  # as often as it is asked
        assert [len(chunk) for chunk in source()] == [4, 2]
        assert_close(torch.cat([chunk for _, chunk in row_chunks(source)]), joint, rtol=0.0, atol=ROUNDING)
    assert_close(observer(MemoryBudget(4.0 * joint.nbytes))(x, 0), joint, rtol=0.0, atol=ROUNDING)


def test_features_go_on_in_halves_where_memory_runs_out(watched, monkeypatch):
    _, observer, x = watched
    joint = observer()(x, 0)
    asked = []

    def narrow(field, landmarks, *rest):
        asked.append(len(landmarks))
        if len(landmarks) > 2:
            raise MemoryError
        return joint_feature(field, landmarks, *rest)

    monkeypatch.setattr(observe, "joint_feature", narrow)
    small = observer()
    assert_close(small(x, 1), joint, rtol=0.0, atol=ROUNDING)
    assert asked == [6, 3, 1, 1, 1, 1, 1, 1]
    asked.clear()
    small(x, 1)
    assert asked == [1] * 6  # nobody tries again what has just failed


def test_the_fastest_place_with_room_is_taken(tmp_path):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    memory = MemoryBudget(device=80.0, host=60.0)
    assert memory.bank_place(20, gpu, tmp_path) == BankPlace(gpu)
    assert memory.bank_place(30, gpu, tmp_path) == BankPlace(cpu)
    assert memory.bank_place(31, gpu, tmp_path) == BankPlace(cpu, tmp_path)
    assert MemoryBudget(80.0).bank_place(21, cpu, tmp_path) == BankPlace(cpu, tmp_path)


def test_budgets_come_from_what_is_free_or_from_the_user(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(train_memory, "free_bytes", lambda device: 10_000)
    assert memory_budget("auto", cpu) == MemoryBudget(6_000.0)
    assert memory_budget(1.5, cpu) == MemoryBudget(1.5e9, regression=375_000_000)


def test_a_file_of_crops_needs_room_on_the_disk(crops, monkeypatch, tmp_path):
    monkeypatch.setattr(crop_bank.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"must have room for .* GB of crops; 0\.0 GB are free"):
        BankTable(5, HogSpec(patch_px=32), BankPlace(torch.device("cpu"), tmp_path)).put(0, crops)


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
