"""`facerecon compare`: config -> methods and other systems -> tables, and the exit status."""

import csv
import io
import logging
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from omegaconf import DictConfig

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.compare.sets import load_training_faces, load_truth
from facerecon_torch.commands.compare.specs import CompareSpecs
from facerecon_torch.config.recorded import build
from facerecon_torch.data.specs import RecordedScans
from facerecon_torch.external.eos.fit import EosFitter
from facerecon_torch.external.folder import SystemOutputs, read_system
from facerecon_torch.external.measure import MethodErrors, measure
from facerecon_torch.external.methods import MethodFaces, external_faces, mean_faces, output_hints, own_faces
from facerecon_torch.external.peers import eos_faces, image_sizes, mediapipe_faces, tuned_settings
from facerecon_torch.external.report import comparison_report, comparison_tables
from facerecon_torch.external.truth import ModelTruth, Truth, photographs_in
from facerecon_torch.files import write_bytes, write_json
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.landmarks.source import TRAINING_SOURCES, LandmarkSourceSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.load import load_face_model

__all__ = ["compare_from_config"]

_log = logging.getLogger(__name__)


def compare_from_config(config: DictConfig) -> int:
    """Measure what `config` names into `config.output`. Returns 0, or 1 if files of another system gave no face."""
    specs: CompareSpecs = build(config)
    device = specs.runtime.apply()
    landmarks = _settled(specs, device)
    reconstructor = FaceReconstructor.from_pretrained(
        specs.cascade or pretrained_path(landmarks.own_convention), face_model=load_face_model(specs.model)
    )
    truth = _truth(specs, reconstructor.face_model, landmarks, device)
    _log.info("%s: %d images of %d people", truth.name, len(truth), truth.people)
    hints = output_hints(reconstructor.face_model, triangles=specs.triangles, landmark_vertices=specs.landmark_vertices)
    systems = [read_system(folder, truth.names, hints) for folder in specs.external]
    faces, facts = _methods(specs, reconstructor.to(device, specs.runtime.torch_dtype), truth, landmarks)
    faces += [external_faces(system, truth) for system in systems if system.faces]
    errors = []
    for method in faces:
        errors.append(measure(method, truth, regions=specs.regions))
        _log.info("%s: measured", method.name)
    _write(specs, errors, truth, systems, facts)
    failed = [system for system in systems if system.missing or system.unreadable]
    for system in systems:
        _log.log(
            logging.ERROR if system in failed else logging.INFO,
            "%s: %d faces, %d images without a file, %d files of no image, %d unreadable; see compare.json",
            system.name, len(system.faces), len(system.missing), len(system.extra), len(system.unreadable),
        )  # fmt: skip
    return 1 if failed else 0


def _settled(specs: CompareSpecs, device: torch.device) -> LandmarkSourceSpec:
    """The source of landmarks. Recordings bring those that were detected when they were prepared."""
    if specs.truth is None and isinstance(specs.data, RecordedScans) and specs.landmarks.source == "auto":
        return LandmarkSourceSpec(source="set", convention=specs.landmarks.convention)
    return specs.landmarks.settled(device)


def _truth(specs: CompareSpecs, model: FaceModel, landmarks: LandmarkSourceSpec, device: torch.device) -> Truth:
    photographs = specs.truth is None or (specs.truth.is_dir() and bool(photographs_in(specs.truth)))
    own = landmarks.source in TRAINING_SOURCES
    if own and photographs and specs.truth is not None:
        raise ValueError(f"landmarks.source={landmarks.source} is for data sets; photographs of scans need a detector")
    detector = build_detector(landmarks.source, **landmarks.options(device)) if photographs and not own else None
    return load_truth(specs, model, landmarks, detector)


def _methods(
    specs: CompareSpecs, reconstructor: FaceReconstructor, truth: Truth, landmarks: LandmarkSourceSpec
) -> tuple[list[MethodFaces], dict[str, Any]]:
    """The faces of ours and of the peers, and facts about how the peers ran. Without photographs: the mean face."""
    faces = [mean_faces(reconstructor, truth)]
    facts: dict[str, Any] = {}
    if all(path is not None for path in truth.images):
        faces += own_faces(reconstructor, truth)
    if "eos" in specs.peers:
        model = reconstructor.face_model
        fitter = EosFitter(specs.eos.files(model, specs.output / "eos"))
        settings = specs.eos.settings
        if specs.eos.tune:
            settings, facts["eos_tuning"] = _tuned(specs, fitter, model, landmarks)
        facts["eos_settings"] = vars(settings)
        faces.append(eos_faces(fitter, settings, truth, deepcopy(model).cpu() if specs.eos.model is None else None))
    if "mediapipe" in specs.peers:
        faces.append(mediapipe_faces(truth, reconstructor.device))
    return faces, facts


def _tuned(specs: CompareSpecs, fitter: EosFitter, model: FaceModel, landmarks: LandmarkSourceSpec) -> Any:
    training = load_training_faces(specs, model, landmarks, specs.eos.tune)
    rows = model.whole_topology("eos needs a whole model").whole_vertices.cpu()
    truth = ModelTruth(meshes=training.meshes, rows=rows, covered=None)
    return tuned_settings(fitter, training.landmarks, image_sizes(training.images), truth)


def _write(
    specs: CompareSpecs,
    errors: Sequence[MethodErrors],
    truth: Truth,
    systems: Sequence[SystemOutputs],
    facts: dict[str, Any],
) -> None:
    reference = "ours" if any(method.name == "ours" for method in errors) else "mean face"
    generator = torch.Generator().manual_seed(specs.runtime.seed)
    report = comparison_report(errors, truth, generator, reference=reference)
    tables = comparison_tables(report)
    if truth.model is not None and truth.model.covered is not None:
        tables += "\n\n" + comparison_tables(report, vertices="covered")
    document = {"format": "facerecon_torch.comparison/1", **report, "peers": facts}
    document["external"] = {system.name: system.report() for system in systems}
    write_bytes(specs.output / "compare.csv", _per_image(errors, truth).encode("utf-8"))
    write_bytes(specs.output / "compare.md", (tables + "\n").encode("utf-8"))
    write_json(specs.output / "compare.json", document)
    _log.info("%s\n%s", specs.output, tables)


def _per_image(errors: Sequence[MethodErrors], truth: Truth) -> str:
    """One line per image and method; empty where a method has no such error."""
    columns = sorted({name for method in errors for name in method.columns})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "subject", "method", *columns])
    for k, name in enumerate(truth.names):
        for method in errors:
            values = [float(method.columns[c][k]) if c in method.columns else float("nan") for c in columns]
            row = ["" if value != value else f"{value:.6g}" for value in values]
            writer.writerow([name, int(truth.subjects[k]), method.name, *row])
    return text.getvalue()
