"""`facerecon train`: config -> data -> cascade -> run folder with config.yaml, report.json and cascade.safetensors."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from facerecon_torch.data.splits import Fold, check_disjoint, group_folds, paper_folds
from facerecon_torch.fitting.penalties import select_penalties
from facerecon_torch.images.write import replacing
from facerecon_torch.pipeline.artefact import FaceCascade, save_cascade
from facerecon_torch.pipeline.cross_validation import Judged, cross_validate, judge, pool
from facerecon_torch.pipeline.face_models import load_face_model
from facerecon_torch.pipeline.phases import Phases
from facerecon_torch.pipeline.report import REPORT_FORMAT, environment, write_json
from facerecon_torch.pipeline.samples import Samples, prepare_samples
from facerecon_torch.pipeline.sets import load_sets
from facerecon_torch.pipeline.specs import TrainSpecs
from facerecon_torch.pipeline.train import Outcome, TrainSetup, train_methods

__all__ = ["train", "train_from_config"]

_log = logging.getLogger(__name__)
_GROUPS = ("model", "data", "landmarks", "fitting", "features", "regression", "cascade", "cv", "runtime")


def train_from_config(config: DictConfig) -> int:
    """Build the specs, train, and write the run folder. Returns the exit status."""
    specs = TrainSpecs(**{name: instantiate(config[name], _convert_="all") for name in _GROUPS})
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.yaml") as part:
        plain = {k: v for k, v in config.items() if k != "output"}
        part.write_text(OmegaConf.to_yaml(OmegaConf.create(plain), resolve=True), encoding="utf-8")
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    face, report = train(specs)
    save_cascade(face, folder / "cascade.safetensors", half=specs.runtime.half)
    write_json(folder / "report.json", {**report, "overrides": overrides})
    _log.info("%s", _table(report["test"]))
    _log.info("run folder: %s", folder)
    return 0


def train(specs: TrainSpecs) -> tuple[FaceCascade, dict[str, Any]]:
    """Train and measure as `specs` say. Raises ValueError or FaceReconError for input that cannot be used."""
    device, phases = specs.runtime.apply(), Phases()
    with phases("model"):
        model = load_face_model(specs.model).to(device, specs.runtime.torch_dtype)
    with phases("data"):
        sets = load_sets(specs.data, specs.landmarks, specs.runtime)
    with phases("prepare"):
        ready = {
            name: prepare_samples(
                faces,
                model,
                fit=specs.fitting.fit,
                crop=specs.fitting.crop,
                hog=specs.features.hog,
                workers=specs.runtime.workers,
                progress=specs.runtime.progress,
            )
            for name, faces in sets.items()
        }
    setup = TrainSetup(
        model,
        specs.fitting.fit,
        specs.fitting.crop,
        specs.features,
        specs.cascade.with_regression(specs.regression),
        specs.cascade.start,
    )
    outcomes, judged, counts = _run_folds(specs, setup, ready, phases)
    face, stages = outcomes[-1].cascade, outcomes[-1].stages
    report: dict[str, Any] = {"format": REPORT_FORMAT, "counts": counts, "stages": stages}
    report |= judged
    if len(outcomes) > 1:
        report["fold_stages"] = [outcome.stages for outcome in outcomes]
    report["penalties"] = {"identity": face.fit.identity_penalty, "expression": face.fit.expression_penalty}
    report |= environment(device, specs.runtime.seed, phases)
    return replace(face, training=_provenance(specs, report)), report


def _run_folds(
    specs: TrainSpecs, setup: TrainSetup, ready: dict[str, Samples], phases: Phases
) -> tuple[list[Outcome], dict[str, Any], dict[str, Any]]:
    generator = torch.Generator().manual_seed(specs.runtime.seed)
    people, others = ready["train"], {k: v for k, v in ready.items() if k == "shifted"}
    splits: list[tuple[Samples, Samples]]
    if specs.cv.protocol == "holdout":
        splits = [(people, ready["test"])]
    else:
        folds = _folds(specs, people, generator)
        splits = [(people.at(fold.train), people.at(fold.test)) for fold in folds]
    outcomes: list[Outcome] = []
    judgements: list[dict[str, Judged]] = []
    for train_side, test_side in splits:
        check_disjoint(train_side.subjects, test_side.subjects)
        tests = {"test": test_side} | others
        tuned = _with_penalties(specs, setup, train_side, phases)
        with phases("train"):
            outcome = train_methods(tuned, train_side, tests)
        outcomes.append(outcome)
        judgements.append({k: Judged(outcome.errors[k], side.subjects) for k, side in tests.items()})
    with phases("judge"):
        report = {k: judge(pool([j[k] for j in judgements]), generator) for k in judgements[0]}
        result = {k: v["methods"] for k, v in report.items()}
        result["comparisons"] = {k: v["comparisons"] for k, v in report.items()}
    if specs.cv.nested:
        with phases("nested"):
            nested = cross_validate(tuned, splits[-1][0], specs.cv.nested, generator)
        result["nested"] = judge(nested, generator) | {"folds": specs.cv.nested}
    counts = {"train": _counts(splits[-1][0]), "test": _counts(splits[-1][1])}
    return outcomes, result, counts | {k: _counts(v) for k, v in others.items()}


def _folds(specs: TrainSpecs, people: Samples, generator: torch.Generator) -> list[Fold]:
    if specs.cv.protocol == "paper_5x5":
        folds = paper_folds(people.subjects, generator)
    else:
        folds = group_folds(people.subjects, specs.cv.folds, generator)
    return [folds[k] for k in specs.cv.chosen(len(folds))]


def _with_penalties(specs: TrainSpecs, setup: TrainSetup, people: Samples, phases: Phases) -> TrainSetup:
    """Choose the penalties of Eq. 7 on the training people, if asked to."""
    if not specs.fitting.select_penalties:
        return setup
    with phases("fit_penalties"):
        chosen = select_penalties(setup.model, people.landmarks, people.truth.meshes, setup.fit)
    _log.info("landmark fit: penalties %g and %g", chosen.spec.identity_penalty, chosen.spec.expression_penalty)
    return replace(setup, fit=chosen.spec)


def _counts(samples: Samples) -> dict[str, int]:
    return {"images": len(samples), "subjects": int(torch.unique(samples.subjects).numel())}


def _provenance(specs: TrainSpecs, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "counts": report["counts"],
        "command": report["command"],
        "versions": report["versions"],
        "seed": specs.runtime.seed,
        "test_mae_mm": {a: report["test"]["cascade"]["mae_mm"][a]["M"]["whole"] for a in ("none", "similarity")},
    }


def _table(test: dict[str, Any]) -> str:
    """Test MAE in mm vs M on the whole face, a line per method."""
    lines = [f"{'test MAE, mm vs M':<20}{'none':>8}{'transl.':>9}{'simil.':>8}{'size %':>8}"]
    for name, errors in test.items():
        none, translation, similarity = (
            errors["mae_mm"][a]["M"]["whole"] for a in ("none", "translation", "similarity")
        )
        lines.append(f"{name:<20}{none:8.3f}{translation:9.3f}{similarity:8.3f}{errors['size_error_percent']:8.2f}")
    return "\n".join(lines)
