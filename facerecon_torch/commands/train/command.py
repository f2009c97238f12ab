"""`facerecon train`: a run folder with config.yaml, report.json and cascade.safetensors."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from jaxtyping import Int
from omegaconf import DictConfig
from torch import Tensor

from facerecon_torch.cascade.feature_cache import row_bytes
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.train.cross_validation import (
    Judged,
    cross_validate,
    held_out_folds,
    judge,
    judged_outcome,
    pool,
)
from facerecon_torch.commands.train.evaluate import ALIGNMENTS
from facerecon_torch.commands.train.penalties import choose_penalties
from facerecon_torch.commands.train.samples import Samples, prepare_samples, rows_of_rank
from facerecon_torch.commands.train.sets import load_sets
from facerecon_torch.commands.train.shared import Shared
from facerecon_torch.commands.train.train import Outcome, TrainSetup, train_methods
from facerecon_torch.config.recorded import RECORDED_DEFAULTS, build, write_config
from facerecon_torch.config.train import TrainSpecs
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.splits import Fold, check_disjoint, group_folds, paper_folds
from facerecon_torch.errors import FaceReconError
from facerecon_torch.files import write_json
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.budget import memory_budget
from facerecon_torch.runtime.environment import REPORT_FORMAT, environment
from facerecon_torch.runtime.ranks import SINGLE, Ranks, joined_ranks
from facerecon_torch.runtime.timer import Timer

__all__ = ["train", "train_from_config"]

_log = logging.getLogger(__name__)
_GROUPS = ("model", "data", "landmarks", "fitting", "features", "cascade", "cv", "runtime")


def train_from_config(config: DictConfig) -> int:
    """The exit status of a training run that writes its run folder.

    Under torchrun every process of the run calls it, and the first one writes. The recorded config.yaml holds the
    settled specs: it is the run that happens.
    """
    asked = TrainSpecs(**{name: build(config[name], name) for name in _GROUPS})
    device = asked.runtime.apply()
    specs = asked.settled(device)
    running = HydraConfig.get() if HydraConfig.initialized() else None
    with joined_ranks(device) as ranks, _others_end_too(ranks):
        folder = Path(ranks.share(str(config.output if running is None else running.runtime.output_dir)))
        if ranks.is_first:
            write_config(folder / "config.yaml", specs, "train", head={"defaults": RECORDED_DEFAULTS})
            if specs.cv != asked.cv:
                _log.info("this data has no test people of its own: cv.protocol=%s", specs.cv.protocol)
        half = specs.runtime.half
        report = train(
            specs, save=lambda model: model.save_pretrained(folder / "cascade.safetensors", half=half), folder=folder,
            ranks=ranks,
        )  # fmt: skip
        if ranks.is_first:
            overrides = [] if running is None else list(running.overrides.task)
            write_json(folder / "report.json", {**report, "overrides": overrides})
            _log.info("%s", _table(report["test"]))
            _log.info("run folder: %s", folder)
    return 0


@contextmanager
def _others_end_too(ranks: Ranks) -> Iterator[None]:
    """A block in which the loss of another process is a FaceReconError; the lost process logs the reason."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "Connection closed by peer" in str(error)
        if ranks.world == 1 or not lost:
            raise
        raise FaceReconError(f"process {ranks.rank} stops: another process of this run has ended") from error


