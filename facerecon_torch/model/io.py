"""The native model file: safetensors, with one JSON document in the header's metadata.

The file holds the factors that define the shapes (bilinear: core and rows; linear: mean, bases, priors, texture) and
the topology. The document holds format, version, kind, gauge, expression names and the SHA-256 of all tensors and of
the document itself, so that a damaged or edited file is refused. Version 2 adds topology.corner_uv, the texture
coordinates of a mesh with seams; files without it are of version 1. Large arrays may be stored as float16 (lossy),
float32 or float64; small arrays are at least float32.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facerecon_torch.checks import require_file
from facerecon_torch.errors import ModelFileError
from facerecon_torch.files import replacing
from facerecon_torch.formats.json_file import parse_json
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.gauge import Gauge
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.model.topology import FaceTopology

__all__ = ["FORMAT", "SEAM_VERSION", "VERSION", "load_model", "save_model"]

FORMAT = "facerecon-model"
VERSION, SEAM_VERSION = 1, 2
"""The version of a file, and of one whose topology has texture coordinates of corners."""

_METADATA_KEY = "facerecon"
_STORAGE = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
_KINDS: dict[str, type[FaceModel]] = {"bilinear": BilinearModel, "linear": LinearModel}
_LARGE = ("core", "identity_basis", "expression_basis", "texture_basis")  # arrays that float16 storage rounds
_FACTORS = {
    "bilinear": ("core", "identity_rows", "expression_rows"),
    "linear": (
        "mean",
        "identity_basis",
        "expression_basis",
        "identity_mean",
        "identity_variance",
        "expression_mean",
        "expression_variance",
        "expression_rows",
    ),
}
_TEXTURE = ("texture_mean", "texture_basis")
_TOPOLOGY = (
    "triangles",
    "uv",
    "landmark_vertices",
    "contour_lines",
    "centre_vertices",
    "whole_vertices",
)
_DOCUMENT = {
    "format": str,
    "version": int,
    "kind": str,
    "gauge": str,
    "storage": str,
    "expression_names": list,
    "topology": bool,
    "texture": bool,
    "sha256": str,
}


def save_model(model: FaceModel, path: str | Path, *, storage: str = "float32") -> None:
    """Write a model file, aside and then renamed.

    Args:
        model: A BilinearModel or LinearModel.
        path: The file to write.
        storage: Type of the large arrays: "float16", "float32" or "float64".

    Raises:
        TypeError: The model is of another kind.
        ValueError: The model is restricted to some vertices, the storage is unknown, or a value overflows it.

    Example:
        save_model(model, "face.safetensors", storage="float16")
    """
    if storage not in _STORAGE:
        raise ValueError(f"storage must be one of {', '.join(_STORAGE)}; got {storage!r}")
    kind = next((name for name, cls in _KINDS.items() if type(model) is cls), None)
    if model.restricted:
        raise ValueError("model must have all of its vertices to be saved; this one is restricted to some")
    if kind is None:
        raise TypeError(f"model must be a BilinearModel or a LinearModel; got {type(model).__name__}")
    tensors = {name: _stored(name, array, storage) for name, array in model.factors().items()}
    if model.topology is not None:
        for name, table in model.topology.tables().items():
            tensors[f"topology.{name}"] = _stored(name, table, storage)
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": SEAM_VERSION if "topology.corner_uv" in tensors else VERSION,
        "kind": kind,
        "gauge": model.gauge if isinstance(model, BilinearModel) else "free",
        "storage": storage,
        "expression_names": list(model.expression_names),
        "topology": model.topology is not None,
        "texture": "texture_mean" in tensors,
    }
    document["sha256"] = _digest(document, tensors)
    with replacing(path) as aside:
        save_file(tensors, str(aside), metadata={_METADATA_KEY: json.dumps(document)})


def load_model(path: str | Path) -> FaceModel:
    """The model of a file, on the CPU, in float64 if it is stored so, else in float32.

    Args:
        path: A file of `save_model`.

    Raises:
        FileNotFoundError: The file is missing.
        ModelFileError: The file is damaged, incomplete, edited or of another version.

    Example:
        model = load_model("face.safetensors")
    """
    path = Path(path)
    require_file("model file", path)
    try:
        with safe_open(str(path), framework="pt") as file:
            document = _read_document(path, (file.metadata() or {}).get(_METADATA_KEY))
            tensors = _read_tensors(path, document, file)
    except SafetensorError as error:
        raise ModelFileError(f"{path}: expected a complete safetensors file; {error}") from error
    digest = _digest(document, tensors)
    if digest != document["sha256"]:
        raise _mismatch(path, "sha256", document["sha256"], f"contents with {digest}")
    try:
        return _build(document, tensors)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def _stored(name: str, array: Tensor, storage: str) -> Tensor:
    array = array.detach().cpu()
    if not array.is_floating_point():
        return array.clone(memory_format=torch.contiguous_format)
    wanted = storage if name in _LARGE else ("float64" if storage == "float64" else "float32")
    stored = array.to(_STORAGE[wanted])
    if not bool(torch.isfinite(stored).all()):
        raise ValueError(f"{name} must fit into {wanted}; its largest magnitude is {float(array.abs().max()):g}")
    return stored.clone(memory_format=torch.contiguous_format)  # a file may not hold two names of one memory


def _digest(document: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    described = {key: value for key, value in document.items() if key != "sha256"}
    digest = sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].dtype}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _mismatch(path: Path, key: str, expected: object, got: object) -> ModelFileError:
    return ModelFileError(f"{path}: {key}: expected {expected}; got {got}")


def _read_document(path: Path, text: str | None) -> dict[str, Any]:
    document = parse_json(text or "", f"{path}: metadata {_METADATA_KEY!r}", ModelFileError)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, dict) else document
        raise _mismatch(path, "format", repr(FORMAT), repr(got))
    if document.get("version") not in (VERSION, SEAM_VERSION):
        raise _mismatch(path, "version", f"{VERSION} or {SEAM_VERSION}", document.get("version"))
    if set(document) != set(_DOCUMENT):
        raise _mismatch(path, "metadata keys", sorted(_DOCUMENT), sorted(document))
    for key, kind in _DOCUMENT.items():
        if type(document[key]) is not kind:
            raise _mismatch(path, key, f"a value of type {kind.__name__}", repr(document[key]))
    if not all(isinstance(name, str) for name in document["expression_names"]):
        raise _mismatch(path, "expression_names", "a list of strings", document["expression_names"])
    for key, choices in (("kind", _FACTORS), ("storage", _STORAGE), ("gauge", get_args(Gauge))):
        if document[key] not in choices:
            raise _mismatch(path, key, f"one of {sorted(choices)}", repr(document[key]))
    return document


def _read_tensors(path: Path, document: dict[str, Any], file: Any) -> dict[str, Tensor]:
    expected = set(_FACTORS[document["kind"]])
    expected |= set(_TEXTURE) if document["texture"] else set()
    expected |= {f"topology.{name}" for name in _tables_of(document)}
    if expected != set(file.keys()):
        missing, extra = sorted(expected - set(file.keys())), sorted(set(file.keys()) - expected)
        raise _mismatch(path, "tensors", sorted(expected), f"missing {missing}, unknown {extra}")
    tensors = {name: file.get_tensor(name) for name in sorted(expected)}
    for name, array in tensors.items():
        wanted = _expected_dtype(name, document["storage"])
        if array.dtype != wanted:
            raise _mismatch(path, name, wanted, array.dtype)
    return tensors


def _tables_of(document: dict[str, Any]) -> tuple[str, ...]:
    """The names of the topology's tables in a file."""
    seams = ("corner_uv",) if document["version"] == SEAM_VERSION else ()
    return (*_TOPOLOGY, *seams) if document["topology"] else seams


def _expected_dtype(name: str, storage: str) -> torch.dtype:
    if name.startswith("topology.") and name not in ("topology.uv", "topology.corner_uv"):
        return torch.int64
    if name in _LARGE:
        return _STORAGE[storage]
    return torch.float64 if storage == "float64" else torch.float32


def _build(document: dict[str, Any], tensors: dict[str, Tensor]) -> FaceModel:
    dtype = torch.float64 if document["storage"] == "float64" else torch.float32
    arrays = {name: array.to(dtype) if array.is_floating_point() else array for name, array in tensors.items()}
    topology = None
    if document["topology"]:
        topology = FaceTopology(**{name: arrays.pop(f"topology.{name}") for name in _tables_of(document)})
    names = document["expression_names"]
    if document["kind"] == "bilinear":
        return BilinearModel(**arrays, topology=topology, expression_names=names, gauge=document["gauge"])
    return LinearModel(**arrays, topology=topology, expression_names=names)
