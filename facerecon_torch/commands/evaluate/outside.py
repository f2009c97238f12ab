"""Other systems on photographs of a study: folders of their results, and the systems that run here."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from facerecon_torch.config.evaluate import EvaluateSpecs
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.evaluation.outside import Outside
from facerecon_torch.evaluation.study import Study
from facerecon_torch.external.eos.fit import EosFitter, EosSettings
from facerecon_torch.external.eos.model_files import write_eos_model
from facerecon_torch.external.folder import OutputHints, SystemOutputs, read_system, system_folders
from facerecon_torch.external.measure import measure
from facerecon_torch.external.methods import FaceGroup, MethodFaces, external_faces, model_group, output_hints
from facerecon_torch.external.peers import eos_faces, image_sizes, mediapipe_faces, runnable_peers, tuned_settings
from facerecon_torch.external.truth import ModelTruth, Truth, evenly_spread, some_of, truth_of_set
from facerecon_torch.files import path_text
from facerecon_torch.model.base import FaceModel

__all__ = ["outside_of"]

_POINTS = 2000  # of every scan
_log = logging.getLogger(__name__)


def outside_of(study: Study, training: FaceSet, specs: EvaluateSpecs, folder: Path) -> Outside:
    """Other systems beside the methods of a study.

    Args:
        study: measured.
        training: the set from which the training people of every fold come.
        specs: of the run.
        folder: of the study, for files that systems need.

    Raises:
        MissingExtraError: eos is asked for, and is not installed.
        ImageFileError: a photograph cannot be read.
    """
    spec = specs.evaluation
    places = evenly_spread(len(study.tested), spec.external_images)
    model = deepcopy(study.model).to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(specs.runtime.seed)
    truth = truth_of_set(study.tested.faces[torch.tensor(places)], model, points=_POINTS, generator=generator)
    hints = output_hints(model)
    systems = [_read(folder, truth.names, hints) for folder in system_folders(spec.external)]
    others = [external_faces(system, truth) for system in systems if system.faces]
    notes = {system.name: _found(system) for system in systems}
    peers = runnable_peers() if spec.peers is None else spec.peers
    if "eos" in peers:
        faces, notes["eos"] = _eos(study, training, places, truth, model, folder, spec.eos_tune)
        others.append(faces)
    if "mediapipe" in peers:
        others.append(mediapipe_faces(truth, study.model.device))
        notes["mediapipe"] = "its own face mesh network, in px"
    errors = [measure(faces, truth, regions=False) for faces in [*_own(study, places, model), *others]]
    _log.info("%s: %s on %d photographs", study.name, ", ".join(faces.name for faces in others), len(places))
    return Outside(places=tuple(places), truth=truth, others=others, errors=errors, notes=notes)


def _read(folder: Path, names: Sequence[str], hints: OutputHints) -> SystemOutputs:
    """The results in a folder; none, with the reason, where no file belongs to a photograph: the methods of the study
    are measured all the same."""
    try:
        return read_system(folder, names, hints)
    except ValueError as error:
        _log.error("%s: %s", folder, error)
        reason = ((path_text(folder), str(error)),)
        return SystemOutputs(name=folder.name, faces={}, missing=tuple(names), extra=(), unreadable=reason)


def _found(system: SystemOutputs) -> str:
    return (
        f"{len(system.faces)} faces, {len(system.missing)} photographs without a file, {len(system.extra)} files of no "
        f"photograph, {len(system.unreadable)} unreadable"
    )


def _own(study: Study, places: Sequence[int], model: FaceModel) -> list[MethodFaces]:
    """The estimates of the study's methods on the photographs."""
    rows, everywhere = torch.tensor(places), range(len(places))
    points = torch.full((len(places), 68, 2), torch.nan)
    faces = []
    for name, estimate in study.estimates.items():
        own = estimate[rows].to("cpu", torch.float32)
        its_model = deepcopy(study.models[name]).to("cpu", torch.float32) if name in study.models else model
        group = model_group(model, its_model.vertices(own.identity, own.expression), everywhere)
        faces.append(MethodFaces(name=name, groups=(group,), image_points=points))
    return faces


def _eos(
    study: Study, training: FaceSet, places: Sequence[int], truth: Truth, model: FaceModel, folder: Path, count: int
) -> tuple[MethodFaces, str]:
    """The faces that eos fits with the study's face model, and a text that names the settings chosen on training people
    of each fold."""
    fitter = EosFitter(write_eos_model(model, folder / "eos"))
    folds = study.tested.folds[torch.tensor(places)]
    groups: list[FaceGroup] = []
    points = torch.full((len(places), 68, 2), torch.nan)
    chosen = []
    for fold in sorted(set(folds.tolist())):
        tested = study.tested.faces.subjects[study.tested.folds == fold]
        rows = torch.nonzero(~torch.isin(training.subjects, tested)).flatten()
        settings = _settings(fitter, training, rows[evenly_spread(len(rows), count)], model)
        at = torch.nonzero(folds == fold).flatten().tolist()
        faces = eos_faces(fitter, settings, some_of(truth, at), model)
        groups += [replace(group, places=tuple(at[k] for k in group.places)) for group in faces.groups]
        points[at] = faces.image_points
        chosen.append(f"fold {fold} identity {settings.identity_penalty:g}, expression {settings.expression_penalty:g}")
    note = f"settings of least MAE on {count} photographs of training people: {'; '.join(chosen)}"
    return MethodFaces(name="eos", groups=tuple(groups), image_points=points), note


def _settings(fitter: EosFitter, training: FaceSet, rows: Int[Tensor, "n"], model: FaceModel) -> EosSettings:
    faces = training[rows]
    rows_measured = model.whole_topology("eos needs a whole model").whole_vertices
    truth = ModelTruth(meshes=faces.meshes.float(), rows=rows_measured, covered=faces.covered)
    return tuned_settings(fitter, faces.landmarks, image_sizes(faces.images), truth)[0]
