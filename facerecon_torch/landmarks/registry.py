"""Landmark detectors by name: the one place that a new detector is entered."""

import importlib
import inspect
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import FREE, LandmarkDetector
from facerecon_torch.landmarks.scheme import CONVENTIONS

__all__ = [
    "DETECTORS",
    "build_detector",
    "detector_options",
    "find_convention",
    "find_detector",
    "require_convention",
]

_log = logging.getLogger(__name__)

# name -> (module of this folder, class or function that builds it)
DETECTORS = {
    "auto": ("auto", "choose_detector"),
    "mediapipe": ("mediapipe_detector", "MediapipeDetector"),
    "face_alignment": ("face_alignment_detector", "FaceAlignmentDetector"),
    "dlib": ("dlib_detector", "DlibDetector"),
    "file": ("file_landmarks", "FileLandmarks"),
}


def find_detector(name: str) -> Callable[..., LandmarkDetector]:
    """The class or function that builds the detector `name`; its package and weights may still be missing.

    Raises:
        ValueError: no detector has that name.
    """
    if name not in DETECTORS:
        raise ValueError(f"detector must be one of {', '.join(DETECTORS)}; got {name!r}")
    module, attribute = DETECTORS[name]
    builder: Callable[..., LandmarkDetector] = getattr(
        importlib.import_module(f"facerecon_torch.landmarks.{module}"), attribute
    )
    return builder


def find_convention(detector: str | LandmarkDetector) -> str:
    """The convention of the points of a detector, one of `scheme.CONVENTIONS`; of `auto` the first, of `file` iBUG's.

    Raises ValueError: no detector has that name.
    """
    if not isinstance(detector, str):
        return detector.convention
    if detector == "auto":
        return CONVENTIONS[0]
    convention: str = find_detector(detector).convention  # type: ignore[attr-defined]
    return convention


def require_convention(detector: LandmarkDetector, convention: str) -> None:
    """Raise DetectorError unless the detector's points mean what a cascade was trained for."""
    if detector.convention != convention:
        fitting = [name for name in DETECTORS if name not in ("auto", "file") and find_convention(name) == convention]
        raise DetectorError(
            f"detector {detector.name} finds {detector.convention} landmarks; this cascade was trained for "
            f"{convention} ones. Take another detector ({', '.join(fitting)}; files with "
            f"landmarks.convention={convention}), or the cascade for {detector.convention} landmarks: the package "
            "ships one of each"
        )


def detector_options(name: str) -> list[str]:
    """The names of the options that the detector `name` takes."""
    return list(inspect.signature(find_detector(name)).parameters)


def build_detector(name: str, **options: Any) -> LandmarkDetector:
    """The detector `name`, ready to be sent to other processes: nothing heavy is loaded before the first image.

    Args:
        name: a key of `DETECTORS`.
        options: those of the detector's constructor (`detector_options`).

    Returns:
        The detector. Its licence is logged once per process.

    Raises:
        ValueError: unknown name.
        TypeError: unknown option.
        DetectorError: an extra or a weight file is missing.

    Example:
        >>> detector = build_detector("dlib", min_score=0.2)
    """
    accepted = detector_options(name)
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise TypeError(f"detector {name!r} has the options {', '.join(accepted)}; got {', '.join(unknown)}")
    detector = find_detector(name)(**options)
    log_licence(detector.name, detector.licence)
    return detector


@lru_cache(maxsize=len(DETECTORS))
def log_licence(name: str, licence: str) -> None:
    """Log the licence of a detector once per process, as a warning unless it begins with `FREE`."""
    level = logging.INFO if licence.startswith(FREE) else logging.WARNING
    _log.log(level, "landmark detector %s: %s", name, licence)