def train(
    specs: TrainSpecs, *, save: Callable[[FaceReconstructor], None], folder: Path | None = None, ranks: Ranks = SINGLE
) -> dict[str, Any]:
    """The report of a trained and measured cascade.

    Args:
        specs: of the run.
        save: is called on the first process with the reconstructor of each fold, as soon as it is trained.
        folder: where crops lie during the run if memory has no room for them; None: the system's temporary folder.
        ranks: the processes that share the run.

    Returns:
        Counts, stages, errors, comparisons and the environment, as plain values that go into report.json.

    Raises:
        ValueError, FaceReconError: input that cannot be used.
    """
    device = specs.runtime.apply()
    specs = specs.settled(device)
    timer = Timer(device, memory=True)
    with timer.timed("model"):
        model = load_face_model(specs.model).to(device, specs.runtime.torch_dtype)
    with timer.timed("data"):
        names = ("train", "test", "shifted") if specs.cv.protocol == "holdout" else ("train", "shifted")
        sets = load_sets(specs.data, specs.landmarks, specs.runtime, model, names=names, ranks=ranks)
    shared = Shared(ranks.share(memory_budget(specs.runtime.memory, device)), ranks)
    with timer.timed("prepare"):
        ready = _prepare(specs, sets, model, shared, folder or Path(tempfile.gettempdir()))
    setup = TrainSetup(
        model,
        specs.fitting.fit,
        specs.fitting.crop,
        specs.features,
        replace(specs.cascade, ridge=replace(specs.cascade.ridge, memory=shared.memory.regression)),
        specs.cascade.start,
        specs.fitting.fit,
    )
    report: dict[str, Any] = {"format": REPORT_FORMAT}
    report |= _Run(specs, setup, ready, timer, shared).folds(save)
    return report | {"processes": ranks.world} | environment(device, specs.runtime.seed, timer)


def _prepare(
    specs: TrainSpecs, sets: Mapping[str, FaceSet], model: FaceModel, shared: Shared, folder: Path
) -> dict[str, Samples]:
    """The samples of all sets; their crops lie in the fastest place with room for all of them."""
    ranks, fitting, hog = shared.ranks, specs.fitting, specs.features.hog
    own = sum(len(rows_of_rank(faces.subjects, ranks)) for faces in sets.values())
    size = own * row_bytes(fitting.crop.size, hog)
    place = shared.memory.bank_place(size, model.device, folder)
    if ranks.is_first:
        _log.info("crops of %d images: %.2f GB %s", own, size / 1e9, place)
    return {
        name: prepare_samples(
            faces,
            model,
            fit=fitting.fit,
            crop=fitting.crop,
            hog=hog,
            workers=specs.runtime.workers,
            progress=specs.runtime.progress and ranks.is_first,
            place=place,
            ranks=ranks,
        )
        for name, faces in sets.items()
    }


