"""`auto`: mediapipe; for cascades of iBUG landmarks face_alignment if its weights are there, else dlib; said once."""

import logging
from functools import lru_cache
from typing import Any

import torch

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.dlib_detector import DlibDetector
from facerecon_torch.landmarks.face_alignment_detector import FaceAlignmentDetector, usable_device
from facerecon_torch.landmarks.mediapipe_detector import MediapipeDetector

__all__ = ["choose_detector"]

_log = logging.getLogger(__name__)


def choose_detector(
    *,
    device: str | torch.device = "cpu",
    convention: str = "mediapipe",
    tiles: str | None = None,
    min_score: float | None = None,
    min_face: float = 0.0,
    max_faces: int | None = None,
) -> LandmarkDetector:
    """mediapipe; of convention `ibug` face_alignment if it can run without a download, else dlib. `min_score` is a
    score of the one that is chosen, None its own bound; `tiles` is mediapipe's.

    Raises DetectorError naming what each of the two lacks, or the device that is not there; ValueError for an option
    that one of them refuses.
    """
    options: dict[str, Any] = {"min_face": min_face, "max_faces": max_faces}
    if min_score is not None:
        options["min_score"] = min_score
    if convention == MediapipeDetector.convention:
        return MediapipeDetector(device=device, **options | ({} if tiles is None else {"tiles": tiles}))
    if tiles is not None:
        raise ValueError(f"tiles is for mediapipe; auto of convention {convention} is another detector")
    usable = usable_device(device)
    try:
        better = FaceAlignmentDetector(device=usable, download=False, **options)
    except DetectorError as error:
        lacking = error
    else:
        _say("detector auto: face_alignment, whose weights are there")
        return better
    try:
        detector = DlibDetector(**options)
    except DetectorError as error:
        raise DetectorError(
            "detector auto: expected face_alignment or dlib, whose landmarks this cascade was trained for, to be "
            f"installed; got neither. {lacking}. {error}"
        ) from error
    _say(f"detector auto: dlib, because face_alignment cannot run ({lacking})")
    return detector


@lru_cache(maxsize=2)
def _say(message: str) -> None:
    _log.warning(message)
