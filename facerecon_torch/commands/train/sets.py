"""The labelled sets that a run asks for."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from facerecon_torch.commands.train.detections import detect_rendered, detect_set
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.aflw import load_fitted_faces
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.prepared import load_prepared_faces
from facerecon_torch.data.specs import DataSpec, RecordedScans, SyntheticPhotos
from facerecon_torch.files import cache_folder, require_writable
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.ranks import SINGLE, Ranks
from facerecon_torch.synthetic.dataset import VERSION, SyntheticSet, load_set, render_set
from facerecon_torch.synthetic.noise_table import load_noise_table, noise_file, sample_landmark_noise
from facerecon_torch.synthetic.people.model_people import people_digest
from facerecon_torch.synthetic.spec import FAMILIES, SyntheticSpec

__all__ = ["load_sets", "synthetic_folder"]

_log = logging.getLogger(__name__)


def synthetic_folder(spec: SyntheticSpec, root: str | None) -> Path:
    """Where a rendered set is kept: below `root`, or the user's cache folder ($FACERECON_CACHE)."""
    return Path(root or cache_folder()) / "synthetic" / f"{spec.family}-{spec.hash}-{VERSION}"


def load_sets(
    data: DataSpec,
    landmarks: LandmarkSourceSpec,
    runtime: RuntimeSpec,
    model: FaceModel,
    *,
    model_file: Path | None = None,
    names: Sequence[str] = FAMILIES,
    ranks: Ranks = SINGLE,
) -> dict[str, FaceSet]:
    """The requested sets among `train`, `test` and `shifted` that the data has.

    Recorded and fitted sets have people to train on alone, and bring landmarks; where a detector is asked for, it is
    run on their photographs. Every process of a run gets all of them; the first renders what is missing, and detectors
    run on some photographs each. `model_file` is the file of the model, whose own people are then photographed. Raises
    what reading them raises.
    """
    if isinstance(data, SyntheticPhotos):
        people = (None, None) if model_file is None else (people_digest(model), model_file)
        return _synthetic_sets(data, landmarks, runtime, people, names, ranks)
    faces = load_prepared_faces(data, model) if isinstance(data, RecordedScans) else load_fitted_faces(data, model)
    if landmarks.source != "set":
        points = detect_set(faces.images, landmarks, runtime, ranks)
        faces = replace(faces, landmarks=points, convention=landmarks.own_convention)
    return {"train": _with_landmarks(faces)}


def _synthetic_sets(
    data: SyntheticPhotos,
    landmarks: LandmarkSourceSpec,
    runtime: RuntimeSpec,
    people: tuple[str | None, Path | None],
    names: Sequence[str],
    ranks: Ranks,
) -> dict[str, FaceSet]:
    """Sets that have subjects; rendered if they are not there yet. `people` are the hash and file of their model."""
    digest, file = people
    if digest is not None and landmarks.source == "noise" and ranks.is_first:
        _log.warning(
            "landmarks=noise draws the errors that a detector makes on the default face; on another model it finds "
            "landmarks elsewhere. Train with landmarks=mediapipe, which detects on the pictures, if it is used later"
        )
    sizes: dict[str, tuple[int, int]] = {
        "train": (data.train_subjects, data.train_images),
        "test": (data.test_subjects, data.test_images),
        "shifted": (data.shifted_subjects, data.shifted_images),
    }
    sets: dict[str, FaceSet] = {}
    for family, (subjects, images) in sizes.items():
        if family not in names or not subjects or not images:
            continue
        spec = SyntheticSpec(subjects=subjects, images_per_subject=images, seed=data.seed, family=family, model=digest)
        folder = synthetic_folder(spec, data.root)
        rendered: SyntheticSet | None = None
        if ranks.is_first:
            if data.root is None:
                require_writable(folder.parent)
            rendered = render_set(spec, folder, model=file, workers=runtime.workers, progress=runtime.progress)
        ranks.share(None)  # nobody reads before all is written
        sets[family] = _face_set(rendered or load_set(folder), folder, landmarks, runtime, ranks)
    return sets


def _face_set(
    rendered: SyntheticSet, folder: Path, source: LandmarkSourceSpec, runtime: RuntimeSpec, ranks: Ranks
) -> FaceSet:
    if source.source == "truth":
        points = rendered.landmarks
    elif source.source == "noise":
        # the set's own hash: the same landmarks in every run, others in every set
        generator = torch.Generator().manual_seed(int(rendered.spec.hash, 16) % 2**62 + runtime.seed)
        table = load_noise_table(noise_file(source.own_convention))
        errors = sample_landmark_noise(rendered.angles, rendered.camera.scale, table, generator)
        points = rendered.landmarks + errors
    else:
        points = detect_rendered(rendered, folder, source, runtime, ranks)
    return _with_landmarks(
        FaceSet(
            name=rendered.spec.family,
            images=rendered.images,
            subjects=rendered.subjects,
            landmarks=points,
            meshes=rendered.vertices,
            parameters=rendered.parameters,
            convention=source.own_convention,
        )
    )


def _with_landmarks(faces: FaceSet) -> FaceSet:
    """The samples that have landmarks, at least the inner ones. Raises ValueError where none has."""
    rows = torch.nonzero(torch.isfinite(faces.landmarks[:, :N_INNER]).flatten(1).all(1)).flatten()
    if not len(rows):
        raise ValueError(f"{faces.name}: no landmarks in any of {len(faces)} images; is landmarks.source right?")
    if len(rows) == len(faces):
        return faces
    _log.info("%s: landmarks in %d of %d images; the others are left out", faces.name, len(rows), len(faces))
    return faces[rows]
