"""The face model that a run asks for."""

from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.native import load_model
from facerecon_torch.model.protocol import FaceModel
from facerecon_torch.pipeline.specs import ModelSpec

__all__ = ["load_face_model"]


def load_face_model(spec: ModelSpec) -> FaceModel:
    """The default face, or a native model file."""
    return load_default_face() if spec.path is None else load_model(spec.path)
