"""`facerecon train`: config -> data -> cascade -> run folder with config.yaml, report.json and cascade.safetensors."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from facerecon_torch.data.splits import Fold, check_disjoint, group_folds, paper_folds
from facerecon_torch.files import replacing
from facerecon_torch.fitting.penalties import select_penalties
from facerecon_torch.pipeline.artefact import FaceCascade, save_cascade
from facerecon_torch.pipeline.cross_validation import Judged, cross_validate, judge, pool
from facerecon_torch.pipeline.evaluate import ALIGNMENTS
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
    report = train(specs, save=lambda face: save_cascade(face, folder / "cascade.safetensors", half=specs.runtime.half))
    write_json(folder / "report.json", {**report, "overrides": overrides})
    _log.info("%s", _table(report["test"]))
    _log.info("run folder: %s", folder)
    return 0


def train(specs: TrainSpecs, *, save: Callable[[FaceCascade], None]) -> dict[str, Any]:
    """Train and measure as `specs` say, and return the report. `save` gets the cascade as soon as it is trained; of
    several folds, that of the last. Raises ValueError or FaceReconError for input that cannot be used."""
    asked, specs = specs, specs.settled()
    if specs.cv != asked.cv:
        _log.info("this data has no test people of its own: cv.protocol=%s", specs.cv.protocol)
    device = specs.runtime.apply()
    phases = Phases(device)
    with phases("model"):
        model = load_face_model(specs.model).to(device, specs.runtime.torch_dtype)
    with phases("data"):
        names = ("train", "test", "shifted") if specs.cv.protocol == "holdout" else ("train", "shifted")
        sets = load_sets(specs.data, specs.landmarks, specs.runtime, model, names=names)
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
        specs.fitting.fit,
    )
    generator = torch.Generator().manual_seed(specs.runtime.seed)
    splits = _splits(specs, ready, generator)
    report: dict[str, Any] = {"format": REPORT_FORMAT}
    report |= _run_folds(specs, setup, splits, ready, (phases, generator), save)
    return report | environment(device, specs.runtime.seed, phases)


def _splits(
    specs: TrainSpecs, ready: dict[str, Samples], generator: torch.Generator
) -> list[tuple[int | None, Samples, Samples]]:
    """(number of the fold, who trains, who tests)."""
    people = ready["train"]
    if not specs.cv.splits_training:
        return [(None, people, ready["test"])]
    folds = _folds(specs, people, generator)
    held_out = ready.get("test")
    return [(k, people.at(folds[k].train), held_out or people.at(folds[k].test)) for k in specs.cv.chosen]


def _run_folds(
    specs: TrainSpecs,
    setup: TrainSetup,
    splits: list[tuple[int | None, Samples, Samples]],
    ready: dict[str, Samples],
    tools: tuple[Phases, torch.Generator],
    save: Callable[[FaceCascade], None],
) -> dict[str, Any]:
    """Train every fold; errors are pooled over folds, everything else is told per fold."""
    phases, generator = tools
    others = {k: v for k, v in ready.items() if k == "shifted"}
    judgements: list[dict[str, Judged]] = []
    told: list[dict[str, Any]] = []
    tuned = setup
    for number, train_side, test_side in splits:
        check_disjoint(train_side.subjects, test_side.subjects)
        tests = {"test": test_side} | others
        tuned = _with_penalties(specs, setup, train_side, phases)
        with phases("train"):
            outcome = train_methods(tuned, train_side, tests)
        sides = {"train": train_side} | tests
        judgements.append({k: Judged(outcome.errors[k], side.subjects, side.truth.kinds) for k, side in tests.items()})
        told.append(_fold_entry(number, {k: _counts(v) for k, v in sides.items()}, outcome))
        save(replace(outcome.cascade, training=_provenance(specs, told[-1])))
    with phases("judge"):
        judged = {k: judge(pool([j[k] for j in judgements]), generator) for k in judgements[0]}
    report = {k: told[-1][k] for k in ("counts", "stages", "penalties")}
    report |= {"folds": told} if len(told) > 1 else {}
    report |= {k: v["methods"] for k, v in judged.items()}
    report["comparisons"] = {k: v["comparisons"] for k, v in judged.items()}
    if by_kind := {k: v["by_kind"] for k, v in judged.items() if "by_kind" in v}:
        report["by_kind"] = by_kind
    if specs.cv.nested:
        with phases("nested"):
            nested = cross_validate(tuned, splits[-1][1], specs.cv.nested, generator)
        report["nested"] = judge(nested, generator) | {"folds": specs.cv.nested}
    return report


def _fold_entry(number: int | None, counts: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    fit = outcome.cascade.fit
    mae = {align: float(outcome.errors["test"]["cascade"].mae[align, "M", "whole"].mean()) for align in ALIGNMENTS}
    return {
        "fold": number,
        "counts": counts,
        "stages": outcome.stages,
        "penalties": {"identity": fit.identity_penalty, "expression": fit.expression_penalty},
        "test_mae_mm": mae,
    }


def _folds(specs: TrainSpecs, people: Samples, generator: torch.Generator) -> list[Fold]:
    if specs.cv.protocol == "paper_5x5":
        return paper_folds(people.subjects, generator)
    return group_folds(people.subjects, specs.cv.folds, generator)


def _with_penalties(specs: TrainSpecs, setup: TrainSetup, people: Samples, phases: Phases) -> TrainSetup:
    """Choose the penalties of Eq. 7 on the training people, if asked to."""
    if not specs.fitting.select_penalties:
        return setup
    with phases("fit_penalties"):
        chosen = select_penalties(setup.model, people.landmarks, people.truth.meshes, setup.fit)
    _log.info("landmark fit: penalties %g and %g", chosen.spec.identity_penalty, chosen.spec.expression_penalty)
    return replace(setup, fit=chosen.spec)


def _counts(samples: Samples) -> dict[str, int]:
    return {"images": len(samples), "subjects": samples.n_subjects}


def _provenance(specs: TrainSpecs, told: dict[str, Any]) -> dict[str, Any]:
    """What a cascade file says of its own training."""
    return {**{k: told[k] for k in ("fold", "counts", "test_mae_mm")}, "seed": specs.runtime.seed} | {
        "protocol": specs.cv.protocol,
        "landmarks": specs.landmarks.source,
    }


def _table(test: dict[str, Any]) -> str:
    """Test MAE in mm vs M on the whole face, a line per method."""
    lines = [f"{'test MAE, mm vs M':<20}{'none':>8}{'transl.':>9}{'simil.':>8}{'size %':>8}"]
    for name, errors in test.items():
        none, translation, similarity = (errors["mae_mm"][a]["M"]["whole"] for a in ALIGNMENTS)
        lines.append(f"{name:<20}{none:8.3f}{translation:9.3f}{similarity:8.3f}{errors['size_error_percent']:8.2f}")
    return "\n".join(lines)
