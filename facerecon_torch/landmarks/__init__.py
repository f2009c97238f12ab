"""Face landmarks: the schemes, the detectors behind one protocol, and landmark files."""

from facerecon_torch.landmarks.detector import LandmarkDetector, choose_faces
from facerecon_torch.landmarks.registry import DETECTORS, build_detector
from facerecon_torch.landmarks.scheme import (
    GROUPS_66,
    GROUPS_68,
    IBUG_OF_PAPER,
    MIRROR_66,
    MIRROR_68,
    NAMES_66,
    NAMES_68,
    from_paper66,
    interocular,
    interpupillary,
    is_present,
    mirror_points,
    to_paper66,
)

__all__ = [
    "DETECTORS",
    "GROUPS_66",
    "GROUPS_68",
    "IBUG_OF_PAPER",
    "LandmarkDetector",
    "MIRROR_66",
    "MIRROR_68",
    "NAMES_66",
    "NAMES_68",
    "build_detector",
    "choose_faces",
    "from_paper66",
    "interocular",
    "interpupillary",
    "is_present",
    "mirror_points",
    "to_paper66",
]
