"""Trains every method on one set of people and measures it on others."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.coefficients import FitSpec, LandmarkFitter
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.model.protocol import FaceModel
from facerecon_torch.pipeline import methods
from facerecon_torch.pipeline.artefact import FaceCascade
from facerecon_torch.pipeline.evaluate import MethodErrors, method_errors
from facerecon_torch.pipeline.observe import FaceObserver, Observed
from facerecon_torch.pipeline.samples import Samples
from facerecon_torch.regression.cascade import Cascade, CascadeSpec, StageReport, train_cascade
from facerecon_torch.structures import FaceParameters

__all__ = ["Outcome", "TrainSetup", "train_methods"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSetup:
    """All that a training run is told, but the data. `start` is where cascades begin: the landmark fit, or the mean
    face."""

    model: FaceModel
    fit: FitSpec
    crop: CropSpec
    features: JointSpec
    cascade: CascadeSpec
    start: str = "landmark_fit"
    crop_fit: FitSpec = field(default_factory=FitSpec)  # the fit that the crops followed


@dataclass(frozen=True)
class Outcome:
    """A trained cascade, what its stages did, and the errors of every method on every set."""

    cascade: FaceCascade
    stages: list[dict[str, Any]]
    errors: dict[str, dict[str, MethodErrors]]  # [set][method]


@dataclass(frozen=True)
class _Side:
    """One set under one landmark fit: where cascades start and what they observe."""

    samples: Samples
    fitted: FaceParameters
    observer: FaceObserver  # of HOG and LD
    features: Float[Tensor, "n d"]  # HOG and LD at the start, shared by all methods


def train_methods(
    setup: TrainSetup, train: Samples, tests: Mapping[str, Samples], *, names: tuple[str, ...] = methods.METHODS
) -> Outcome:
    """Train each of the methods `names` on `train` and measure it on every set of `tests`.

    Every cascade chooses its own penalties on the training people. The stages of `cascade` are reported with the test
    error of the first set of `tests` after each of them.
    """
    fitter = LandmarkFitter(setup.model, setup.fit)
    sides = {"train": _side(setup, fitter, train)} | {k: _side(setup, fitter, v) for k, v in tests.items()}
    errors: dict[str, dict[str, MethodErrors]] = {name: {} for name in tests}
    trained, stages = Cascade(()), list[dict[str, Any]]()
    for name in names:
        if name in methods.CASCADES:
            blocks = tuple(setup.features.blocks) if name == "cascade" else methods.CASCADES[name]
            cascade, reports, answers = _train_one(setup, sides, blocks)
            if name == "cascade":
                trained, stages = cascade, reports
        else:
            answers = _baseline(name, setup.model, sides)
        for which, answer in answers.items():
            errors[which][name] = method_errors(setup.model, answer, tests[which].truth)
    face = FaceCascade(
        setup.model, trained, setup.fit, setup.crop, setup.features, start=setup.start, crop_fit=setup.crop_fit
    )
    return Outcome(face, stages, errors)


def _side(setup: TrainSetup, fitter: LandmarkFitter, samples: Samples) -> _Side:
    fit = fitter.fit(samples.landmarks)
    observed = Observed(samples.landmarks, fit.camera, samples.bank)
    observer = FaceObserver(fitter, setup.model.n_identity, observed, replace(setup.features, blocks=methods.BLOCKS))
    return _Side(samples, fit.parameters, observer, observer(_start(setup, fit.parameters).flat, 0))


def _start(setup: TrainSetup, fitted: FaceParameters) -> FaceParameters:
    return fitted if setup.start == "landmark_fit" else methods.mean_face(setup.model, len(fitted.identity))


def _baseline(name: str, model: FaceModel, sides: Mapping[str, _Side]) -> dict[str, FaceParameters]:
    tests = {k: side for k, side in sides.items() if k != "train"}
    if name == "mean_face":
        return {k: methods.mean_face(model, len(side.samples)) for k, side in tests.items()}
    if name == "landmark_fit":
        return {k: side.fitted for k, side in tests.items()}
    train = sides["train"]
    constant = methods.bias_fit(train.fitted.flat, train.samples.truth.parameters.flat)
    fix = methods.retraction(model)
    moved = {k: fix(side.fitted.flat + constant) for k, side in tests.items()}
    return {k: FaceParameters.from_flat(flat, model.n_identity) for k, flat in moved.items()}


def _train_one(
    setup: TrainSetup, sides: Mapping[str, _Side], blocks: tuple[str, ...]
) -> tuple[Cascade, list[dict[str, Any]], dict[str, FaceParameters]]:
    train = sides["train"]
    observers = {k: side.observer.with_blocks(blocks, side.features) for k, side in sides.items()}
    at = {k: _start(setup, side.fitted).flat for k, side in sides.items()}
    first = next((k for k in sides if k != "train"), None)
    judge = methods.shape_error(setup.model, train.samples.truth.meshes, methods.SELECTION_VERTICES)
    measure = None if first is None else methods.shape_error(setup.model, sides[first].samples.truth.meshes)
    reports: list[dict[str, Any]] = []

    def on_stage(k: int, cascade: Cascade, report: StageReport) -> None:
        moved = {name: cascade.step(at[name], observers[name], k) for name in sides if name != "train"}
        test_mae = None if first is None or measure is None else float(measure(moved[first]))
        reports.append(_stage_entry(k, report, test_mae))
        if report.kept:
            at.update(moved)

    spec = methods.block_spec(setup.cascade, replace(setup.features, blocks=blocks))
    cascade, _ = train_cascade(
        observers["train"],
        at["train"],
        train.samples.truth.parameters.flat,
        train.samples.subjects.to(setup.model.device),
        judge,
        spec,
        retract=methods.retraction(setup.model),
        on_stage=on_stage,
    )
    answers = {k: FaceParameters.from_flat(flat, setup.model.n_identity) for k, flat in at.items() if k != "train"}
    return cascade, reports, answers


def _stage_entry(k: int, report: StageReport, test_mae: float | None) -> dict[str, Any]:
    _log.info("stage %d: rho %s, cross-fitted %s mm, test %s mm, %s", k + 1, report.rho, report.cross_fitted_error,
              test_mae, "kept" if report.kept else "dropped")  # fmt: skip
    return {
        "stage": k + 1,
        "rho": report.rho,
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
