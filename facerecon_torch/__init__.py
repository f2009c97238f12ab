"""facerecon_torch: 3D faces with expression from single images.

    images -> landmarks -> fitting -> features -> regression -> parameters -> mesh -> metrics / export / report

on top of `model` and `geometry`; only `commands` sees the whole chain (docs/architecture.md). In four lines:

    from facerecon_torch import FaceReconstructor
    model = FaceReconstructor.from_pretrained()
    faces = model.predict("photo.jpg")[0]
    faces[0].vertices             # [3960, 3] in mm

Importing this package imports nothing heavy: each public name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facerecon_torch.cascade.cuda_graph import LatencySession
    from facerecon_torch.cascade.reconstruction import KnownSize, Reconstruction
    from facerecon_torch.cascade.reconstructor import FaceReconstructor
    from facerecon_torch.errors import (
        DataFileError,
        DetectorError,
        FaceReconError,
        ImageFileError,
        LandmarkFileError,
        ModelFileError,
        NoFaceError,
    )
    from facerecon_torch.model.default_face import load_default_face
    from facerecon_torch.model.io import load_model, save_model
    from facerecon_torch.structures import Camera, Detection, FaceParameters, Mesh

_HOME = {
    "Camera": "structures",
    "DataFileError": "errors",
    "Detection": "structures",
    "DetectorError": "errors",
    "FaceParameters": "structures",
    "FaceReconError": "errors",
    "FaceReconstructor": "cascade.reconstructor",
    "ImageFileError": "errors",
    "KnownSize": "cascade.reconstruction",
    "LandmarkFileError": "errors",
    "LatencySession": "cascade.cuda_graph",
    "Mesh": "structures",
    "ModelFileError": "errors",
    "NoFaceError": "errors",
    "Reconstruction": "cascade.reconstruction",
    "load_default_face": "model.default_face",
    "load_model": "model.io",
    "save_model": "model.io",
}

__all__ = [
    "Camera",
    "DataFileError",
    "Detection",
    "DetectorError",
    "FaceParameters",
    "FaceReconError",
    "FaceReconstructor",
    "ImageFileError",
    "KnownSize",
    "LandmarkFileError",
    "LatencySession",
    "Mesh",
    "ModelFileError",
    "NoFaceError",
    "Reconstruction",
    "__version__",
    "load_default_face",
    "load_model",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("facerecon-torch")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
