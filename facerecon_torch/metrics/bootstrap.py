"""Confidence intervals by resampling subjects, because the images of one person are not independent."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["Interval", "paired_bootstrap", "subject_interval"]

_CHUNK = 4_000_000  # random indices in memory at once


@dataclass(frozen=True)
class Interval:
    """The statistic on all images, and the percentile interval of its bootstrap distribution."""

    mean: float
    low: float | None
    high: float | None

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval; False where the interval is not known."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


@in_own_precision
def subject_interval(
    values: Float[Tensor, "n"],
    subjects: Int[Tensor, "n"],
    generator: torch.Generator,
    draws: int = 10_000,
    *,
    level: float = 0.95,
) -> Interval:
    """Mean over images, with the interval from resampling subjects with replacement.

    Args:
        values: one value per image.
        subjects: number of each image's subject; with a single one, `low` and `high` are None.
        generator: random numbers of the resamples.
        draws: number of resamples.
        level: coverage of the interval.

    Raises:
        ValueError: no values, unequal lengths, a value that is not finite, or `draws` or `level` outside their range.

    Example:
        >>> subject_interval(errors, subjects, torch.Generator().manual_seed(0)).high
    """
    return _bootstrap(_subject_sums(subjects, values), draws, generator, level)


@in_own_precision
def paired_bootstrap(
    a: Float[Tensor, "n"],
    b: Float[Tensor, "n"],
    subjects: Int[Tensor, "n"],
    generator: torch.Generator,
    draws: int = 10_000,
    *,
    statistic: str = "difference",
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b), or mean(a) / mean(b) for `statistic="ratio"`, of two methods on the same images.

    Every resample takes the same subjects for both. Method a is better (lower) where the interval of the difference
    lies below 0.

    Args:
        a: values of the first method, one per image.
        b: values of the second method.
        subjects, generator, draws, level: as for `subject_interval`.
        statistic: difference or ratio.

    Raises:
        ValueError: another statistic, and as `subject_interval`.

    Example:
        >>> paired_bootstrap(errors, baseline, subjects, torch.Generator().manual_seed(0)).excludes(0)
    """
    if statistic not in ("difference", "ratio"):
        raise ValueError(f"statistic must be difference or ratio; got {statistic!r}")
    if statistic == "difference":
        if a.shape != b.shape:
            raise ValueError(f"a and b must have one value per image; got {tuple(a.shape)} and {tuple(b.shape)}")
        return subject_interval(a.double() - b.double(), subjects, generator, draws, level=level)
    return _bootstrap(_subject_sums(subjects, a, b), draws, generator, level)


def _subject_sums(subjects: Tensor, *columns: Tensor) -> Float[Tensor, "subjects 2"]:
    """The two sums per subject whose ratio is the statistic: (a, b), or (values, number of images)."""
    lengths = {len(column) for column in (subjects, *columns)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"values and subjects must have one equal, positive length; got {sorted(lengths)}")
    values = torch.stack([column.detach().double().cpu() for column in columns], -1)
    if not torch.isfinite(values).all():
        raise ValueError(f"values must be finite; {int((~torch.isfinite(values)).sum())} are not")
    if len(columns) == 1:
        values = torch.cat([values, torch.ones_like(values)], -1)
    _, rows = torch.unique(subjects.cpu(), return_inverse=True)
    return torch.zeros(int(rows.max()) + 1, 2, dtype=torch.float64).index_add_(0, rows, values)


def _bootstrap(sums: Float[Tensor, "subjects 2"], draws: int, generator: torch.Generator, level: float) -> Interval:
    if draws < 1:
        raise ValueError(f"draws must be at least 1; got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    total = sums.sum(0)
    mean = float(total[0] / total[1])
    if len(sums) == 1:
        return Interval(mean, None, None)
    drawn = torch.cat([counts @ sums for counts in _resamples(len(sums), draws, generator)])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = (drawn[:, 0] / drawn[:, 1]).quantile(tails).tolist()
    return Interval(mean, low, high)


def _resamples(subjects: int, draws: int, generator: torch.Generator) -> Iterator[Float[Tensor, "some subjects"]]:
    """The number of times that each subject is in each resample, in chunks of resamples."""
    step = max(1, _CHUNK // subjects)
    for start in range(0, draws, step):
        picks = torch.randint(subjects, (min(step, draws - start), subjects), generator=generator)
        once = torch.ones(picks.shape, dtype=torch.float64)
        yield torch.zeros_like(once).scatter_add_(1, picks, once)
