"""`facerecon evaluate`: one folder with metrics.json, metrics.csv, images.parquet, figures and report.html."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from facerecon_torch.commands.evaluate.outside import outside_of
from facerecon_torch.commands.evaluate.run import StudyRun
from facerecon_torch.commands.evaluate.store import EstimateStore, digest
from facerecon_torch.commands.own_files import require_own
from facerecon_torch.config.evaluate import EvaluateSpecs
from facerecon_torch.config.recorded import build, recorded, write_config
from facerecon_torch.data.specs import RecordedScans
from facerecon_torch.evaluation.output import write_evaluation, write_metrics
from facerecon_torch.evaluation.sections.registry import SECTIONS
from facerecon_torch.evaluation.study import Study
from facerecon_torch.evaluation.tables import Section
from facerecon_torch.runtime.environment import environment
from facerecon_torch.runtime.timer import Timer

__all__ = ["build_specs", "evaluate", "evaluate_from_config"]

_GROUPS = ("model", "data", "test_data", "landmarks", "fitting", "method", "cv", "runtime", "evaluation")
_SHARED = ("model", "data", "test_data", "landmarks", "fitting", "cv", "runtime")
"""Groups in which parts of one study agree."""
_OUTSIDE = {"fig8_external", "fig9_external_gallery"}
"""Sections that show other systems."""
_log = logging.getLogger(__name__)


def evaluate_from_config(config: DictConfig) -> int:
    """The exit status of an evaluation that writes its folder."""
    specs = build_specs(config)
    parts = {name: build_specs(_part(name)) for name in specs.evaluation.parts}
    for name in [name for name, part in parts.items() if _lacks_test_set(part)]:
        _log.info("left out: %s needs a test set: evaluation.facewarehouse=DIR or evaluation.frgc=DIR", name)
        del parts[name]
    evaluate(list(parts.values()) or [specs], Path(config.output))
    return 0


def _lacks_test_set(specs: EvaluateSpecs) -> bool:
    return isinstance(specs.test_data, RecordedScans) and specs.test_data.root is None


def build_specs(config: DictConfig) -> EvaluateSpecs:
    """The specs of a config."""
    groups: dict[str, Any] = {name: build(config[name], name) if config.get(name) else None for name in _GROUPS}
    return EvaluateSpecs(**groups)


def _part(name: str) -> DictConfig:
    """The config of one experiment of several, under the words of the user's call; those about methods that it does
    not have are left out."""
    own = ("experiment=", "evaluation.parts")
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith(own)]
    general = [f"experiment={name}", *(word for word in words if _method_of(word) is None)]
    methods = compose("evaluate", overrides=general).method
    return compose("evaluate", overrides=[*general, *(word for word in words if _method_of(word) in methods)])


def _method_of(word: str) -> str | None:
    """The method that a word of the call is about, as in method.ours.cascade.stages=3."""
    key = word.lstrip("+").partition("=")[0]
    return key.split(".")[1] if key.startswith("method.") else None


def evaluate(parts: list[EvaluateSpecs], folder: Path) -> None:
    """Run some experiments into one folder. Those that agree on data, protocol and training share one study.

    Args:
        parts: the experiments, in the order of the page.
        folder: of all files.

    Raises:
        ValueError, FaceReconError: input that cannot be used.
    """
    _require_own(folder)
    device = parts[0].runtime.apply()
    timer = Timer(device, memory=True)
    planned = _planned([part.settled(device) for part in parts])
    studies, sections = dict[str, Study](), list[tuple[int, Section]]()
    for plan in planned:
        study = _run(plan, folder, device, timer)
        studies[study.name] = study
        for place, name in plan.sections:
            with timer.timed("sections"):
                sections.append((place, SECTIONS[name](study, _generator(plan.specs))))
    about = environment(device, parts[0].runtime.seed, timer)
    with timer.timed("metrics"):
        write_metrics(folder, studies, about, _generator(parts[0]))
    ordered = [section for _, section in sorted(sections, key=lambda entry: entry[0])]
    write_evaluation(folder, _title(parts), _facts(studies, about), ordered)
    _log.info("report: %s", folder / "report.html")


def _require_own(folder: Path) -> None:
    """Raise FileExistsError where files of others have the names of results."""
    require_own(folder / name for name in ("metrics.json", "images.parquet", "report.html"))
    if (folder / "metrics.csv").exists() and not (folder / "metrics.json").exists():
        raise FileExistsError(f"{folder / 'metrics.csv'}: expected a free name; got a file without its metrics.json")


@dataclass(frozen=True)
class _Plan:
    """One study and the sections that show it, each with its place on the page."""

    specs: EvaluateSpecs
    sections: list[tuple[int, str]]


def _planned(parts: list[EvaluateSpecs]) -> list[_Plan]:
    """Studies of all parts: those that agree on everything but methods and sections become one, with all methods."""
    plans: dict[str, _Plan] = {}
    for place, part in enumerate(parts):
        key = digest([part.evaluation.study, *(recorded(getattr(part, name)) for name in _SHARED)])
        shown = [(place, name) for name in part.evaluation.sections]
        if key not in plans:
            if part.evaluation.study in {plan.specs.evaluation.study for plan in plans.values()}:
                raise ValueError(f"study {part.evaluation.study} must have one data set and protocol; it has several")
            plans[key] = _Plan(part, shown)
            continue
        plan = plans[key]
        for name in plan.specs.method.keys() & part.method.keys():
            if plan.specs.method[name] != part.method[name]:
                raise ValueError(f"method {name} must be the same in every part of study {part.evaluation.study}")
        merged = replace(plan.specs, method={**plan.specs.method, **part.method})
        plans[key] = _Plan(merged, [*plan.sections, *shown])
    return list(plans.values())


def _run(plan: _Plan, folder: Path, device: torch.device, timer: Timer) -> Study:
    specs = plan.specs
    place = folder / "studies" / specs.evaluation.study
    write_config(place / "config.yaml", specs, "evaluate", head={"output": "???"})
    run = StudyRun(specs, EstimateStore(place), device, timer)
    run.fit()
    study = run.measured()
    if not _OUTSIDE.intersection(name for _, name in plan.sections):
        return study
    with timer.timed("other systems"):
        return replace(study, outside=outside_of(study, run.sets["train"], specs, place))


def _generator(specs: EvaluateSpecs) -> torch.Generator:
    return torch.Generator().manual_seed(specs.runtime.seed)


def _title(parts: list[EvaluateSpecs]) -> str:
    names = list(dict.fromkeys(section for part in parts for section in part.evaluation.sections))
    return "Evaluation: " + (names[0] if len(names) == 1 else f"{len(names)} experiments")


def _facts(studies: dict[str, Study], about: dict[str, Any]) -> dict[str, str]:
    """The facts about the run on the page."""
    facts = {
        f"study {name}": f"{study.tested.faces.name}, {len(study.tested)} tested images of "
        f"{len(torch.unique(study.tested.faces.subjects))} subjects; {study.protocol}"
        for name, study in studies.items()
    }
    facts["command"] = " ".join(about["command"])
    facts["commit"] = about["commit"] or "unknown"
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    return facts | {
        "device": f"{about['device']['name']}, {about['device']['threads']} threads",
        "seed": str(about["seed"]),
    }
