import math

import pytest
import torch

from facerecon_torch.metrics.bootstrap import paired_bootstrap, subject_interval


def _people(rng, subjects=80, images=5, spread=1.0, noise=0.2):
    rows = torch.arange(subjects).repeat_interleave(images)
    own = spread * torch.randn(subjects, generator=rng, dtype=torch.float64)
    return own[rows] + noise * torch.randn(len(rows), generator=rng, dtype=torch.float64), rows


def test_width_follows_the_number_of_subjects_not_of_images(rng):
    values, subjects = _people(rng)
    interval = subject_interval(values, subjects, rng)
    means = values.reshape(80, 5).mean(1)
    half = 1.96 * means.std().item() / math.sqrt(80)
    assert interval.mean == pytest.approx(values.mean().item())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.06)
    again = subject_interval(values.repeat(3), subjects.repeat(3), rng)
    assert again.high - again.low == pytest.approx(2 * half, rel=0.06)


def test_intervals_cover_the_truth_about_as_often_as_they_say(rng):
    covered = 0
    for _ in range(200):
        values, subjects = _people(rng, subjects=40, images=3)
        interval = subject_interval(values, subjects, rng, draws=400, level=0.9)
        covered += not interval.excludes(0.0)
    assert 165 <= covered <= 192  # 180 expected, standard deviation 4.2


def test_pairing_removes_what_both_methods_share(rng):
    values, subjects = _people(rng, spread=5.0)
    better = values - 0.1 + 0.05 * torch.randn(len(values), generator=rng, dtype=torch.float64)
    gap = paired_bootstrap(better, values, subjects, rng)
    assert gap.high < 0
    assert gap.excludes(0.0)
    assert gap.mean == pytest.approx((better.mean() - values.mean()).item())
    assert gap.high - gap.low < 0.05
    swapped = paired_bootstrap(values, better, subjects, rng)
    assert swapped.low > 0


def test_equal_methods_are_not_told_apart(rng):
    values, subjects = _people(rng)
    gap = paired_bootstrap(values, values, subjects, rng)
    assert (gap.mean, gap.low, gap.high) == (0.0, 0.0, 0.0)
    assert not gap.excludes(0.0)


def test_ratio_of_means(rng):
    values, subjects = _people(rng)
    values = values.abs() + 1
    ratio = paired_bootstrap(0.8 * values, values, subjects, rng, statistic="ratio")
    assert ratio.mean == pytest.approx(0.8)
    assert ratio.low == pytest.approx(0.8)
    noisy = paired_bootstrap(0.8 * values + 0.1 * values.flip(0), values, subjects, rng, statistic="ratio")
    assert noisy.low < noisy.mean < noisy.high


def test_unequal_image_counts_weigh_images(rng):
    values = torch.tensor([1.0, 1.0, 1.0, 5.0])
    interval = subject_interval(values, torch.tensor([7, 7, 7, 3]), rng, draws=500)
    assert interval.mean == pytest.approx(2.0)
    assert (interval.low, interval.high) == pytest.approx((1.0, 5.0))


def test_the_generator_decides(rng):
    values, subjects = _people(rng, subjects=10)
    draw = [subject_interval(values, subjects, torch.Generator().manual_seed(s), draws=100) for s in (1, 1, 2)]
    assert draw[0] == draw[1]
    assert draw[0] != draw[2]


def test_chunked_draws_are_the_same_draws(rng, monkeypatch):
    values, subjects = _people(rng, subjects=10)
    whole = subject_interval(values, subjects, torch.Generator().manual_seed(1), draws=100)
    monkeypatch.setattr("facerecon_torch.metrics.bootstrap._CHUNK", 70)
    assert subject_interval(values, subjects, torch.Generator().manual_seed(1), draws=100) == whole


def test_one_subject_tells_nothing_about_others(rng):
    interval = subject_interval(torch.tensor([1.0, 3.0]), torch.tensor([4, 4]), rng)
    assert (interval.mean, interval.low, interval.high) == (2.0, None, None)
    assert not interval.excludes(100.0)


@pytest.mark.parametrize(
    ("values", "subjects", "words"),
    [
        (torch.zeros(0), torch.zeros(0, dtype=torch.long), "positive length"),
        (torch.tensor([1.0, torch.nan]), torch.tensor([0, 1]), "1 are not"),
    ],
)
def test_bad_values_are_refused(values, subjects, words, rng):
    with pytest.raises(ValueError, match=words):
        subject_interval(values, subjects, rng)


def test_bad_settings_are_refused(rng):
    values, subjects = torch.tensor([1.0, 2.0]), torch.tensor([0, 1])
    for keyword in ({"draws": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match=next(iter(keyword))):
            subject_interval(values, subjects, rng, **keyword)
    with pytest.raises(ValueError, match="'median'"):
        paired_bootstrap(values, values, subjects, rng, statistic="median")
