"""A training run, fold by fold: samples, stages, errors, saved cascade."""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.cascade.feature_cache import row_bytes
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.own_files import REPORT_FORMAT
from facerecon_torch.commands.train.first_stage import FirstStageCache, TrainSetup, choose_penalties
from facerecon_torch.commands.train.methods import Outcome, train_methods
from facerecon_torch.commands.train.samples import Samples, prepare_samples, rows_of_rank
from facerecon_torch.commands.train.sets import load_sets
from facerecon_torch.config.train import TrainSpecs
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.splits import CvSpec, Fold, check_disjoint, fold_of, group_folds
from facerecon_torch.evaluation.errors import ALIGNMENTS, SetErrors
from facerecon_torch.fitting.dense_fit import DenseFitter
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.environment import environment
from facerecon_torch.runtime.memory import memory_budget
from facerecon_torch.runtime.ranks import SINGLE, Ranks
from facerecon_torch.runtime.timer import Timer

__all__ = ["Split", "cross_validate", "make_splits", "train"]

_log = logging.getLogger(__name__)


class Split(NamedTuple):
    """One fold: its number (None: the data's own test people), training samples and test samples."""

    fold: int | None
    train: Samples
    test: Samples


def train(
    specs: TrainSpecs,
    *,
    save: Callable[[FaceReconstructor, str], None],
    folder: Path | None = None,
    ranks: Ranks = SINGLE,
) -> dict[str, Any]:
    """The report of a trained and measured cascade.

    Args:
        specs: of the run.
        save: is called on the first process with the reconstructor of each fold and a file name, as soon as it is
            trained.
        folder: where crops lie during the run if memory has no room for them; None: the system's temporary folder.
        ranks: the processes that share the run.

    Returns:
        Counts, stages, errors, comparisons and the environment, as plain values that go into report.json.

    Raises:
        ValueError, FaceReconError: input that cannot be used.
    """
    device = specs.runtime.apply()
    specs, timer = specs.settled(device), Timer(device, memory=True)
    generator = torch.Generator().manual_seed(specs.runtime.seed)
    with timer.timed("model"):
        model = load_face_model(specs.model).to(device, specs.runtime.torch_dtype)
    with timer.timed("data"):
        names = ("train", "test", "shifted") if specs.cv.protocol == "holdout" else ("train", "shifted")
        file = None if specs.model.path is None else Path(specs.model.path)
        sets = load_sets(specs.data, specs.landmarks, specs.runtime, model, model_file=file, names=names, ranks=ranks)
    cache = FirstStageCache(ranks.share(memory_budget(specs.runtime.memory, device)), ranks)
    with timer.timed("prepare"):
        samples = _prepare(specs, sets, model, cache, folder or Path(tempfile.gettempdir()))

    splits = make_splits(specs.cv, samples, generator, ranks)
    setup = _setup(specs, model, cache, sets["train"].convention)
    errors, entries = list[dict[str, SetErrors]](), list[dict[str, Any]]()
    for split in splits:
        tests = {"test": split.test} | {k: v for k, v in samples.items() if k == "shifted"}
        if specs.fitting.select_penalties:
            with timer.timed("fit_penalties"):
                setup = _with_penalties(setup, specs, split.train, ranks)
        with timer.timed("train"):
            outcome = train_methods(setup, split.train, tests, first_stages=cache)
        counts = {k: _counts(part, ranks) for k, part in {"train": split.train, **tests}.items()}
        entries.append(_fold_entry(split.fold, counts, outcome))
        errors.append(outcome.errors)
        if ranks.is_first:
            outcome.reconstructor.training_facts = _training_facts(specs, entries[-1], setup.spec.convention)
            many = len(splits) > 1
            save(outcome.reconstructor, f"cascade_fold{split.fold}.safetensors" if many else "cascade.safetensors")

    with timer.timed("evaluate"):
        report = {"format": REPORT_FORMAT, "version": 1} | _report(errors, entries, generator)
    if specs.cv.nested:
        with timer.timed("nested"):
            nested = cross_validate(setup, splits[-1].train, specs.cv.nested, generator, cache)
        report["nested"] = nested.report(generator) | {"folds": specs.cv.nested}
    return report | {"processes": ranks.world} | environment(device, specs.runtime.seed, timer)


def _prepare(
    specs: TrainSpecs, sets: Mapping[str, FaceSet], model: FaceModel, cache: FirstStageCache, folder: Path
) -> dict[str, Samples]:
    """The samples of all sets; their crops lie in the fastest place with room for all of them."""
    ranks, fitting, hog = cache.ranks, specs.fitting, specs.features.hog
    own = sum(len(rows_of_rank(faces.subjects, ranks)) for faces in sets.values())
    size = own * row_bytes(fitting.crop.size, hog)
    location = cache.memory.cache_location(size, model.device, folder)
    if ranks.is_first:
        _log.info("crops of %d images: %.2f GB %s", own, size / 1e9, location)
    bare = any(faces.parameters is None for faces in sets.values())
    dense = DenseFitter(model) if bare else None  # one for all sets
    prepare = partial(
        prepare_samples, fit=fitting.fit, crop=fitting.crop, hog=hog, location=location, dense=dense,
        workers=specs.runtime.workers, progress=specs.runtime.progress and ranks.is_first, ranks=ranks,
    )  # fmt: skip
    return {name: prepare(faces, model) for name, faces in sets.items()}


