"""`auto`: face_alignment if its weights are there, else dlib; said once."""

import logging
from functools import lru_cache

import torch

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.dlib_detector import DlibDetector
from facerecon_torch.landmarks.face_alignment_detector import FaceAlignmentDetector, usable_device

__all__ = ["choose_detector"]

_log = logging.getLogger(__name__)


def choose_detector(*, device: str | torch.device = "cpu") -> LandmarkDetector:
    """face_alignment if it can run without a download, else dlib. `device` is for the former.

    Raises DetectorError naming what each of the two lacks, or the device that is not there.
    """
    usable = usable_device(device)
    try:
        better = FaceAlignmentDetector(device=usable, download=False)
    except DetectorError as error:
        lacking = error
    else:
        _say("detector auto: face_alignment, whose weights are there")
        return better
    try:
        detector = DlibDetector()
    except DetectorError as error:
        raise DetectorError(
            f"detector auto: expected face_alignment or dlib to be installed; came neither. {lacking}. {error}"
        ) from error
    _say(f"detector auto: dlib, because face_alignment cannot run ({lacking})")
    return detector


@lru_cache(maxsize=2)
def _say(message: str) -> None:
    _log.warning(message)
