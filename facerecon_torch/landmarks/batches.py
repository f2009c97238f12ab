"""Detection over a stream of pictures: batch by batch, with the errors of single pictures in their places."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from facerecon_torch.errors import DetectorError
from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Detection

__all__ = ["DETECTED_TOGETHER", "detect_faces", "detect_in_batches", "in_groups"]

DETECTED_TOGETHER = 16  # pictures, or fewer:
_BATCH_BYTES = 2**27  # of their pixels


@runtime_checkable
class _Picture(Protocol):
    @property
    def pixels(self) -> Pixels: ...


_P = TypeVar("_P", bound=_Picture)
_Key = TypeVar("_Key")
_Loaded = TypeVar("_Loaded", bound=_Picture | Exception)
_K = TypeVar("_K", Path, Path | None)


@in_own_precision
def detect_faces(
    detector: LandmarkDetector, images: Sequence[Tensor], paths: Sequence[Path | None] | None = None
) -> list[list[Detection] | Exception]:
    """The faces of each picture, or the error of this picture alone.

    Args:
        detector: is asked for all pictures at once and, where that fails, for the halves of them.
        images: as in `LandmarkDetector.detect`.
        paths: of the pictures.

    Raises:
        DetectorError: the detector cannot run, or does not answer for each picture.

    Example:
        >>> detect_faces(build_detector("dlib"), [image])
    """
    try:
        answers = list(detector.detect(images, paths=paths))
    except DetectorError:
        raise
    except Exception as error:
        if len(images) == 1:
            return [error]
        halves = (slice(0, len(images) // 2), slice(len(images) // 2, None))
        parts = [detect_faces(detector, images[k], None if paths is None else paths[k]) for k in halves]
        return [answer for part in parts for answer in part]
    if len(answers) != len(images):
        raise DetectorError(
            f"detector {detector.name}: expected the faces of {len(images)} images; got those of {len(answers)}"
        )
    return [*answers]


def detect_in_batches(
    detector: LandmarkDetector,
    loaded: Iterable[tuple[_K, _P | Exception]],
    *,
    together: int = DETECTED_TOGETHER,
) -> Iterator[tuple[_K, tuple[_P, list[Detection]] | Exception]]:
    """The path of every picture in order with (picture, faces), or with the error of reading or of detection.

    Args:
        detector: searches the pictures.
        loaded: path, and the picture with its pixels, or why it could not be read.
        together: pictures of a batch; fewer where their pixels would take too much memory.

    Raises:
        DetectorError: the detector cannot run.
    """
    for held in in_groups(loaded, together):
        yield from _detected(detector, held)


def in_groups(
    loaded: Iterable[tuple[_Key, _Loaded]], together: int, share: int = 1
) -> Iterator[list[tuple[_Key, _Loaded]]]:
    """Runs of pictures that are searched together.

    Args:
        loaded: a key of each picture, and the picture, or why it could not be read.
        together: pictures of a group; fewer where their pixels would take too much memory.
        share: groups that are held at once, which share the memory.
    """
    held, size = list[tuple[_Key, _Loaded]](), 0
    for key, picture in loaded:
        held.append((key, picture))
        size += 0 if isinstance(picture, Exception) else picture.pixels.nbytes
        if len(held) >= together or size >= _BATCH_BYTES // share:
            yield held
            held, size = [], 0
    if held:
        yield held


def _detected(
    detector: LandmarkDetector, held: Sequence[tuple[_K, _P | Exception]]
) -> Iterator[tuple[_K, tuple[_P, list[Detection]] | Exception]]:
    readable = [(path, picture) for path, picture in held if not isinstance(picture, Exception)]
    with timed("detect"):
        pixels, paths = [picture.pixels for _, picture in readable], [path for path, _ in readable]
        answers = iter(detect_faces(detector, pixels, paths) if readable else [])
    for path, picture in held:
        if isinstance(picture, Exception):
            yield path, picture
            continue
        faces = next(answers)
        yield path, faces if isinstance(faces, Exception) else (picture, faces)
