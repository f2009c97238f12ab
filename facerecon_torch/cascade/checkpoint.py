"""What a trained cascade is on disk: one safetensors file with a JSON document in its header.

The document names format, version, the hash of the face model that the parameters belong to, and the specs of fit, crop
and features; the tensors are the stages. A cascade never stores its face model: the hash must match.
"""

import importlib.resources
import json
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from facerecon_torch.cascade.picture_crops import PictureCropper
from facerecon_torch.cascade.start import retraction
from facerecon_torch.checks import require_file
from facerecon_torch.errors import ModelFileError
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.files import replacing
from facerecon_torch.fitting.contour import ContourSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.io import load_model
from facerecon_torch.regression.cascade import Cascade
from facerecon_torch.regression.io import cascade_from_tensors, cascade_meta, cascade_to_tensors

__all__ = ["FORMAT", "VERSION", "FaceCascade", "load_cascade", "pretrained_path", "save_cascade"]

FORMAT = "facerecon-cascade"
VERSION = 1
_KEY = "facerecon"
_SPECS = {"fit", "crop_fit", "crop", "features", "start"}
_KEYS = _SPECS | {"format", "version", "model_sha256", "stages", "training"}


@dataclass(frozen=True)
class FaceCascade:
    """A face model with a cascade trained for it, and how the cascade sees a picture."""

    model: FaceModel
    cascade: Cascade
    fit: FitSpec
    crop: CropSpec
    features: JointSpec
    start: str = "landmark_fit"  # landmark_fit | mean_face
    crop_fit: FitSpec = field(default_factory=FitSpec)  # the landmark fit that crops follow, in training and ever after
    training: dict[str, Any] = field(default_factory=dict)  # what it was trained on, for people

    @cached_property
    def fitter(self) -> LandmarkFitter:
        """The landmark fit that the cascade starts from and solves its cameras with."""
        return LandmarkFitter(self.model, self.fit)

    @cached_property
    def crop_fitter(self) -> LandmarkFitter:
        """The landmark fit that crops follow."""
        return LandmarkFitter(self.model, self.crop_fit)

    @cached_property
    def cropper(self) -> PictureCropper:
        """What cuts canonical crops for this cascade."""
        return PictureCropper(self.model, self.crop)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "FaceCascade":
        """The same on another device and in another dtype; this one stays as it is."""
        model = deepcopy(self.model).to(device, dtype)
        cascade = Cascade(self.cascade.to(device, dtype).stages, retraction(model))
        return replace(self, model=model, cascade=cascade)


def pretrained_path() -> Path:
    """The cascade that the package ships."""
    return Path(str(importlib.resources.files("facerecon_torch"))) / "assets" / "pretrained" / "cascade.safetensors"


def save_cascade(face: FaceCascade, path: str | Path, *, half: bool = False) -> None:
    """Write the cascade (not its face model) aside and rename it; `half` stores the weights in float16."""
    path = Path(path)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model_sha256": face.model.sha256,
        "fit": asdict(face.fit),
        "crop_fit": asdict(face.crop_fit),
        "crop": asdict(face.crop),
        "features": asdict(face.features),
        "start": face.start,
        "stages": cascade_meta(face.cascade),
        "training": face.training,
    }
    tensors = {k: v.cpu() for k, v in cascade_to_tensors(face.cascade, torch.float16 if half else None).items()}
    try:
        with replacing(path) as part:
            save_file(tensors, str(part), metadata={_KEY: json.dumps(document)})
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def load_cascade(path: str | Path | None = None, *, model: FaceModel | str | Path | None = None) -> FaceCascade:
    """Read a cascade (None: the one that the package ships) on the CPU in float32.

    `model` is the face model it was trained for, or its file; None: the default face. Raises FileNotFoundError for a
    missing file and ModelFileError, naming file, key, what was expected and what came, for anything else that is wrong,
    a cascade for another model included.
    """
    path = pretrained_path() if path is None else Path(path)
    require_file("cascade", path)
    document, tensors = _read(path)
    if model is None:
        face_model: FaceModel = load_default_face()
    else:
        face_model = model if isinstance(model, FaceModel) else load_model(model)
    if document["model_sha256"] != face_model.sha256:
        raise ModelFileError(
            f"{path}: model_sha256: this cascade was trained for another face model; expected the model with hash "
            f"{document['model_sha256'][:16]}..., got {face_model.sha256[:16]}..."
        )
    try:
        face = _build(document, tensors, face_model)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    return face


def _build(document: dict[str, Any], tensors: dict[str, torch.Tensor], model: FaceModel) -> FaceCascade:
    features = dict(document["features"])
    spec = JointSpec(**{**features, "hog": HogSpec(**features["hog"])})
    cascade = cascade_from_tensors(tensors, document["stages"], retract=retraction(model))
    targets = model.n_identity + model.n_expression
    for k, stage in enumerate(cascade.stages):
        if stage.block_sizes != spec.block_sizes:
            raise ValueError(f"stage {k}: expected feature blocks {spec.block_sizes}; got {stage.block_sizes}")
        if stage.ridge.weight.shape[1] != targets:
            raise ValueError(f"stage {k}: expected {targets} parameters; got {stage.ridge.weight.shape[1]}")
    if document["start"] not in ("landmark_fit", "mean_face"):
        raise ValueError(f"start: expected landmark_fit or mean_face; got {document['start']!r}")
    return FaceCascade(
        model,
        cascade,
        _fit_spec(document["fit"]),
        CropSpec(**document["crop"]),
        spec,
        start=document["start"],
        crop_fit=_fit_spec(document["crop_fit"]),
        training=document["training"],
    )


def _fit_spec(content: dict[str, Any]) -> FitSpec:
    # How many faces are solved together is this machine's affair, not that of the one that trained.
    return FitSpec(**{**content, "marching": ContourSpec(**content["marching"]), "chunk": None})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            document = _document(path, (file.metadata() or {}).get(_KEY))
            return document, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(f"{path}: expected a complete safetensors file; {error}") from error


def _document(path: Path, text: str | None) -> dict[str, Any]:
    try:
        document = json.loads(text or "")
    except json.JSONDecodeError as error:
        raise ModelFileError(f"{path}: metadata {_KEY!r}: expected a JSON document; got {text!r}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, dict) else document
        raise ModelFileError(f"{path}: format: expected {FORMAT!r}; got {got!r}")
    if document.get("version") != VERSION:
        raise ModelFileError(f"{path}: version: expected {VERSION}; got {document.get('version')}")
    if set(document) != _KEYS:
        raise ModelFileError(f"{path}: metadata keys: expected {sorted(_KEYS)}; got {sorted(document)}")
    return document
