"""The faces of images as they are found (pixels, 66 points, boxes, scores), and their reconstruction in batches."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction, extent
from facerecon_torch.errors import ImageFileError, LandmarkFileError, NoFaceError
from facerecon_torch.images.convert import as_pixels
from facerecon_torch.images.open import MAX_MEGAPIXELS
from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.batches import detect_in_batches
from facerecon_torch.landmarks.detector import LandmarkDetector, choose_faces
from facerecon_torch.landmarks.points import as_points66
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.structures import Detection

__all__ = ["FoundFaces", "faces_at_once", "find_faces", "in_batches", "solve_found", "warn_of_impossible"]

_log = logging.getLogger(__name__)
_BATCH_BYTES = 2**28  # of the pixels of a batch


def faces_at_once(device: torch.device) -> int:
    """The number of faces that are solved together by default."""
    return 256 if device.type == "cuda" else 32


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one image, px, missing points NaN; no pixels where the image could not be read."""

    pixels: Pixels | None
    points: Float[Tensor, "n 66 2"]
    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.points)


def find_faces(
    images: Sequence[object],
    landmarks: Sequence[Any] | None,
    which: str | int,
    detector: Callable[[], LandmarkDetector],
    *,
    skip_unreadable: bool,
    max_megapixels: float | int = MAX_MEGAPIXELS,
    convention: str | None = None,
) -> Iterator[FoundFaces]:
    """The faces of each image: at the given landmarks, or as `detector()` finds them.

    Args:
        images: in any form (`images.convert.as_pixels`).
        landmarks: per image the points of one face or of several (`landmarks.points.as_points66`); None: detect.
        which: `all`, `largest`, or a position among the detections.
        detector: gives the detector, which is asked for only where it is needed.
        max_megapixels: larger images are unreadable.
        convention: that given landmarks must have, as far as their layout shows it.
        skip_unreadable: log an image that cannot be read, or whose landmark file cannot, and give no faces for it,
            instead of raising ImageFileError or LandmarkFileError.
    """
    loaded = _loaded(images, max_megapixels)
    if not images:
        return
    if landmarks is not None:
        for given, (_, image) in zip(landmarks, loaded):
            if isinstance(image, Exception):
                yield _without_faces(image, skip_unreadable)
            else:
                points = as_points66(given, convention)
                points = points[None] if points.ndim == 2 else points
                yield FoundFaces(image.pixels, points, extent(points), torch.ones(len(points)))
        return
    for path, found in detect_in_batches(detector(), loaded):
        if isinstance(found, Exception):
            yield _without_faces(found, skip_unreadable)
        else:
            yield _chosen(found[0].pixels, path, found[1], which)


@dataclass(frozen=True)
class _Picture:
    pixels: Pixels


def _loaded(
    images: Sequence[object], max_megapixels: float | int
) -> Iterator[tuple[Path | None, _Picture | Exception]]:
    """The path, if there is one, and the pixels of each image, or why it cannot be read."""
    for image in images:
        path = Path(image) if isinstance(image, (str, Path)) else None
        try:
            yield path, _Picture(as_pixels(image, max_megapixels=max_megapixels))
        except ImageFileError as error:
            yield path, error


def _without_faces(error: Exception, skip_unreadable: bool) -> FoundFaces:
    """No faces for an image whose own file, or landmark file, cannot be read; every other error is raised."""
    if not skip_unreadable or not isinstance(error, (ImageFileError, LandmarkFileError)):
        raise error
    _log.error("%s", error)
    return _none(None)


def _chosen(pixels: Pixels, path: Path | None, faces: Sequence[Detection], which: str | int) -> FoundFaces:
    try:
        chosen = choose_faces(faces, which, source=path or "image")
    except NoFaceError as error:
        _log.info("%s", error)
        return _none(pixels)
    points = to_paper66(torch.stack([face.points for face in chosen]))
    boxes = torch.tensor([face.box for face in chosen], dtype=torch.float64)
    return FoundFaces(pixels, points, boxes, torch.tensor([face.score for face in chosen], dtype=torch.float64))


def _none(pixels: Pixels | None) -> FoundFaces:
    return FoundFaces(pixels, torch.zeros(0, 66, 2), torch.zeros(0, 4), torch.zeros(0))


@runtime_checkable
class _ImageWithFaces(Protocol):
    @property
    def pixels(self) -> Pixels | None: ...

    def __len__(self) -> int: ...


_Image = TypeVar("_Image", bound=_ImageWithFaces)


def in_batches(images: Iterable[_Image], limit: int, share: int = 1) -> Iterator[list[_Image]]:
    """Runs of images until their faces are `limit` or more, or their pixels fill the memory that a batch may take.

    Args:
        images: each with its pixels and, as its length, the number of its faces.
        limit: faces solved together.
        share: batches that are held at once, which share the memory.
    """
    held, faces, memory = list[_Image](), 0, 0
    for image in images:
        held.append(image)
        faces += len(image)
        memory += 0 if image.pixels is None else image.pixels.nbytes
        if faces >= limit or memory >= _BATCH_BYTES // share:
            yield held
            held, faces, memory = [], 0, 0
    if held:
        yield held


def solve_found(
    found: Sequence[FoundFaces],
    solve: Callable[[list[Pixels], Float[Tensor, "n 66 2"]], Reconstruction],
    limit: int,
    like: Tensor,
    keep_impossible: bool,
) -> list[Reconstruction]:
    """One batch of faces per image.

    Args:
        found: the faces of the images.
        solve: reconstructs one face per image.
        limit: faces solved together.
        like: gives the device and dtype.
        keep_impossible: keep faces that `Plausibility.impossible` marks.
    """
    images = [one.pixels for one in found for _ in range(len(one)) if one.pixels is not None]
    points, boxes, scores = (
        torch.cat([getattr(one, name).to(like.device, like.dtype) for one in found])
        for name in ("points", "boxes", "scores")
    )
    parts = [slice(k, k + limit) for k in range(0, max(len(images), 1), limit)]
    faces = Reconstruction.cat([solve(images[part], points[part]) for part in parts])
    faces, start, answers = replace(faces, boxes=boxes, scores=scores), 0, list[Reconstruction]()
    impossible = faces.plausibility.impossible
    for one in found:
        part = slice(start, start + len(one))
        answers.append(faces[part] if keep_impossible else faces[part][~impossible[part]])
        start += len(one)
    return answers


def warn_of_impossible(images: Sequence[Reconstruction]) -> None:
    """Log why faces at given landmarks cannot be faces; waits for the device once.

    Args:
        images: the faces of each image.
    """
    if not images:
        return
    impossible = torch.cat([faces.plausibility.impossible for faces in images])
    for k in torch.nonzero(impossible)[:, 0].tolist():
        image = 0
        while k >= len(images[image]):
            k, image = k - len(images[image]), image + 1
        _log.warning("image %d, face %d: %s", image, k, images[image][k].plausibility.reasons()[0])
