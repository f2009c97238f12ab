"""Exceptions that name a file or key, what was required and what came."""

__all__ = [
    "DataFileError",
    "DetectorError",
    "FaceReconError",
    "ImageFileError",
    "LandmarkFileError",
    "ModelFileError",
    "NoFaceError",
]


class FaceReconError(Exception):
    """Base of every error that a user's input or installation can cause."""


class ImageFileError(FaceReconError, ValueError):
    """An image file is missing, damaged, or not an image."""


class LandmarkFileError(FaceReconError, ValueError):
    """A landmark file has the wrong count, a non-finite point or an unknown layout."""


class ModelFileError(FaceReconError, ValueError):
    """A model or cascade file has the wrong version, shape, dtype or hash."""


class DataFileError(FaceReconError, ValueError):
    """A file of a data set does not have the layout it should have."""


class DetectorError(FaceReconError, RuntimeError):
    """A landmark detector cannot run: its extra or its weights are missing."""


class NoFaceError(FaceReconError, ValueError):
    """No face was found where one was required."""