class _Run:
    """The folds of one run, trained and measured one after the other and pooled in one report."""

    def __init__(
        self, specs: TrainSpecs, setup: TrainSetup, ready: dict[str, Samples], timer: Timer, shared: Shared
    ) -> None:
        self.specs, self.setup, self.ready, self.timer, self.shared = specs, setup, ready, timer, shared
        self.ranks = shared.ranks
        self.generator = torch.Generator().manual_seed(specs.runtime.seed)

    def folds(self, save: Callable[[FaceReconstructor], None]) -> dict[str, Any]:
        """The report: errors pooled over the folds, everything else per fold."""
        others = {k: v for k, v in self.ready.items() if k == "shifted"}
        judgements: list[dict[str, Judged]] = []
        entries: list[dict[str, Any]] = []
        splits, tuned = self._splits(), self.setup
        for number, train_side, test_side in splits:
            tests = {"test": test_side} | others
            tuned = self._with_penalties(train_side)
            with self.timer.timed("train"):
                outcome = train_methods(tuned, train_side, tests, shared=self.shared)
            judgements.append(judged_outcome(outcome, tests, self.ranks))
            counts = {k: self._counts(side) for k, side in {"train": train_side, **tests}.items()}
            entries.append(_fold_entry(number, counts, outcome))
            if self.ranks.is_first:
                outcome.reconstructor.training_facts = _provenance(self.specs, entries[-1])
                save(outcome.reconstructor)
        report = self._pooled(judgements, entries)
        if self.specs.cv.nested:
            with self.timer.timed("nested"):
                people = splits[-1][1]
                nested = cross_validate(tuned, people, self.specs.cv.nested, self.generator, self.shared)
            report["nested"] = judge(nested, self.generator) | {"folds": self.specs.cv.nested}
        return report

    def _pooled(self, judgements: list[dict[str, Judged]], entries: list[dict[str, Any]]) -> dict[str, Any]:
        with self.timer.timed("judge"):
            judged = {k: judge(pool([j[k] for j in judgements]), self.generator) for k in judgements[0]}
        report = {k: entries[-1][k] for k in ("counts", "stages", "penalties")}
        report |= {"folds": entries} if len(entries) > 1 else {}
        report |= {k: v["methods"] for k, v in judged.items()}
        report["comparisons"] = {k: v["comparisons"] for k, v in judged.items()}
        if by_kind := {k: v["by_kind"] for k, v in judged.items() if "by_kind" in v}:
            report["by_kind"] = by_kind
        return report

    def _splits(self) -> list[tuple[int | None, Samples, Samples]]:
        """Number, training samples and test samples of every fold. Raises ValueError if a subject is in both, on any
        process."""
        people, cv, held_out = self.ready["train"], self.specs.cv, self.ready.get("test")
        splits: list[tuple[int | None, Samples, Samples]]
        if cv.splits_training:
            folds = held_out_folds(people, self._draw, self.ranks)
            tests = {k: people.at(folds[k].test) if held_out is None else held_out for k in cv.chosen}
            splits = [(k, people.at(folds[k].train), test) for k, test in tests.items()]
        else:
            splits = [(None, people, self.ready["test"])]
        for _, train_side, test_side in splits:
            check_disjoint(self._subjects(train_side), self._subjects(test_side))
        return splits

    def _draw(self, subjects: Int[Tensor, "people"]) -> list[Fold]:
        if self.specs.cv.protocol == "paper_5x5":
            return paper_folds(subjects, self.generator)
        return group_folds(subjects, self.specs.cv.folds, self.generator)

    def _with_penalties(self, people: Samples) -> TrainSetup:
        """The setup with the penalties of Eq. 7 chosen on the training people, if asked for."""
        if not self.specs.fitting.select_penalties:
            return self.setup
        with self.timer.timed("fit_penalties"):
            chosen = choose_penalties(self.setup.model, people, self.setup.fit, self.ranks)
        if self.ranks.is_first:
            _log.info("landmark fit: penalties %g and %g", chosen.identity_penalty, chosen.expression_penalty)
        return replace(self.setup, fit=chosen)

    def _counts(self, samples: Samples) -> dict[str, int]:
        subjects = self._subjects(samples)
        return {"images": len(subjects), "subjects": len(torch.unique(subjects))}

    def _subjects(self, samples: Samples) -> Int[Tensor, "all"]:
        """The subjects of the samples of all processes."""
        return self.ranks.gather(samples.subjects.to(samples.landmarks.device))


def _fold_entry(number: int | None, counts: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    fit = outcome.reconstructor.spec.fit
    mae = {align: float(outcome.errors["test"]["cascade"].mae[align, "M", "whole"].mean()) for align in ALIGNMENTS}
    return {
        "fold": number,
        "counts": counts,
        "stages": outcome.stages,
        "penalties": {"identity": fit.identity_penalty, "expression": fit.expression_penalty},
        "test_mae_mm": mae,
    }


def _provenance(specs: TrainSpecs, entry: dict[str, Any]) -> dict[str, Any]:
    """The facts of its training that a cascade file holds."""
    return {**{k: entry[k] for k in ("fold", "counts", "test_mae_mm")}, "seed": specs.runtime.seed} | {
        "protocol": specs.cv.protocol,
        "landmarks": specs.landmarks.source,
    }


def _table(test: dict[str, Any]) -> str:
    """A table of the test MAE in mm vs M on the whole face, one line per method."""
    lines = [f"{'test MAE, mm vs M':<20}{'none':>8}{'transl.':>9}{'simil.':>8}{'size %':>8}"]
    for name, errors in test.items():
        none, translation, similarity = (errors["mae_mm"][a]["M"]["whole"] for a in ALIGNMENTS)
        lines.append(f"{name:<20}{none:8.3f}{translation:9.3f}{similarity:8.3f}{errors['size_error_percent']:8.2f}")
    return "\n".join(lines)
