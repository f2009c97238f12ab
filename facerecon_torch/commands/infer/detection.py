"""The faces of decoded inputs: found by the detector, or at the landmarks or the box of a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from facerecon_torch.cascade.reconstruction import extent
from facerecon_torch.commands.infer.inputs.entry import Entry
from facerecon_torch.errors import DetectorError, NoFaceError
from facerecon_torch.images.loader import LoadedImage, LoadError
from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.batches import detect_faces
from facerecon_torch.landmarks.detector import Box, LandmarkDetector, box_area, choose_faces
from facerecon_torch.landmarks.point_files import as_faces
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Detection

__all__ = ["Failure", "FoundImage", "Loaded", "search"]

_LEAST_OVERLAP = 0.2  # of a detection with the box of a manifest: intersection over union
Failure: TypeAlias = tuple[Entry, str, Exception]
"""An entry with the stage and the error at which it ended."""
Loaded: TypeAlias = tuple[Entry, LoadedImage | LoadError]
"""An entry with its image, or why there is none."""


@dataclass(frozen=True)
class FoundImage:
    """A decoded image with the faces that were chosen in it, and digests of its file and its landmark file."""

    entry: Entry
    pixels: Pixels
    faces: list[Detection]
    digest: str | None
    landmarks: str | None

    def __len__(self) -> int:
        return len(self.faces)


def search(detector: LandmarkDetector, which: str, held: Sequence[Loaded]) -> list[FoundImage | Failure]:
    """Every image with its faces, or the entry with the stage and the error at which it ended.

    Args:
        detector: searches the images that bring no landmarks.
        which: `all` faces of an image, or the `largest`.
        held: images.

    Raises:
        DetectorError: the detector cannot run.
    """
    unknown = [(e, i) for e, i in held if not isinstance(i, LoadError) and e.points is None]
    with timed("detect"):
        pixels, paths = [image.pixels for _, image in unknown], [entry.place for entry, _ in unknown]
        found = iter(detect_faces(detector, pixels, paths) if unknown else [])
    answers = list[FoundImage | Failure]()
    for entry, image in held:
        if isinstance(image, LoadError):
            answers.append((entry, image.stage, image.cause))
            continue
        try:
            faces = next(found) if entry.points is None else _given(entry, image.pixels, detector.convention)
            if isinstance(faces, Exception):
                raise faces
            answers.append(_chosen(detector, entry, image, faces, which))
        except DetectorError:
            raise
        except Exception as error:  # of this image alone: the others go on
            answers.append((entry, "detect", error))
    return answers


def _given(entry: Entry, pixels: Pixels, convention: str) -> list[Detection]:
    """The face at the landmarks of a manifest."""
    points = np.array(entry.points, dtype=np.float64)
    points = points[: len(points) // 2 * 2].reshape(-1, 2)
    height, width = pixels.shape[-2:]
    faces = as_faces([points], f"{entry.place}, landmarks of the manifest", size=(width, height), convention=convention)
    return [Detection(box=_box(entry, face), score=1.0, points=face) for face in faces]


def _box(entry: Entry, points: torch.Tensor) -> Box:
    x0, y0, x1, y1 = entry.box if entry.box is not None else extent(points).tolist()
    return x0, y0, x1, y1


def _chosen(
    detector: LandmarkDetector, entry: Entry, image: LoadedImage, faces: Sequence[Detection], which: str
) -> FoundImage:
    if entry.box is not None and entry.points is None:
        faces = [_nearest(entry, entry.box, faces)]
    chosen = choose_faces(faces, which, source=entry.place)
    fingerprint = getattr(detector, "fingerprint", None)
    digest = None if fingerprint is None or entry.points is not None else fingerprint(entry.place)
    return FoundImage(entry, image.pixels, chosen, image.digest, digest)


def _nearest(entry: Entry, box: Box, faces: Sequence[Detection]) -> Detection:
    """The detection that overlaps the box of a manifest most. Raises NoFaceError where none does."""
    best = max(faces, key=lambda face: _overlap(face.box, box), default=None)
    if best is None or _overlap(best.box, box) < _LEAST_OVERLAP:
        raise NoFaceError(f"{entry.place}: expected a face in the box of the manifest; the detector found none there")
    return best


def _overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = first, second
    common = max(min(a1, c1) - max(a0, c0), 0.0) * max(min(b1, d1) - max(b0, d0), 0.0)
    areas = sum(box_area(Detection(box=b, score=0.0, points=torch.empty(68, 2))) for b in (first, second))
    return common / (areas - common) if areas > common else 0.0
