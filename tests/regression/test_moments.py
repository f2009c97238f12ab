"""Row chunks are joined and cut, never lost; second moments are exact, centred, and keep their digits in float32."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression import compute_moments, compute_sample_gram, fit_stage, moments, select_rows
from facerecon_torch.regression.moments import centre_, combine_blocks, row_chunks
from facerecon_torch.regression.stage import RidgeSpec
from tests.regression.test_stage import mean_distance, problem


@pytest.fixture
def small_tiles(monkeypatch):
    for name, size in {"TILE_ROWS": 7, "TILE_COLUMNS": 5, "MOMENT_COLUMNS": 4, "MOMENT_ROWS": 3}.items():
        monkeypatch.setattr(moments, name, size)
    monkeypatch.setattr(moments, "chunk_rows", lambda *_: 9)


def source_of(x, sizes):
    return lambda: iter(x.split(sizes))


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [3, 7], [0, 9, 1]], ids=str)
@pytest.mark.parametrize("rows", [1, 4, 10, 100])
def test_chunks_of_a_source_are_the_rows_in_order(sizes, rows, rng):
    x = torch.randn(10, 3, generator=rng)
    chunks = list(row_chunks(source_of(x, sizes), rows))
    assert [part.start for part, _ in chunks] == list(range(0, 10, min(rows, 10)))
    assert all(len(chunk) == part.stop - part.start <= rows for part, chunk in chunks)
    assert_close(torch.cat([chunk for _, chunk in chunks]), x, rtol=0, atol=0)


def test_chunks_of_a_tensor_are_views(rng):
    x = torch.randn(10, 3, generator=rng)
    for part, chunk in row_chunks(x, 4):
        assert chunk.data_ptr() == x[part.start].data_ptr()


def test_agreeing_on_rows_takes_one_chunk_of_a_source(rng):
    x = torch.randn(10, 3, generator=rng)
    taken = []

    def source():
        for part in x.split(2):
            taken.append(part)
            yield part

    rows = moments.Rows.agree(source, 10, bias=True)
    assert_close(rows.provisional_mean, x[:2].mean(0))
    assert len(taken) == 1


def test_selected_rows(rng):
    x = torch.randn(10, 3, generator=rng)
    rows = torch.tensor([7, 2, 2, 9])
    source = select_rows(x, rows, 3)
    for _ in range(2):
        assert_close(torch.cat(list(source())), x[rows], rtol=0, atol=0)


def test_bad_sources_are_refused():
    with pytest.raises(ValueError, match="must have 3 columns; got 4"):
        list(row_chunks(lambda: [torch.zeros(2, 3), torch.zeros(2, 4)]))
    with pytest.raises(ValueError, match="at least one row"):
        compute_moments(list, torch.zeros(0, 1))
    for chunk in (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, 4)):
        with pytest.raises(ValueError, match="floating point matrix"):
            list(row_chunks(lambda c=chunk: [c]))
    with pytest.raises(TypeError, match="must be tensors; got list"):
        list(row_chunks(lambda: [[1.0]]))


@pytest.mark.parametrize("bias", [False, True], ids=["raw", "shifted"])
@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "source"])
def test_sample_gram_is_the_product_of_each_block(streamed, bias, small_tiles, rng, device):
    x = torch.randn(23, 31, generator=rng, dtype=torch.float64).to(device) + 3.0
    gram = compute_sample_gram(source_of(x, 4) if streamed else x, 23, block_sizes=(12, 19), bias=bias)
    assert_close(gram.blocks, gram.blocks.mT, rtol=0, atol=0)
    if not bias:
        expected = torch.stack([part @ part.mT for part in x.split((12, 19), dim=1)])
        assert_close(gram.blocks, expected, rtol=1e-12, atol=1e-12)
    centred = torch.stack([part @ part.mT for part in (x - x.mean(0)).split((12, 19), dim=1)])
    assert_close(centre_(gram.blocks.clone()), centred, rtol=1e-11, atol=1e-11)


def test_selecting_samples_equals_computing_on_them(rng):
    x = torch.randn(20, 31, generator=rng, dtype=torch.float64) + 3.0
    rows = torch.randperm(20, generator=rng)[:13]
    selected, part = compute_sample_gram(x, 20).select(rows), compute_sample_gram(x[rows], 13)
    assert_close(centre_(selected.blocks), centre_(part.blocks), rtol=1e-11, atol=1e-11)


def test_blocks_combine_as_scaled_features(rng):
    x = torch.randn(9, 11, generator=rng, dtype=torch.float64)
    scales = torch.tensor([0.3, 2.0], dtype=torch.float64)
    gram = compute_sample_gram(x, 9, block_sizes=(4, 7), bias=False)
    scaled = torch.cat([x[:, :4] * 0.3, x[:, 4:] * 2.0], dim=1)
    assert_close(combine_blocks(gram.blocks, scales), scaled @ scaled.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "source"])
@pytest.mark.parametrize("bias", [False, True], ids=["through origin", "bias"])
def test_moments_are_those_about_the_mean(bias, streamed, small_tiles, rng, device):
    x = torch.randn(50, 16, generator=rng, dtype=torch.float64).to(device) + 3.0
    y = torch.randn(50, 2, generator=rng, dtype=torch.float64).to(device) - 1.0
    found = compute_moments(source_of(x, 8) if streamed else x, y, bias=bias)
    mean, target_mean = (x.mean(0), y.mean(0)) if bias else (torch.zeros_like(x[0]), torch.zeros_like(y[0]))
    assert_close(found.feature_mean, mean, rtol=1e-12, atol=1e-12)
    assert_close(found.target_mean, target_mean, rtol=1e-12, atol=1e-12)
    assert_close(found.gram, (x - mean).mT @ (x - mean), rtol=1e-11, atol=1e-11)
    assert_close(found.gram, found.gram.mT, rtol=0, atol=0)
    assert_close(found.cross, (x - mean).mT @ (y - target_mean), rtol=1e-11, atol=1e-11)
    some = found.columns(slice(3, 9))
    assert_close(some.gram, (x - mean)[:, 3:9].mT @ (x - mean)[:, 3:9], rtol=1e-11, atol=1e-11)
    assert_close((some.cross, some.feature_mean), (found.cross[3:9], mean[3:9]), rtol=1e-12, atol=1e-12)


def test_float32_chunks_survive_a_mean_that_dwarfs_the_spread(rng):
    x = torch.randn(300, 3000, generator=rng) + 1000.0
    exact = x.double() - x.double().mean(0)
    expected = exact @ exact.mT
    gram = centre_(compute_sample_gram(x, 300).blocks)[0]
    assert float((gram - expected).norm() / expected.norm()) < 1e-6
    tall = x[:, :40].contiguous()
    exact = tall.double() - tall.double().mean(0)
    gram = compute_moments(tall, torch.zeros(300, 1)).gram
    assert float((gram - exact.mT @ exact).norm() / (exact.mT @ exact).norm()) < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.half, 1e-5)])
def test_only_float64_features_are_multiplied_in_float64(dtype, tolerance, rng):
    x = torch.randn(30, 500, generator=rng).to(dtype)
    gram = compute_sample_gram(x, 30, bias=False)
    assert_close(gram.blocks[0], x.double() @ x.double().mT, rtol=tolerance, atol=100 * tolerance)


def test_centring_removes_every_row_mean(rng):
    blocks = torch.randn(2, 5, 5, generator=rng, dtype=torch.float64)
    blocks = centre_(blocks @ blocks.mT)
    assert_close(blocks.sum(1), torch.zeros(2, 5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "through origin"])
def test_moments_of_all_less_those_left_out(bias, rng):
    x, y, groups = problem(8, rng)
    x += 1000.0
    fold = groups % 3 == 0
    left = compute_moments(x, y, bias=bias).without(compute_moments(x[fold], y[fold], bias=bias))
    direct = compute_moments(x[~fold], y[~fold], bias=bias)
    scale = float(x.square().sum())
    assert (left.count, left.centred, left.dtype) == (direct.count, direct.centred, direct.dtype)
    assert_close(left.gram, direct.gram, rtol=0, atol=1e-15 * scale)
    assert_close(left.cross, direct.cross, rtol=1e-10, atol=1e-9)
    assert_close(left.feature_mean, direct.feature_mean, rtol=1e-14, atol=0)
    assert_close(left.target_mean, direct.target_mean, rtol=1e-13, atol=1e-14)


def test_folds_from_shared_moments(rng):
    x, y, groups = problem(8, rng)
    spec = RidgeSpec(form="primal")
    everyone = compute_moments(x, y)
    for fold in range(2):
        stay, go = (torch.nonzero(keep)[:, 0] for keep in (groups % 2 != fold, groups % 2 == fold))
        left = everyone.without(compute_moments(select_rows(x, go), y[go]))
        shared = fit_stage(select_rows(x, stay), y[stay], groups[stay], mean_distance(y[stay]), spec, shared=left)
        alone = fit_stage(x[stay], y[stay], groups[stay], mean_distance(y[stay]), spec)
        assert shared.relative_penalty == alone.relative_penalty
        assert_close(shared.out_of_group, alone.out_of_group, rtol=1e-9, atol=1e-9)
        assert_close(shared.stage.ridge.weight, alone.stage.ridge.weight, rtol=1e-9, atol=1e-9)
    assert_close(everyone.gram, compute_moments(x, y).gram, rtol=0, atol=0)  # no fit has changed what it was given


def test_moments_of_other_samples_are_refused(rng):
    x, y, groups = problem(8, rng)
    found = compute_moments(x, y)
    with pytest.raises(ValueError, match=r"moments must be of .* \(30, 8, 3, True\); got \(36, 8, 3, True\)"):
        fit_stage(x[:30], y[:30], groups[:30], mean_distance(y[:30]), RidgeSpec(), shared=found)
    with pytest.raises(ValueError, match="got form='dual'"):
        fit_stage(x, y, groups, mean_distance(y), RidgeSpec(form="dual"), shared=found)
    with pytest.raises(ValueError, match=r"moments to take off 36 rows must be of fewer rows.*got 36 rows"):
        found.without(found)
    with pytest.raises(ValueError, match="alike in bias"):
        found.without(compute_moments(x[:9], y[:9], bias=False))


def test_bad_requests_are_refused():
    x = torch.zeros(6, 4)
    with pytest.raises(ValueError, match=r"add up to 4 features; got \(1, 2\)"):
        compute_sample_gram(x, 6, block_sizes=(1, 2))
    with pytest.raises(ValueError, match=r"yield 5 rows.*got 6"):
        compute_sample_gram(x, 5)
    with pytest.raises(ValueError, match=r"yield 5 rows.*got 6"):
        compute_sample_gram(lambda: [x], 5)
    with pytest.raises(ValueError, match=r"yield 7 rows.*got 6"):
        compute_moments(x, torch.zeros(7, 1))


def test_a_source_that_cannot_be_read_twice_is_refused():
    once = iter([torch.randn(6, 4)])
    with pytest.raises(ValueError, match=r"on every pass; got 0"):
        compute_sample_gram(lambda: once, 6)
