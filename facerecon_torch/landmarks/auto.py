"""`auto`: face_alignment if its weights are there, else dlib; said once."""

import importlib.util
import logging
from functools import lru_cache

import torch

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.dlib_detector import DlibDetector
from facerecon_torch.landmarks.face_alignment_detector import FaceAlignmentDetector, missing_weights

__all__ = ["choose_detector"]

_log = logging.getLogger(__name__)


def choose_detector(*, device: str | torch.device = "cpu") -> LandmarkDetector:
    """The better detector that can run without a download. `device` is for face_alignment; dlib runs on the
    CPU.

    Raises DetectorError naming what each of the two lacks.
    """
    missing = missing_weights()
    if importlib.util.find_spec("face_alignment") is not None and not missing:
        _say("detector auto: face_alignment, its weights are there")
        return FaceAlignmentDetector(device=device, download=False)
    lacking = f"weights {', '.join(str(f) for f in missing)} are missing" if missing else "it is not installed"
    try:
        detector = DlibDetector()
    except DetectorError as error:
        raise DetectorError(
            f"detector auto: expected face_alignment or dlib; face_alignment: {lacking} "
            f"(detector=face_alignment fetches them); {error}"
        ) from error
    _say(f"detector auto: dlib, because face_alignment cannot run: {lacking}")
    return detector


@lru_cache(maxsize=2)
def _say(message: str) -> None:
    _log.warning(message)
