"""Correspondences of models with the default face, found on first use and kept in the cache folder."""

import hashlib
from functools import lru_cache
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from facerecon_torch.files import cache_folder, made_once, replacing
from facerecon_torch.geometry.align import Alignment
from facerecon_torch.model.default_face.asset import file_digests
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.topology.correspondence import Correspondence, find_correspondence

__all__ = ["correspondence_key", "load_correspondence"]

CORRESPONDENCE_VERSION = 1
"""Part of the key; raised whenever the code finds other correspondences, or carries heads by them in another way."""


@lru_cache(maxsize=1)
def _default_face_digest() -> str:
    return hashlib.sha256(file_digests()).hexdigest()


def correspondence_key(model_sha256: str) -> str:
    """The hex digest of a model's hash, the default face's files and the version of this code."""
    text = f"{CORRESPONDENCE_VERSION} {_default_face_digest()} {model_sha256}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_correspondence(neutral: Float[Tensor, "v 3"], topology: FaceTopology, model_sha256: str) -> Correspondence:
    """The correspondence of the default face with a model, found on the first call and kept in the cache folder.

    Processes that start together find it once (file lock); a damaged cache file is made again. Where the cache folder
    cannot be written, it is found on every call, with a warning.

    Args:
        neutral: the model's mean person with a neutral expression, mm.
        topology: of the model.
        model_sha256: the model's hash.

    Raises:
        ModelFileError: as `find_correspondence`.

    Example:
        >>> load_correspondence(neutral, model.topology, model.sha256)
    """
    path = cache_folder() / f"correspondence-{correspondence_key(model_sha256)}.safetensors"
    note = "the correspondence with the default face is found anew"
    return made_once(path, _read_cached, lambda: find_correspondence(neutral, topology), _write, note)


def _write(correspondence: Correspondence, path: Path) -> None:
    alignment = correspondence.alignment
    tensors = {
        "vertices": correspondence.vertices,
        "corners": correspondence.corners,
        "weights": correspondence.weights,
        "scale": alignment.scale,
        "rotation": alignment.rotation,
        "translation": alignment.translation,
    }
    with replacing(path) as aside:
        save_file({name: table.contiguous() for name, table in tensors.items()}, str(aside))


def _read_cached(path: Path) -> Correspondence | None:
    if not path.is_file():
        return None
    try:
        tensors = load_file(str(path))
        alignment = Alignment(tensors["scale"], tensors["rotation"], tensors["translation"])
        return Correspondence(tensors["vertices"], tensors["corners"], tensors["weights"], alignment)
    except (SafetensorError, KeyError):
        return None
