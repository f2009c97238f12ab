"""The face model that a run asks for."""

from dataclasses import dataclass

from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.io import load_model

__all__ = ["ModelSpec", "load_face_model"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which face model: the free default face, or a native model file."""

    path: str | None = None  # None: the default face that the package carries


def load_face_model(spec: ModelSpec) -> FaceModel:
    """The default face, or a native model file."""
    return load_default_face() if spec.path is None else load_model(spec.path)
