"""Exceptions that name a file or key, what was required and what came."""

__all__ = [
    "DataFileError",
    "DetectorError",
    "FaceReconError",
    "FolderError",
    "ImageFileError",
    "LandmarkFileError",
    "MissingExtraError",
    "ModelFileError",
    "NoFaceError",
    "TimeLimitError",
]


class FaceReconError(Exception):
    """Base of every error that a user's input or installation can cause."""


class ImageFileError(FaceReconError, ValueError):
    """An image file is missing, damaged, or not an image."""


class LandmarkFileError(FaceReconError, ValueError):
    """A landmark file has the wrong count, a non-finite point or an unknown layout."""


class DataFileError(FaceReconError, ValueError):
    """A file of a data set is missing, damaged, or not in its layout."""


class ModelFileError(FaceReconError, ValueError):
    """A model or cascade file has the wrong version, shape, dtype or hash."""


class FolderError(FaceReconError, OSError):
    """A folder that the package needs cannot be written."""


class DetectorError(FaceReconError, RuntimeError):
    """A landmark detector cannot run: its extra or its weights are missing."""


class NoFaceError(FaceReconError, ValueError):
    """No face was found where one was required."""


class MissingExtraError(FaceReconError, ImportError):
    """A package of an optional extra is not installed.

    Example:
        >>> MissingExtraError("charts", "matplotlib", "report")
        MissingExtraError("charts need matplotlib; install it by pip install 'facerecon-torch[report]'")
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} need {package}; install it by pip install 'facerecon-torch[{extra}]'")


class TimeLimitError(FaceReconError, TimeoutError):
    """The work on one image took longer than it may."""
