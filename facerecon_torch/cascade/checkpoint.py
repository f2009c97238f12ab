"""A trained cascade on disk: one safetensors file with a JSON document in its header.

The document names format, version, the hash of the face model that the parameters belong to, and the specs of fit, crop
and features; the tensors are the stages. The face model is not in the file: its hash must match.
"""

import importlib.resources
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facerecon_torch.checks import require_file
from facerecon_torch.errors import ModelFileError
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.files import replacing
from facerecon_torch.fitting.contour import ContourSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.formats.json_file import parse_json
from facerecon_torch.landmarks.scheme import CONVENTIONS, check_convention
from facerecon_torch.model.expression_error import ExpressionError
from facerecon_torch.regression.cascade import Cascade
from facerecon_torch.regression.io import cascade_from_tensors, cascade_meta, cascade_to_tensors

__all__ = [
    "FORMAT",
    "VERSION",
    "Checkpoint",
    "ReconstructorSpec",
    "load_checkpoint",
    "pretrained_path",
    "save_checkpoint",
]

FORMAT = "facerecon-cascade"
VERSION = 2
_KEY = "facerecon"
_ERROR = "expression_error."  # prefix of its tensors
_SPECS = {"fit", "crop_fit", "crop", "features", "start", "convention"}
_KEYS = _SPECS | {"format", "version", "model_sha256", "stages", "training"}
STARTS = ("landmark_fit", "mean_face")


@dataclass(frozen=True, kw_only=True)
class ReconstructorSpec:
    """Settings by which a cascade looks at an image.

    Attributes:
        fit: the landmark fit (Eq. 7) that the cascade starts from and solves its cameras with.
        crop: size and density of the canonical crops.
        features: HOG and landmark displacements of a stage.
        start: first parameters, those of the landmark fit or the mean face.
        crop_fit: the landmark fit that crops follow, in training and afterwards.
        convention: of the landmarks that it was trained for, one of `landmarks.scheme.CONVENTIONS`.
    """

    fit: FitSpec = field(default_factory=FitSpec)
    crop: CropSpec = field(default_factory=CropSpec)
    features: JointSpec = field(default_factory=JointSpec)
    start: str = "landmark_fit"
    crop_fit: FitSpec = field(default_factory=FitSpec)
    convention: str = CONVENTIONS[0]

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start must be {' or '.join(STARTS)}; got {self.start!r}")
        check_convention(self.convention)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a cascade's file.

    `training` tells people what it was trained on; `expression_error` is that of its estimates of beta, None for a
    cascade that was not cross-fitted.
    """

    cascade: Cascade
    spec: ReconstructorSpec
    model_sha256: str
    training: dict[str, Any] = field(default_factory=dict)
    expression_error: ExpressionError | None = None


def pretrained_path(convention: str = CONVENTIONS[0]) -> Path:
    """The cascade that the package ships for landmarks of a convention. Raises ValueError for a name that is none."""
    check_convention(convention)
    folder = Path(str(importlib.resources.files("facerecon_torch"))) / "assets" / "pretrained" / convention
    return folder / "cascade.safetensors"


def save_checkpoint(checkpoint: Checkpoint, path: str | Path, *, half: bool = False) -> None:
    """Write a checkpoint aside and rename it; `half` stores the weights in float16."""
    path, spec = Path(path), checkpoint.spec
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model_sha256": checkpoint.model_sha256,
        "fit": asdict(spec.fit),
        "crop_fit": asdict(spec.crop_fit),
        "crop": asdict(spec.crop),
        "features": asdict(spec.features),
        "start": spec.start,
        "convention": spec.convention,
        "stages": cascade_meta(checkpoint.cascade),
        "training": checkpoint.training,
    }
    tensors = cascade_to_tensors(checkpoint.cascade, torch.float16 if half else None)
    if checkpoint.expression_error is not None:
        tensors |= {_ERROR + f.name: getattr(checkpoint.expression_error, f.name) for f in fields(ExpressionError)}
    stored = {k: v.cpu().contiguous() for k, v in tensors.items()}
    try:
        with replacing(path) as part:
            save_file(stored, str(part), metadata={_KEY: json.dumps(document)})
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in a file, on the CPU in float32.

    Raises:
        FileNotFoundError: no file is there.
        ModelFileError: naming file, key, what was expected and what came, for anything else that is wrong.
    """
    path = Path(path)
    require_file("cascade", path)
    document, tensors = _read(path)
    try:
        return _build(document, tensors)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def _build(document: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    features = dict(document["features"])
    spec = ReconstructorSpec(
        fit=_fit_spec(document["fit"]),
        crop=CropSpec(**document["crop"]),
        features=JointSpec(**{**features, "hog": HogSpec(**features["hog"])}),
        start=document["start"],
        crop_fit=_fit_spec(document["crop_fit"]),
        convention=document["convention"],
    )
    for key, kind in (("model_sha256", str), ("training", dict)):
        if not isinstance(document[key], kind):
            raise TypeError(f"metadata {key!r}: expected {kind.__name__}; got {document[key]!r}")
    cascade = cascade_from_tensors(tensors, document["stages"])
    for k, stage in enumerate(cascade.stages):
        if stage.block_sizes != spec.features.block_sizes:
            raise ValueError(f"stage {k}: expected feature blocks {spec.features.block_sizes}; got {stage.block_sizes}")
    return Checkpoint(
        cascade=cascade, spec=spec, model_sha256=document["model_sha256"], training=document["training"],
        expression_error=_expression_error(tensors),
    )  # fmt: skip


def _expression_error(tensors: dict[str, Tensor]) -> ExpressionError | None:
    shapes = {f.name: 0 if f.name == "penalty" else 1 if f.name == "offset" else 2 for f in fields(ExpressionError)}
    found = {name: tensors[_ERROR + name] for name in shapes if _ERROR + name in tensors}
    if not found:
        return None
    if missing := sorted(set(shapes) - set(found)):
        raise ValueError(f"{_ERROR}*: expected {', '.join(shapes)}; {', '.join(missing)} missing")
    size = found["offset"].numel()
    for name, value in found.items():
        expected = (size,) * shapes[name]
        if tuple(value.shape) != expected or not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise ValueError(f"{_ERROR}{name}: expected finite {list(expected)}; got {value.dtype} {list(value.shape)}")
    return ExpressionError(**{name: value.double() for name, value in found.items()})


def _fit_spec(content: dict[str, Any]) -> FitSpec:
    # The number of faces that are solved together depends on this machine, not on the one that trained.
    return FitSpec(**{**content, "marching": ContourSpec(**content["marching"]), "chunk": None})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            document = _document(path, (file.metadata() or {}).get(_KEY))
            return document, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(f"{path}: expected a complete safetensors file; {error}") from error


def _document(path: Path, text: str | None) -> dict[str, Any]:
    document = parse_json(text or "", f"{path}: metadata {_KEY!r}", ModelFileError)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, dict) else document
        raise ModelFileError(f"{path}: format: expected {FORMAT!r}; got {got!r}")
    if document.get("version") != VERSION:
        raise ModelFileError(f"{path}: version: expected {VERSION}; got {document.get('version')}")
    if set(document) != _KEYS:
        raise ModelFileError(f"{path}: metadata keys: expected {sorted(_KEYS)}; got {sorted(document)}")
    return document
