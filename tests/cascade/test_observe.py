from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch import files
from facerecon_torch.cascade import feature_cache, observe
from facerecon_torch.cascade.feature_cache import FeatureCache, encode_crops, new_table, row_bytes, write_crops
from facerecon_torch.cascade.observe import FaceObserver, select_blocks
from facerecon_torch.features.hog import hog
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec, joint_feature
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.regression.moments import row_chunks
from facerecon_torch.runtime import memory as train_memory
from facerecon_torch.runtime.memory import UNBOUNDED, CacheLocation, MemoryBudget, memory_budget
from tests.tiny_world import make_samples, make_setup

ROUNDING = 1e-5  # of features below 1, sums of some 100 products in float32, when another number of faces goes together


@pytest.fixture(scope="module")
def crops():
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.avg_pool2d(torch.rand(5, 3, 200, 200, generator=generator), 3, 1, 1)[..., :96, :96]


def cached(table, spec) -> FeatureCache:
    return FeatureCache(landmarks=torch.zeros(len(table), 66, 2), table=table, rows=torch.arange(len(table)), hog=spec)


def describe(cache: FeatureCache, points: torch.Tensor) -> torch.Tensor:
    """HOG at the points, read part by part."""
    parts = (slice(k, k + 2) for k in range(0, len(cache), 2))
    read = cache.read(parts, points.device)
    return torch.cat([cache.field(table, points)(points[part]) for part, table in read])


def points_for(n: int) -> torch.Tensor:
    return 20 + 56 * torch.rand(n, 7, 2, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("evaluation", ["dense", "patch", "patch_halo"])
def test_a_cache_describes_as_the_features_do(crops, evaluation, in_file, tmp_path):
    spec = HogSpec(patch_px=32, evaluation=evaluation)
    eight_bit = (crops * 255).round() / 255
    place = CacheLocation(torch.device("cpu"), tmp_path if in_file else None)
    table = new_table(5, 96, spec, place, keep=torch.float32)
    write_crops(table[:2], eight_bit[:2], spec)
    write_crops(table[2:], eight_bit[2:], spec)
    cache = cached(table, spec)
    assert table.nbytes == 5 * row_bytes(96, spec, torch.float32)
    assert not list(tmp_path.iterdir())  # nothing is left behind, whatever happens to the run
    points = points_for(5)
    expected = hog(eight_bit, points, spec)
    assert_close(describe(cache, points), expected, rtol=0.0, atol=ROUNDING)
    order = torch.tensor([4, 0, 3])
    assert_close(describe(cache[order], points[order]), expected[order], rtol=0.0, atol=ROUNDING)
    assert_close(
        describe(cache[order][torch.tensor([1, 2])], points[order[1:]]), expected[order[1:]], rtol=0.0, atol=ROUNDING
    )


def test_maps_too_large_to_keep_are_made_again(crops, monkeypatch):
    spec = HogSpec(patch_px=32)
    eight_bit = (crops * 255).round() / 255
    points = points_for(5)
    maps = describe(cached(encode_crops(eight_bit, spec, torch.float32), spec), points)
    monkeypatch.setattr(feature_cache, "LARGEST_MAP", 10)
    table = encode_crops(eight_bit, spec, torch.float32)
    assert table.dtype == torch.uint8
    assert_close(describe(cached(table, spec), points), maps, rtol=0.0, atol=ROUNDING)


def test_half_precision_maps_are_close(crops):
    spec = HogSpec(patch_px=32)
    points = points_for(5)
    half, full = (describe(cached(encode_crops(crops, spec, keep), spec), points) for keep in (torch.half, torch.float))
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
    fitter = LandmarkFitter(setup.model, setup.spec.fit)
    fit = fitter.fit(samples.landmarks)
    n = setup.model.n_identity

    def observer(memory=UNBOUNDED, **changed):
        spec = changed.pop("spec", setup.spec.features)
        return FaceObserver(fitter, samples, fit.camera, spec, n_identity=n, memory=memory, **changed)

    return setup, observer, fit.parameters.flat


def test_stage_zero_is_computed_once(watched):
    setup, observer, x = watched
    joint = observer()(x, 0)
    columns = select_blocks(joint, setup.spec.features, ("ld",))
    only = observer(spec=replace(setup.spec.features, blocks=("ld",)), first=columns)
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
    assert memory.cache_location(20, gpu, tmp_path) == CacheLocation(gpu)
    assert memory.cache_location(30, gpu, tmp_path) == CacheLocation(cpu)
    assert memory.cache_location(31, gpu, tmp_path) == CacheLocation(cpu, tmp_path)
    assert MemoryBudget(80.0).cache_location(21, cpu, tmp_path) == CacheLocation(cpu, tmp_path)


def test_budgets_come_from_what_is_free_or_from_the_user(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(train_memory, "free_bytes", lambda device: 10_000)
    assert memory_budget("auto", cpu) == MemoryBudget(6_000.0)
    assert memory_budget(1.5, cpu) == MemoryBudget(1.5e9, regression=375_000_000)


def test_a_file_of_crops_needs_room_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"needs about .* GB more; 0\.0 GB are free"):
        new_table(5, 96, HogSpec(patch_px=32), CacheLocation(torch.device("cpu"), tmp_path))
    assert not list(tmp_path.iterdir())


def test_displacements_vanish_where_landmarks_are_met():
    setup = make_setup()
    samples = make_samples(setup, people=2, images=2, seed=8, noise=0.0)
    fitter = LandmarkFitter(setup.model, setup.spec.fit)
    camera = fitter.fit(samples.landmarks).camera
    spec = replace(setup.spec.features, blocks=("ld",))
    observer = FaceObserver(fitter, samples, camera, spec, n_identity=setup.model.n_identity)
    truth = samples.parameters.flat
    exact = float(observer(truth, 0).abs().mean())
    moved = truth.clone()
    moved[:, 1] += 3 * setup.model.identity_variance[1].sqrt()
    assert exact < 0.02  # mm; the contour may choose other vertices
    assert float(observer(moved, 0).abs().mean()) > 10 * exact
