"""What the results of an image were made from, and the faces of an earlier run that a new one may take over."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.own_files import read_document
from facerecon_torch.export.parameters import JSON_VERSION, FittedFaces, face_in_document
from facerecon_torch.formats.face_document import FACE_FORMAT
from facerecon_torch.landmarks.detector import LandmarkDetector

__all__ = ["Origin", "read_faces", "settings_digest"]

_NOT_SETTINGS = {"device", "source"}  # of detectors: they change no answer, or are part of the picture's own origin


@dataclass(frozen=True)
class Origin:
    """What the results of one image were made from.

    Attributes:
        settings: digest of cascade, face model, detector and options.
        image: SHA-256 of the image file.
        landmarks: digest of its landmark file; None where a detector found them.
    """

    settings: str
    image: str
    landmarks: str | None


def settings_digest(reconstructor: FaceReconstructor, detector: LandmarkDetector, options: InferOptions) -> str:
    """SHA-256 in hex of everything but the input that the results of a run depend on."""
    digest = hashlib.sha256()
    for name, value in sorted(reconstructor.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    own = {k: v for k, v in vars(detector).items() if not k.startswith("_") and k not in _NOT_SETTINGS}
    settings = {
        "version": JSON_VERSION,
        "model": reconstructor.face_model.sha256,
        "spec": asdict(reconstructor.spec),
        "dtype": str(reconstructor.dtype),
        "detector": [detector.name, sorted((name, str(value)) for name, value in own.items())],
        "options": {name: getattr(options, name) for name in ("faces", "decode")},
        "formats": sorted(options.formats),
        "size": asdict(options.size),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def read_faces(
    first: Path, later: Sequence[Path], origin: Origin, expression_names: tuple[str, ...]
) -> FittedFaces | None:
    """The faces of an image in their order, if their files are whole and of the same origin; otherwise None.

    Args:
        first: file of the first face, which tells how many there are.
        later: files of the faces after it, as many as there may be.
        origin: of the run that asks.
        expression_names: those of its face model.
    """
    faces: list[FittedFaces] = []
    try:
        count = read_document(first)["faces"]
        for k, path in enumerate([first, *later[: count - 1]]):
            document = read_document(path)
            marks = [document.get(name) for name in ("format", "version", "made_from", "faces", "face")]
            names = tuple(document["expression_weights"])
            if marks != [FACE_FORMAT, JSON_VERSION, asdict(origin), count, k] or names != expression_names:
                return None
            faces.append(face_in_document(document))
    except Exception:  # a foreign or cut file is no record
        return None
    return FittedFaces.stack(faces) if len(faces) == count else None
