"""The config group `landmarks`: where the landmarks of a run come from."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from facerecon_torch.landmarks.registry import DETECTORS, build_detector, detector_options, find_convention
from facerecon_torch.landmarks.scheme import CONVENTIONS

__all__ = ["TRAINING_SOURCES", "LandmarkSourceSpec"]

TRAINING_SOURCES = ("noise", "truth", "set")  # of labelled sets; everything else is a detector
_ANY_CONVENTION = ("auto", "noise", "truth", "file")


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
    convention: str | None = None  # of auto, noise, truth and file; None: mediapipe, of files ibug
    tiles: str | None = None  # of source=mediapipe; None: the detector's own choice
    min_score: float | int | None = None  # detections below it are left out; None: the detector's own bound

    def __post_init__(self) -> None:
        sources = (*TRAINING_SOURCES, *DETECTORS)
        if self.source not in sources:
            raise ValueError(f"landmarks.source must be one of {', '.join(sources)}; got {self.source!r}")
        if self.path is not None and self.source != "file":
            raise ValueError(f"landmarks.path is for landmarks.source=file; got source {self.source!r}")
        if self.convention not in (None, *CONVENTIONS):
            raise ValueError(f"landmarks.convention must be {' or '.join(CONVENTIONS)}; got {self.convention!r}")
        if self.convention is not None and self.source not in _ANY_CONVENTION:
            raise ValueError(
                f"landmarks.convention is for {', '.join(_ANY_CONVENTION)}; landmarks of {self.source} have their own"
            )
        if self.tiles is not None and "tiles" not in self._accepted():
            raise ValueError(f"landmarks.tiles is for landmarks.source=mediapipe; got source {self.source!r}")
        if self.min_score is not None and "min_score" not in self._accepted():
            takers = [name for name in DETECTORS if "min_score" in detector_options(name)]
            raise ValueError(f"landmarks.min_score is for {' and '.join(takers)}; got source {self.source!r}")

    @property
    def own_convention(self) -> str:
        """What the points of this source mean, one of `scheme.CONVENTIONS`. Sets that bring landmarks say it
        themselves."""
        if self.source in TRAINING_SOURCES:
            return self.convention or CONVENTIONS[0]
        return self.convention or find_convention(self.source)

    def _accepted(self) -> list[str]:
        return [] if self.source in TRAINING_SOURCES else detector_options(self.source)

    def settled(self, device: torch.device) -> "LandmarkSourceSpec":
        """The same source, `auto` replaced by the detector that it stands for on `device`. Raises DetectorError where
        no detector can run."""
        if self.source != "auto":
            return self
        detector = build_detector("auto", device=device, convention=self.own_convention)
        return replace(self, source=detector.name, convention=None)

    def options(self, device: torch.device) -> dict[str, Any]:
        """The options of `build_detector`. Raises ValueError for a source that is no detector."""
        if self.source in TRAINING_SOURCES:
            raise ValueError(f"landmarks.source={self.source} is for training sets; use {', '.join(DETECTORS)}")
        options: dict[str, Any] = {"source": self.path} if self.source == "file" else {}
        if "device" in self._accepted():
            options["device"] = str(device)
        if self.convention is not None:
            options["convention"] = self.convention
        if self.tiles is not None:
            options["tiles"] = self.tiles
        if self.min_score is not None:
            options["min_score"] = float(self.min_score)
        return options
