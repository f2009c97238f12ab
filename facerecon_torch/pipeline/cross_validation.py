"""Errors of whole cascades on people that they were not trained on, by grouped folds, and the judgement on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from facerecon_torch.data.splits import group_folds
from facerecon_torch.pipeline.evaluate import MethodErrors, by_kind, compare, summary
from facerecon_torch.pipeline.samples import Samples
from facerecon_torch.pipeline.train import TrainSetup, train_methods

__all__ = ["Judged", "cross_validate", "judge", "pool"]


@dataclass(frozen=True)
class Judged:
    """Errors of every method on one set, and whose face each image shows."""

    errors: dict[str, MethodErrors]
    subjects: Int[Tensor, "samples"]
    kinds: tuple[str, ...] | None = None


def cross_validate(setup: TrainSetup, people: Samples, folds: int, generator: torch.Generator) -> Judged:
    """Train all methods on all folds but one, measure on that one, for every fold; pooled over all people.

    The penalties of the landmark fit are those of `setup`, chosen once on all of `people`.
    """
    judged: list[Judged] = []
    for fold in group_folds(people.subjects, min(folds, people.n_subjects), generator):
        held_out = people.at(fold.test)
        outcome = train_methods(setup, people.at(fold.train), {"held_out": held_out})
        judged.append(Judged(outcome.errors["held_out"], held_out.subjects, held_out.truth.kinds))
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
