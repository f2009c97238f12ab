"""Records of the sources of a run's results, and of those of an image."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.export.face_table import FORMAT
from facerecon_torch.export.parameters import JSON_VERSION
from facerecon_torch.landmarks.detector import LandmarkDetector

__all__ = ["Origin", "settings_of"]

_NOT_SETTINGS = {"device", "source"}  # of detectors: they change no answer, or are part of the picture's own origin


@dataclass(frozen=True)
class Origin:
    """The sources of the results of one image.

    Attributes:
        settings: fingerprint of cascade, face model, detector and options.
        image: SHA-256 of the image file; None for a frame of a video.
        landmarks: digest of its landmark file; None where a detector found them.
    """

    settings: str
    image: str | None
    landmarks: str | None


def settings_of(
    reconstructor: FaceReconstructor, detector: LandmarkDetector, options: InferOptions, formats: Sequence[str]
) -> dict[str, str]:
    """Everything but the inputs that the results of a run depend on, as text by name; weights as their SHA-256."""
    weights = hashlib.sha256()
    for name, value in sorted(reconstructor.state_dict().items()):
        weights.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    own = {k: v for k, v in vars(detector).items() if not k.startswith("_") and k not in _NOT_SETTINGS}
    settings: dict[str, Any] = {
        "layout": [FORMAT, JSON_VERSION],
        "model": reconstructor.face_model.sha256,
        "cascade": weights.hexdigest(),
        "cascade.spec": asdict(reconstructor.spec),
        "dtype": str(reconstructor.dtype),
        "detector": [detector.name, sorted((name, str(value)) for name, value in own.items())],
        "formats": sorted(formats),
        "size": asdict(options.size),
        "mesh": asdict(options.mesh),
        "texture": asdict(options.texture),
    }
    settings |= {"faces": options.faces, "decode": options.decode, "max_megapixels": float(options.max_megapixels)}
    return {name: json.dumps(value, sort_keys=True, default=str) for name, value in settings.items()}
