"""Errors of whole cascades on people that they were not trained on, by grouped folds, and the judgement on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from facerecon_torch.commands.train.evaluate import MethodErrors, by_kind, compare, summary
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.commands.train.shared import Shared
from facerecon_torch.commands.train.train import Outcome, TrainSetup, train_methods
from facerecon_torch.data.splits import Fold, fold_of, group_folds
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["Judged", "cross_validate", "held_out_folds", "judge", "judged_outcome", "pool"]


@dataclass(frozen=True)
class Judged:
    """Errors of every method on one set, and whose face each image shows."""

    errors: dict[str, MethodErrors]
    subjects: Int[Tensor, "samples"]
    kinds: tuple[str, ...] | None = None


def judged_outcome(outcome: Outcome, tests: Mapping[str, Samples], ranks: Ranks) -> dict[str, Judged]:
    """The errors on every set, of the samples of all processes."""
    found: dict[str, Judged] = {}
    for name, samples in tests.items():
        everyone, kinds = samples.everyone(ranks), samples.truth.kinds
        words = None if kinds is None else everyone.words(kinds)
        found[name] = Judged(outcome.errors[name], everyone.gather(samples.subjects), words)
    return found


def held_out_folds(
    people: Samples, draw: Callable[[Int[Tensor, "people"]], list[Fold]], ranks: Ranks = SINGLE
) -> list[Fold]:
    """Folds of this process's samples; `draw` makes folds of a list of subjects, the same list on all processes."""
    subjects = torch.unique(ranks.gather(people.subjects.to(people.landmarks.device))).to(people.subjects.device)
    return [fold_of(people.subjects, subjects[fold.test]) for fold in draw(subjects)]


def cross_validate(
    setup: TrainSetup, people: Samples, folds: int, generator: torch.Generator, shared: Shared | None = None
) -> Judged:
    """Train all methods on all folds but one, measure on that one, for every fold; pooled over all people.

    The penalties of the landmark fit are those of `setup`, chosen once on all of `people`; `shared` as in
    `train_methods`.
    """
    shared = Shared() if shared is None else shared
    judged: list[Judged] = []

    def draw(subjects: Int[Tensor, "people"]) -> list[Fold]:
        return group_folds(subjects, min(folds, len(subjects)), generator)

    for fold in held_out_folds(people, draw, shared.ranks):
        held_out = {"held_out": people.at(fold.test)}
        outcome = train_methods(setup, people.at(fold.train), held_out, shared=shared)
        judged.append(judged_outcome(outcome, held_out, shared.ranks)["held_out"])
    return pool(judged)


def pool(judged: Sequence[Judged]) -> Judged:
    """Several folds as one set."""
    first = judged[0]
    if len(judged) == 1:
        return first
    errors = {
        name: MethodErrors(
            {k: torch.cat([j.errors[name].mae[k] for j in judged]) for k in one.mae},
            {k: torch.cat([j.errors[name].rmse_z[k] for j in judged]) for k in one.rmse_z},
            torch.cat([j.errors[name].size_error for j in judged]),
        )
        for name, one in first.errors.items()
    }
    kinds = None if first.kinds is None else tuple(kind for j in judged for kind in j.kinds or ())
    return Judged(errors, torch.cat([j.subjects for j in judged]), kinds)


def judge(judged: Judged, generator: torch.Generator) -> dict[str, Any]:
    """Summaries of all methods, and the paired bootstrap over subjects of the cascade against each."""
    told = {
        "methods": {name: summary(errors) for name, errors in judged.errors.items()},
        "comparisons": compare(judged.errors, judged.subjects, generator),
    }
    return told if judged.kinds is None else told | {"by_kind": by_kind(judged.errors, judged.kinds)}
