"""facerecon_torch: 3D faces with expression from single images.

    images -> landmarks -> fitting -> features -> regression -> parameters -> mesh -> metrics / export / report

on top of `model` and `geometry`; only `pipeline` sees the whole chain. In five lines:

    from facerecon_torch import load_cascade, reconstruct
    cascade = load_cascade()
    faces = reconstruct("photo.jpg", cascade)
    faces[0].mesh.vertices        # [4071, 3] in mm
    faces[0].expression_weights   # {"jawOpen": 0.31, ...}

Importing this package imports nothing heavy: each public name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facerecon_torch.cascade.checkpoint import FaceCascade, load_cascade, save_cascade
    from facerecon_torch.cascade.reconstruct import (
        KnownSize,
        ReconstructedFace,
        reconstruct,
        reconstruct_landmarks,
    )
    from facerecon_torch.model.default_face import load_default_face
    from facerecon_torch.model.io import load_model, save_model
    from facerecon_torch.structures import Camera, Detection, FaceParameters, Mesh

_HOME = {
    "Camera": "structures",
    "Detection": "structures",
    "FaceCascade": "cascade.checkpoint",
    "FaceParameters": "structures",
    "KnownSize": "cascade.reconstruct",
    "Mesh": "structures",
    "ReconstructedFace": "cascade.reconstruct",
    "load_cascade": "cascade.checkpoint",
    "load_default_face": "model.default_face",
    "load_model": "model.io",
    "reconstruct": "cascade.reconstruct",
    "reconstruct_landmarks": "cascade.reconstruct",
    "save_cascade": "cascade.checkpoint",
    "save_model": "model.io",
}

__all__ = [
    "Camera",
    "Detection",
    "FaceCascade",
    "FaceParameters",
    "KnownSize",
    "Mesh",
    "ReconstructedFace",
    "__version__",
    "load_cascade",
    "load_default_face",
    "load_model",
    "reconstruct",
    "reconstruct_landmarks",
    "save_cascade",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("facerecon-torch")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
