"""The config group `landmarks`: where the landmarks of a run come from."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from facerecon_torch.landmarks.points import require_origin
from facerecon_torch.landmarks.registry import DETECTORS, detector_options, find_detector

__all__ = ["TRAINING_SOURCES", "LandmarkSourceSpec"]

TRAINING_SOURCES = ("noise", "truth", "set")  # of labelled sets; everything else is a detector


@dataclass(frozen=True, kw_only=True)
class LandmarkSourceSpec:
    """Source of landmarks: a detector, or for training a labelled set's own.

    `noise` and `truth` exist for synthetic sets only. `set` is for sets that bring landmarks: prepared sets (those that
    prepare found), 300W-LP and AFLW2000-3D.

    Raises:
        ValueError: unknown source, or an option that the source does not take.
    """

    source: str = "auto"
    path: str | None = None  # of source=file
    origin: int | None = None  # of source=file: what it calls the first pixel's centre; None: 1 for .pts, else 0
    min_score: float | int | None = None  # detections below it are left out; None: the detector's own bound

    def __post_init__(self) -> None:
        sources = (*TRAINING_SOURCES, *DETECTORS)
        if self.source not in sources:
            raise ValueError(f"landmarks.source must be one of {', '.join(sources)}; got {self.source!r}")
        if self.path is not None and self.source != "file":
            raise ValueError(f"landmarks.path is for landmarks.source=file; got source {self.source!r}")
        if self.origin is not None and self.source != "file":
            raise ValueError(f"landmarks.origin is for landmarks.source=file; got source {self.source!r}")
        require_origin("landmarks.origin", self.origin)
        if self.min_score is not None and "min_score" not in self._accepted():
            takers = [name for name in DETECTORS if "min_score" in detector_options(name)]
            raise ValueError(f"landmarks.min_score is for {' and '.join(takers)}; got source {self.source!r}")

    def _accepted(self) -> list[str]:
        return [] if self.source in TRAINING_SOURCES else detector_options(self.source)

    def settled(self, device: torch.device) -> "LandmarkSourceSpec":
        """The same source, `auto` replaced by the detector that it stands for on `device`. Raises DetectorError where
        no detector can run."""
        return replace(self, source=find_detector("auto")(device=device).name) if self.source == "auto" else self

    def options(self, device: torch.device) -> dict[str, Any]:
        """The options of `build_detector`. Raises ValueError for a source that is no detector."""
        if self.source in TRAINING_SOURCES:
            raise ValueError(f"landmarks.source={self.source} is for training sets; use {', '.join(DETECTORS)}")
        options: dict[str, Any] = {"source": self.path, "origin": self.origin} if self.source == "file" else {}
        if "device" in self._accepted():
            options["device"] = str(device)
        if self.min_score is not None:
            options["min_score"] = float(self.min_score)
        return options
