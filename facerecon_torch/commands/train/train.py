"""Trains every method on one set of people and measures it on others."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.cascade.start import mean_face, retraction
from facerecon_torch.commands.train import methods
from facerecon_torch.commands.train.evaluate import MethodErrors, method_errors
from facerecon_torch.commands.train.everyone import Everyone
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.commands.train.shared import Shared, Side, TrainSetup
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression.cascade import Cascade, StageReport, train_cascade
from facerecon_torch.regression.moments import Moments, SampleGram
from facerecon_torch.regression.ridge import choose_form
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import FaceParameters

__all__ = ["Outcome", "TrainSetup", "train_methods"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A trained cascade, what its stages did, and the errors of every method on every set, of the samples of all
    processes in the set's own order."""

    reconstructor: FaceReconstructor
    stages: list[dict[str, Any]]
    errors: dict[str, dict[str, MethodErrors]]  # [set][method]


@in_own_precision
def train_methods(
    setup: TrainSetup,
    train: Samples,
    tests: Mapping[str, Samples],
    *,
    names: tuple[str, ...] = methods.METHODS,
    shared: Shared | None = None,
) -> Outcome:
    """Train each of the methods `names` on `train` and measure it on every set of `tests`.

    Every cascade chooses its own penalties on the training people. The stages of `cascade` are reported with the test
    error of the first set of `tests` after each of them. `shared` keeps what other calls for the same sets can use, and
    says which processes train together: each gives its own samples, and all get the same cascade and errors.
    """
    shared = Shared() if shared is None else shared
    sides = {"train": shared.side(setup, train)} | {k: shared.side(setup, v) for k, v in tests.items()}
    everyone = {k: samples.everyone(shared.ranks) for k, samples in {"train": train, **tests}.items()}
    errors: dict[str, dict[str, MethodErrors]] = {name: {} for name in tests}
    trained, stages = Cascade(()), list[dict[str, Any]]()
    for name in names:
        if name in methods.CASCADES:
            blocks = tuple(setup.features.blocks) if name == "cascade" else methods.CASCADES[name]
            cascade, reports, answers = _CascadeRun(setup, sides, everyone, blocks).train()
            if name == "cascade":
                trained, stages = cascade, reports
        else:
            answers = _baseline(name, setup.model, sides, shared)
        for which, answer in answers.items():
            own = method_errors(setup.model, answer, tests[which].truth)
            errors[which][name] = own.gathered(everyone[which])
    spec = ReconstructorSpec(
        fit=setup.fit, crop=setup.crop, features=setup.features, start=setup.start, crop_fit=setup.crop_fit
    )
    return Outcome(FaceReconstructor(setup.model, trained, spec), stages, errors)


def _baseline(name: str, model: FaceModel, sides: Mapping[str, Side], shared: Shared) -> dict[str, FaceParameters]:
    tests = {k: side for k, side in sides.items() if k != "train"}
    if name == "mean_face":
        return {k: mean_face(model, len(side.samples)) for k, side in tests.items()}
    if name == "landmark_fit":
        return {k: side.fitted for k, side in tests.items()}
    train = sides["train"]
    constant = methods.bias_fit(train.fitted.flat, train.samples.truth.parameters.flat, shared.ranks)
    fix = retraction(model)
    moved = {k: fix(side.fitted.flat + constant) for k, side in tests.items()}
    return {k: FaceParameters.from_flat(flat, model.n_identity) for k, flat in moved.items()}


class _CascadeRun:
    """The training of one cascade on some feature blocks, with the test sets following it stage by stage."""

    def __init__(
        self, setup: TrainSetup, sides: Mapping[str, Side], everyone: Mapping[str, Everyone], blocks: tuple[str, ...]
    ) -> None:
        self.setup, self.sides, self.everyone, self.blocks = setup, sides, everyone, blocks
        self.ranks = everyone["train"].ranks
        self.observers = {k: side.observer(blocks) for k, side in sides.items()}
        self.at = {k: side.x for k, side in sides.items()}
        self.first = next((k for k in sides if k != "train"), None)
        self.reports: list[dict[str, Any]] = []
        self.spec = methods.block_spec(setup.cascade, replace(setup.features, blocks=blocks))

    def train(self) -> tuple[Cascade, list[dict[str, Any]], dict[str, FaceParameters]]:
        """The cascade, its stages, and the parameters of every test set."""
        setup, train = self.setup, self.sides["train"]
        truth = train.samples.truth
        cascade, _ = train_cascade(
            self.observers["train"],
            self.at["train"],
            truth.parameters.flat,
            truth.subjects.to(setup.model.device),
            methods.shape_error(setup.model, truth, methods.SELECTION_VERTICES, ranks=self.ranks),
            self.spec,
            retract=retraction(setup.model),
            on_stage=self._on_stage,
            first=self._first(),
            ranks=self.ranks,
        )
        tests = {k: flat for k, flat in self.at.items() if k != "train"}
        answers = {k: FaceParameters.from_flat(flat, setup.model.n_identity) for k, flat in tests.items()}
        return cascade, self.reports, answers

    def _first(self) -> SampleGram | Moments | None:
        """The second moments of the first stage's features, in the form that its ridge takes."""
        n, d = len(self.everyone["train"]), replace(self.setup.features, blocks=self.blocks).length
        side, spec, device = self.sides["train"], self.spec.ridge, self.setup.model.device
        form = choose_form(n, d, spec.form, blocks=len(self.blocks), memory=spec.memory, device=device)
        # processes may have different amounts of memory left
        return side.gram(self.blocks) if self.ranks.share(form) == "dual" else side.moments(self.blocks)

    def _on_stage(self, k: int, cascade: Cascade, report: StageReport) -> None:
        moved = {name: self._step(cascade, name, k) for name in self.sides if name != "train"}
        test_mae = None if self.first is None else float(self._measure(moved[self.first]))
        if self.ranks.is_first:
            _log.info(
                "%s, stage %d: relative penalty %s, cross-fitted %s mm, test %s mm, %s", "+".join(self.blocks), k + 1,
                report.relative_penalty, report.cross_fitted_error, test_mae, "kept" if report.kept else "dropped",
            )  # fmt: skip
        self.reports.append(_stage_entry(k, report, test_mae))
        if report.kept:
            self.at.update(moved)

    def _step(self, cascade: Cascade, name: str, k: int) -> Tensor:
        at = self.at[name]
        return cascade.step(at, self.observers[name], k) if len(at) else at

    def _measure(self, flat: Tensor) -> Tensor | float:
        if self.first is None:
            return float("nan")
        truth = self.sides[self.first].samples.truth
        return methods.shape_error(self.setup.model, truth, ranks=self.ranks)(flat)


def _stage_entry(k: int, report: StageReport, test_mae: float | None) -> dict[str, Any]:
    return {
        "stage": k + 1,
        "relative_penalty": report.relative_penalty,
        "block_weights": list(report.block_weights),
        "start_mae_mm": report.start_error,
        "cross_fitted_mae_mm": report.cross_fitted_error,
        "in_sample_mae_mm": report.in_sample_error,
        "training_vertices": methods.SELECTION_VERTICES,  # of the whole face: what the three errors above were taken on
        "test_mae_mm": test_mae,
        "kept": report.kept,
        "form": report.form,
        "seconds": round(report.seconds, 3),
    }
