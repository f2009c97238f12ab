"""Splits by subject: all photographs of a person are in one part."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from facerecon_torch.checks import require_count

__all__ = ["CvSpec", "PAPER_GROUPS", "PROTOCOLS", "Fold", "check_disjoint", "fold_of", "group_folds", "paper_folds"]

PROTOCOLS = ("holdout", "group_kfold", "paper_5x5")
PAPER_GROUPS = 5  # Section 4.1 of the paper: 5 experiments ...
PAPER_TEST_SUBJECTS = 5  # ... each with 5 subjects for testing and all others for training


@dataclass(frozen=True)
class Fold:
    """Rows of one set: which train and which test."""

    train: Int[Tensor, "train_rows"]
    test: Int[Tensor, "test_rows"]


def fold_of(subjects: Int[Tensor, "samples"], held_out: Int[Tensor, "held"]) -> Fold:
    """The rows of the subjects `held_out` test, all others train."""
    out = torch.isin(subjects, held_out)
    return Fold(torch.nonzero(~out).flatten(), torch.nonzero(out).flatten())


def group_folds(subjects: Int[Tensor, "samples"], folds: int, generator: torch.Generator) -> list[Fold]:
    """A partition of the subjects into `folds` test groups of nearly equal size, drawn from `generator`.

    Raises ValueError where there are fewer subjects than folds, or fewer than two folds.
    """
    people = torch.unique(subjects)
    if not 2 <= folds <= len(people):
        raise ValueError(f"cv.folds must lie between 2 and the number of subjects ({len(people)}); got {folds}")
    order = people[torch.randperm(len(people), generator=generator)]
    return [fold_of(subjects, order[k::folds]) for k in range(folds)]


def paper_folds(subjects: Int[Tensor, "samples"], generator: torch.Generator) -> list[Fold]:
    """Five experiments with 5 test subjects each, disjoint, training on all the others. [paper, Section 4.1]

    Not a partition: with more than 25 subjects most are never tested. Raises ValueError with fewer than 26 subjects.
    """
    people = torch.unique(subjects)
    tested = PAPER_GROUPS * PAPER_TEST_SUBJECTS
    if len(people) <= tested:
        raise ValueError(f"cv.protocol=paper_5x5 needs more than {tested} subjects; this set has {len(people)}")
    order = people[torch.randperm(len(people), generator=generator)][:tested]
    return [fold_of(subjects, group) for group in order.reshape(PAPER_GROUPS, PAPER_TEST_SUBJECTS)]


def check_disjoint(train: Int[Tensor, "train_rows"], test: Int[Tensor, "test_rows"]) -> None:
    """Raise ValueError naming the subjects that stand on both sides, if any."""
    both = sorted(set(train.tolist()) & set(test.tolist()))
    if both:
        shown: Sequence[int] = both[:10]
        raise ValueError(f"no subject may stand on both sides; {len(both)} do, among them {list(shown)}")


@dataclass(frozen=True, kw_only=True)
class CvSpec:
    """Which subjects train and which test."""

    protocol: str = "holdout"  # holdout: the data set's own test people | group_kfold | paper_5x5
    fold: int | str = "all"  # 0..n-1, or all; under holdout, a fold is left out of training and not tested on
    folds: int = 5  # of group_kfold and holdout
    nested: int = 5  # grouped folds of the whole cascade over the training people, 0: none

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"cv.protocol must be one of {', '.join(PROTOCOLS)}; got {self.protocol!r}")
        if self.fold != "all" and (not isinstance(self.fold, int) or isinstance(self.fold, bool)):
            raise ValueError(f"cv.fold must be a number from 0 or all; got {self.fold!r}")
        require_count("cv.folds", self.folds, 2)
        require_count("cv.nested", self.nested, 0)
        if self.nested == 1:
            raise ValueError("cv.nested must be 0 (none) or at least 2; got 1")
        if isinstance(self.fold, int) and not 0 <= self.fold < self.available:
            raise ValueError(f"cv.fold must lie in 0..{self.available - 1} for {self.protocol}; got {self.fold}")

    @property
    def available(self) -> int:
        """The number of folds of the protocol."""
        return PAPER_GROUPS if self.protocol == "paper_5x5" else self.folds

    @property
    def splits_training(self) -> bool:
        """Whether the training people are split into folds at all."""
        return self.protocol != "holdout" or self.fold != "all"

    def draw(self, subjects: Int[Tensor, "samples"], generator: torch.Generator) -> list[Fold]:
        """The folds of the training people. Raises ValueError where they are too few for the protocol."""
        if self.protocol == "paper_5x5":
            return paper_folds(subjects, generator)
        return group_folds(subjects, self.folds, generator)

    @property
    def chosen(self) -> list[int]:
        """The folds to run."""
        return list(range(self.available)) if isinstance(self.fold, str) else [self.fold]
