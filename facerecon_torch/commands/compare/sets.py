"""The truth of a comparison: a data set's photographs with their meshes, or a folder of scans."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.commands.compare.specs import CompareSpecs
from facerecon_torch.commands.train.sets import load_sets
from facerecon_torch.data.aflw import read_fitted_photo
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.specs import RecordedScans, SyntheticPhotos
from facerecon_torch.external.truth import Truth, evenly_spread, read_scans, some_of, truth_of_set
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.detector import LandmarkDetector, choose_faces
from facerecon_torch.landmarks.scheme import from_paper66, to_paper66
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.synthetic.dataset import load_set

__all__ = ["load_training_faces", "load_truth"]

_log = logging.getLogger(__name__)


def load_truth(
    specs: CompareSpecs, model: FaceModel, landmarks: LandmarkSourceSpec, detector: LandmarkDetector | None
) -> Truth:
    """The images, landmarks and true surfaces of a comparison, at most `specs.images` of them.

    Args:
        specs: of the run.
        model: the face model.
        landmarks: their source, settled.
        detector: finds the landmarks, unless they are the data set's own or there are no photographs.
    """
    generator = torch.Generator().manual_seed(specs.runtime.seed)
    if specs.truth is not None:
        truth = read_scans(specs.truth, points=specs.points, generator=generator)
        truth = some_of(truth, evenly_spread(len(truth), specs.images))
    else:
        own = "truth" if isinstance(specs.data, SyntheticPhotos) else "set"
        source = landmarks if detector is None else LandmarkSourceSpec(source=own)
        truth = _data_truth(specs, model, source, generator)
        if landmarks.source in ("set", "truth") and truth.points68 is not None:
            _log.warning("landmarks=%s gives methods the true points: no landmark error is measured", landmarks.source)
            truth = replace(truth, points68=None)
    return truth if detector is None else _with_landmarks(truth, detector)


def _data_truth(specs: CompareSpecs, model: FaceModel, source: LandmarkSourceSpec, generator: torch.Generator) -> Truth:
    file = None if specs.model.path is None else Path(specs.model.path)
    names = ("test",) if isinstance(specs.data, SyntheticPhotos) else ("train",)
    (faces,) = load_sets(specs.data, source, specs.runtime, model, model_file=file, names=names).values()
    faces = faces[torch.tensor(evenly_spread(len(faces), specs.images))]
    points, yaw = _known_landmarks(specs, faces)
    truth = truth_of_set(faces, model, points=specs.points, generator=generator)
    return replace(truth, points68=points, yaw_degrees=yaw)


def load_training_faces(specs: CompareSpecs, model: FaceModel, landmarks: LandmarkSourceSpec, images: int) -> FaceSet:
    """Images of training people of the synthetic set, evenly spread. Raises ValueError for other data."""
    if not isinstance(specs.data, SyntheticPhotos):
        raise ValueError("eos.tune needs training people, which data=synthetic alone has")
    file = None if specs.model.path is None else Path(specs.model.path)
    subjects = min(images, specs.data.train_subjects)
    data = replace(specs.data, train_subjects=max(2, subjects), train_images=max(1, images // max(2, subjects)))
    return load_sets(data, landmarks, specs.runtime, model, model_file=file, names=("train",))["train"]


def _known_landmarks(specs: CompareSpecs, faces: FaceSet) -> tuple[Tensor | None, Tensor | None]:
    """The true 68 points in px and the yaw in degrees, where the data set has them."""
    if isinstance(specs.data, SyntheticPhotos):
        rendered = load_set(faces.images[0].parents[1])
        place = {path: k for k, path in enumerate(rendered.images)}
        rows = [place[path] for path in faces.images]
        return from_paper66(rendered.landmarks[rows]), torch.rad2deg(rendered.angles[rows, 0])
    if isinstance(specs.data, RecordedScans):
        return None, None
    kind: Literal["w300lp", "aflw2000"] = "w300lp" if specs.data.name == "w300lp" else "aflw2000"
    photos = [read_fitted_photo(path.with_suffix(".mat"), kind) for path in faces.images]
    yaw = torch.stack([torch.rad2deg(photo.pose[1]) for photo in photos])
    return torch.stack([photo.points for photo in photos]), yaw


def _with_landmarks(truth: Truth, detector: LandmarkDetector) -> Truth:
    """The scans whose photograph shows a face, with its landmarks."""
    points: list[Float[Tensor, "66 2"] | None] = []
    for path in truth.images:
        found = [] if path is None else detector.detect([read_pixels(path)], paths=[path])[0]
        points.append(to_paper66(choose_faces(found, "largest")[0].points[None])[0].float() if found else None)
    places = [k for k, point in enumerate(points) if point is not None]
    if len(places) < len(truth):
        _log.info("%s: landmarks in %d of %d photographs; the others are left out", truth.name, len(places), len(truth))
    if not places:
        raise ValueError(f"{truth.name}: no landmarks in any of {len(truth)} photographs")
    kept = some_of(truth, places)
    return replace(kept, landmarks=torch.stack([p for p in points if p is not None]))
