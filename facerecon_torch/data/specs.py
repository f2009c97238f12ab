"""The config group `data`: the labelled photographs of a run and their folder."""

from collections.abc import Sequence
from dataclasses import dataclass

from facerecon_torch.checks import require_count

__all__ = ["RECORDED", "DataSpec", "FittedPhotos", "RecordedScans", "SyntheticPhotos"]

RECORDED = ("bosphorus", "facewarehouse", "frgc")
"""Data sets of photographs with scans: `facerecon prepare` registers them, `facerecon train` reads the result."""
FITTED = ("w300lp", "aflw2000")
"""Data sets of photographs with fitted weights of BFM 2009."""


@dataclass(frozen=True, kw_only=True)
class SyntheticPhotos:
    """The synthetic training, test and shifted sets of disjoint people, drawn from the default face's sliders, or from
    the statistics of the model in `model.path`."""

    train_subjects: int = 400
    train_images: int = 3  # per subject
    test_subjects: int = 60
    test_images: int = 6
    shifted_subjects: int = 40
    shifted_images: int = 6
    seed: int = 0
    root: str | None = None  # folder of rendered sets; None: the user's cache folder

    def __post_init__(self) -> None:
        for name, least in (("train_subjects", 2), ("train_images", 1), ("test_subjects", 1), ("test_images", 1)):
            require_count(f"data.{name}", getattr(self, name), least)
        for name in ("shifted_subjects", "shifted_images", "seed"):
            require_count(f"data.{name}", getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True)
class RecordedScans:
    """Photographs with range scans. `root` is the data set's folder for prepare, and the prepared set for train."""

    name: str
    root: str | None = None
    classes: Sequence[str] | None = None  # Bosphorus: N E LFAU UFAU CAU YR PR CR O IGN; None: the data set's default
    subjects: Sequence[str] | None = None  # None: all
    signatures: Sequence[str] = ()  # frgc: signature sets (.xml) that pair range files with textures
    without_flags: Sequence[str] = ()  # train: leave out samples with one of these flags of the registration

    def __post_init__(self) -> None:
        if self.name not in RECORDED:
            raise ValueError(f"data.name must be one of {', '.join(RECORDED)}; got {self.name!r}")
        for key in ("classes", "subjects", "signatures", "without_flags"):
            _require_words(f"data.{key}", getattr(self, key))
        if self.signatures and self.name != "frgc":
            raise ValueError(f"data.signatures is for data=frgc; got {list(self.signatures)} with {self.name}")

    def require_root(self) -> str:
        """The folder. Raises ValueError if there is none."""
        return _required_root(self.name, self.root)


@dataclass(frozen=True, kw_only=True)
class FittedPhotos:
    """300W-LP or AFLW2000-3D. Their weights need BFM 2009 with 29 expressions in `model.path`."""

    name: str
    root: str | None = None
    images: int | None = 2000  # at most, evenly spread over the set; true meshes of 53,215 vertices fill the memory
    max_yaw: float | int = 99  # degrees; fits of larger angles are unreliable

    def __post_init__(self) -> None:
        if self.name not in FITTED:
            raise ValueError(f"data.name must be one of {', '.join(FITTED)}; got {self.name!r}")
        if self.images is not None:
            require_count("data.images", self.images, 4)
        if not 0 < self.max_yaw <= 180:
            raise ValueError(f"data.max_yaw must lie in (0, 180] degrees; got {self.max_yaw}")

    def require_root(self) -> str:
        """The folder. Raises ValueError if there is none."""
        return _required_root(self.name, self.root)


DataSpec = SyntheticPhotos | RecordedScans | FittedPhotos


def _require_words(key: str, words: object) -> None:
    if words is None:
        return
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(w, str) for w in words):
        raise ValueError(f"{key} must be a list of words, as in {key}=[N,E]; got {words!r}")


def _required_root(name: str, root: str | None) -> str:
    if root is None:
        raise ValueError(f"data={name} needs data.root=FOLDER, the folder of the data set")
    return root
