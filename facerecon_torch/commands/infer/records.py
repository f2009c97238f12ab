"""What an earlier run left: which files are results of this package, and the faces that a new run may take over."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.export.parameters import JSON_FORMAT, JSON_VERSION, FittedFaces, face_in_document
from facerecon_torch.landmarks.detector import LandmarkDetector

__all__ = ["FAILURES_FORMAT", "Origin", "is_own", "read_faces", "require_own", "settings_digest"]

FAILURES_FORMAT = "facerecon-failures"
_MARK = b"facerecon_torch"
_LARGEST = 64 * 10**6  # bytes of a record
_HEAD = 4096  # bytes of a mesh or picture in which its mark stands
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


def is_own(path: Path) -> bool:
    """Whether a file bears the mark of this package's results."""
    if not path.is_file():
        return False
    try:
        if path.suffix == ".json":
            return _document(path).get("format") in (JSON_FORMAT, FAILURES_FORMAT)
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return b"facerecon_format" in (pq.read_schema(path).metadata or {})
        with open(path, "rb") as file:
            return _MARK in file.read(_HEAD)
    except Exception:  # damage of any kind, in a file of anybody
        return False


def require_own(paths: Sequence[Path]) -> None:
    """Raise FileExistsError where one of `paths` exists and is not a result of this package."""
    for path in paths:
        if (path.exists() or path.is_symlink()) and not is_own(path):
            came = "a folder" if path.is_dir() else "a file that this program did not write"
            raise FileExistsError(f"{path}: expected a free name or an earlier result; came {came}")


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
        count = _document(first)["faces"]
        for k, path in enumerate([first, *later[: count - 1]]):
            document = _document(path)
            marks = [document.get(name) for name in ("format", "version", "made_from", "faces", "face")]
            names = tuple(document["expression_weights"])
            if marks != [JSON_FORMAT, JSON_VERSION, asdict(origin), count, k] or names != expression_names:
                return None
            faces.append(face_in_document(document))
    except Exception:  # a foreign or cut file is no record
        return None
    return FittedFaces.stack(faces) if len(faces) == count else None


def _document(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        return {}
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
