"""Description of a synthetic image set, its hash and its random generators."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

from facerecon_torch.model.default_face.asset import ASSET_FOLDER
from facerecon_torch.registration.topology.correspondence_file import correspondence_key

__all__ = ["RENDERER_VERSION", "SyntheticSpec", "describe_hash", "seeded"]

FAMILIES = ("train", "test", "shifted")
RENDERER_VERSION = 2
"""Part of the hash; raised whenever the same spec would give other images."""
_ID_STEP = 1_000_000


@lru_cache(maxsize=1)
def _face_digest() -> str:
    """The hex digest of the default face's meshes and index tables."""
    digest = hashlib.sha256()
    for name in ("source.safetensors", "source.json", "tables.safetensors"):
        digest.update((ASSET_FOLDER / name).read_bytes())
    return digest.hexdigest()


def describe_hash(description: Mapping[str, object]) -> str:
    """The hex digest of a description, the renderer's version and the default face's asset."""
    text = json.dumps({**description, "renderer": RENDERER_VERSION, "face": _face_digest()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seeded(*key: int | str) -> torch.Generator:
    """A random generator whose seed is the hash of `key`."""
    digest = hashlib.blake2b("/".join(str(k) for k in key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSpec:
    """The description of a rendered set, on which alone its bytes depend.

    Families draw from separate seeds, so their people differ even where `seed` is equal. `train` and `test` have the
    same distributions; `shifted` has slider groups, skin tones and lights that the others never show. People of a face
    model have the same shapes in all families.

    Attributes:
        subjects: number of people.
        images_per_subject: number of photographs of each.
        seed: of all random draws.
        size: of an image, px.
        family: train, test or shifted.
        model: SHA-256 of the face model whose people are drawn; None: people of the default face's source.

    Raises:
        ValueError: a number out of range, or another family.

    Example:
        >>> render_set(SyntheticSpec(subjects=2, images_per_subject=3), Path("people"))
    """

    subjects: int
    images_per_subject: int
    seed: int = 0
    size: int = 448
    family: str = "train"  # one of FAMILIES
    model: str | None = None

    def __post_init__(self) -> None:
        if min(self.subjects, self.images_per_subject) < 1:
            raise ValueError(f"subjects and images_per_subject must be at least 1; got {self}")
        if self.subjects >= _ID_STEP:
            raise ValueError(f"subjects must be below {_ID_STEP}; got {self.subjects}")
        if not 128 <= self.size <= 2048:
            raise ValueError(f"size must lie in 128..2048 px; got {self.size}")
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {FAMILIES}; got {self.family!r}")

    def description(self) -> dict[str, object]:
        """The fields as JSON values; `model` only where there is one."""
        return {key: value for key, value in asdict(self).items() if key != "model" or value is not None}

    @property
    def hash(self) -> str:
        """The hex digest of the description, the renderer's version and the default face's asset; for people of a face
        model also of its correspondence with the default face."""
        correspondence = {} if self.model is None else {"correspondence": correspondence_key(self.model)}
        return describe_hash(self.description() | correspondence)

    def subject_id(self, subject: int) -> int:
        """The number of a subject, unique over the families."""
        return FAMILIES.index(self.family) * _ID_STEP + subject

    def generator(self, subject: int, *purpose: int | str) -> torch.Generator:
        """The random generator of one subject for one purpose."""
        return seeded(self.family, self.seed, subject, *purpose)
