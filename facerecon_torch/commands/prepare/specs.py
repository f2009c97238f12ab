"""The config groups of `facerecon prepare`."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facerecon_torch.checks import require_count
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.recordings import Recording
from facerecon_torch.data.specs import DataSpec, RecordedScans
from facerecon_torch.landmarks.source import TRAINING_SOURCES, LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec
from facerecon_torch.registration.scan.register import RegistrationSpec

__all__ = ["CropFileSpec", "PrepareSpec", "PrepareSpecs"]


@dataclass(frozen=True, kw_only=True)
class CropFileSpec:
    """The square crop that is stored of every photograph.

    It spans `span` mm, which is the canonical crop of training with room for its shifts, at no more than `px_per_mm`,
    which is twice the density of training. A photograph with fewer pixels is copied, not enlarged. JPEG of quality 95
    without chroma subsampling takes 0.26 to 0.33 of the size of PNG and changes the HOG of canonical crops by 2 to 3 %
    (mean absolute difference over three portraits).

    Raises:
        ValueError: a number that is not positive and finite, or another format.
    """

    span: float | int = 260  # mm
    px_per_mm: float | int = 128 / 45
    format: str = "jpg"  # jpg (quality 95, 4:4:4) | png (exact)

    @property
    def bytes_expected(self) -> int:
        """Upper estimate of a file's size, from portraits."""
        return 250_000 if self.format == "jpg" else 1_000_000

    def __post_init__(self) -> None:
        for name in ("span", "px_per_mm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"crop.{name} must be positive and finite; got {getattr(self, name)}")
        if self.format not in ("jpg", "png"):
            raise ValueError(f"crop.format must be jpg or png; got {self.format!r}")


@dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """The run: how many scans are registered together, what counts as a failure, what is drawn.

    Raises:
        ValueError: a number outside its range.
    """

    batch: int = 12  # scans registered together; with one identity per subject, all scans of a subject
    max_failures: float | int = 0.25  # largest share of recordings without a sample in a run that counts as done
    min_inliers: float | int = 0.2  # least share of inliers in a sample; less is a failure
    spacing: float | int = 0.75  # mm between the cells of the depth grids that scans become
    pictures: int = 6  # samples that are drawn for review
    crop: CropFileSpec = field(default_factory=CropFileSpec)

    def __post_init__(self) -> None:
        require_count("prepare.batch", self.batch, 1)
        require_count("prepare.pictures", self.pictures, 0)
        if not 0 < self.spacing < float("inf"):
            raise ValueError(f"prepare.spacing must be positive and finite; got {self.spacing}")
        for name in ("max_failures", "min_inliers"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"prepare.{name} must be a share in [0, 1]; got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PrepareSpecs:
    """All config groups of a run.

    Raises:
        ValueError: a data set without scans, or a source of landmarks that needs a labelled set.
    """

    model: ModelSpec
    data: DataSpec
    landmarks: LandmarkSourceSpec
    registration: RegistrationSpec
    prepare: PrepareSpec
    runtime: RuntimeSpec

    def __post_init__(self) -> None:
        _ = self.recorded
        if self.landmarks.source in TRAINING_SOURCES:
            raise ValueError(f"landmarks must be a detector or file for recordings; got {self.landmarks.source}")

    @property
    def recorded(self) -> RecordedScans:
        """The data set. Raises ValueError for a data set that holds no scans."""
        if not isinstance(self.data, RecordedScans):
            raise ValueError("data must be a set of recorded scans: data=bosphorus, data=facewarehouse or data=frgc")
        return self.data

    def fingerprint(self, model_sha256: str, detector: str, recordings: list[Recording]) -> dict[str, Any]:
        """Everything that the bytes of the set depend on, except the files of the data set."""
        names = hashlib.sha256("\n".join(recording.name for recording in recordings).encode()).hexdigest()
        return {
            "data": self.recorded.name,
            "signatures": [Path(path).name for path in self.recorded.signatures],
            "recordings": {"count": len(recordings), "sha256": names},
            "model_sha256": model_sha256,
            "landmarks": {
                "detector": detector,
                "min_score": self.landmarks.min_score,
                "origin": self.landmarks.origin,
            },
            "registration": asdict(self.registration),
            "batch": self.prepare.batch,
            "spacing": self.prepare.spacing,
            "min_inliers": self.prepare.min_inliers,
            "crop": asdict(self.prepare.crop),
            "dtype": self.runtime.dtype,
            "mesh_backend": self.runtime.mesh_backend,
        }