def make_splits(
    cv: CvSpec, samples: Mapping[str, Samples], generator: torch.Generator, ranks: Ranks = SINGLE
) -> list[Split]:
    """The folds of a run on the sets `train` and, if the data has one, `test`.

    Raises:
        ValueError: a subject is in both parts of a fold, on any process.
    """
    people, test = samples["train"], samples.get("test")
    if cv.splits_training:
        folds = _folds_of(people, partial(cv.draw, generator=generator), ranks)
        splits = [Split(k, people[folds[k].train], people[folds[k].test] if test is None else test) for k in cv.chosen]
    else:
        splits = [Split(None, people, samples["test"])]
    for split in splits:
        check_disjoint(_subjects(split.train, ranks), _subjects(split.test, ranks))
    return splits


def cross_validate(
    setup: TrainSetup, people: Samples, folds: int, generator: torch.Generator, cache: FirstStageCache | None = None
) -> SetErrors:
    """The errors of all methods on every fold of `people`, trained on the others.

    The penalties of the landmark fit are those of `setup`, chosen once on all of `people`.
    """
    cache = FirstStageCache() if cache is None else cache
    errors: list[SetErrors] = []

    def draw(subjects: Int[Tensor, "people"]) -> list[Fold]:
        return group_folds(subjects, min(folds, len(subjects)), generator)

    for fold in _folds_of(people, draw, cache.ranks):
        outcome = train_methods(setup, people[fold.train], {"held_out": people[fold.test]}, first_stages=cache)
        errors.append(outcome.errors["held_out"])
    return SetErrors.cat(errors)


def _folds_of(people: Samples, draw: Callable[[Int[Tensor, "people"]], list[Fold]], ranks: Ranks) -> list[Fold]:
    """Folds of this process's samples; `draw` makes folds of the subjects of all, the same on all processes."""
    subjects = torch.unique(_subjects(people, ranks)).to(people.subjects.device)
    return [fold_of(people.subjects, subjects[fold.test]) for fold in draw(subjects)]


def _setup(specs: TrainSpecs, model: FaceModel, cache: FirstStageCache, convention: str) -> TrainSetup:
    fitting, ridge = specs.fitting, specs.cascade.ridge
    if ridge.memory is None:
        ridge = replace(ridge, memory=cache.memory.regression)
    cascade = replace(specs.cascade, ridge=ridge)
    spec = ReconstructorSpec(
        fit=fitting.fit,
        crop=fitting.crop,
        features=specs.features,
        start=specs.cascade.start,
        crop_fit=fitting.fit,  # the fit that the crops followed
        convention=convention,
    )
    return TrainSetup(model, spec, cascade, cascade.perturbed(specs.runtime.seed))


def _with_penalties(setup: TrainSetup, specs: TrainSpecs, people: Samples, ranks: Ranks) -> TrainSetup:
    """The setup with penalties and contour weight of Eq. 7 chosen on the training people."""
    chosen = choose_penalties(setup.model, people, specs.fitting.fit, ranks)
    if ranks.is_first:
        _log.info(
            "landmark fit: penalties %g and %g, contour weight %g",
            chosen.identity_penalty,
            chosen.expression_penalty,
            chosen.contour_weight,
        )
    return replace(setup, spec=replace(setup.spec, fit=chosen))


def _subjects(samples: Samples, ranks: Ranks) -> Int[Tensor, "all"]:
    """The subjects of the samples of all processes."""
    return ranks.gather(samples.subjects.to(samples.landmarks.device))


def _counts(samples: Samples, ranks: Ranks) -> dict[str, int]:
    subjects = _subjects(samples, ranks)
    return {"images": len(subjects), "subjects": len(torch.unique(subjects))}


def _fold_entry(fold: int | None, counts: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    fit, cascade = outcome.reconstructor.spec.fit, outcome.errors["test"].methods["cascade"]
    return {
        "fold": fold,
        "counts": counts,
        "stages": outcome.stages,
        "penalties": {
            "identity": fit.identity_penalty,
            "expression": fit.expression_penalty,
            "contour_weight": fit.contour_weight,
        },
        "test_mae_mm": {align: float(cascade.mae[align, "M", "whole"].mean()) for align in ALIGNMENTS},
    }


def _training_facts(specs: TrainSpecs, entry: dict[str, Any], convention: str) -> dict[str, Any]:
    """The facts of its training that a cascade file holds."""
    return {**{k: entry[k] for k in ("fold", "counts", "test_mae_mm")}, "seed": specs.runtime.seed} | {
        "protocol": specs.cv.protocol,
        "landmarks": specs.landmarks.source,
        "convention": convention,
    }


def _report(
    errors: Sequence[Mapping[str, SetErrors]], entries: list[dict[str, Any]], generator: torch.Generator
) -> dict[str, Any]:
    """Errors pooled over the folds; counts, stages and penalties of the last one, and of each if there are several."""
    sets = {k: SetErrors.cat([fold[k] for fold in errors]).report(generator) for k in errors[0]}
    report = {k: entries[-1][k] for k in ("counts", "stages", "penalties")}
    report |= {"folds": entries} if len(entries) > 1 else {}
    report |= {k: entry["methods"] for k, entry in sets.items()}
    report["comparisons"] = {k: entry["comparisons"] for k, entry in sets.items()}
    if by_kind := {k: entry["by_kind"] for k, entry in sets.items() if "by_kind" in entry}:
        report["by_kind"] = by_kind
    return report
