"""The config group `landmarks`: where the landmarks of a run come from."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from facerecon_torch.landmarks.detector import require_selection
from facerecon_torch.landmarks.points import require_origin
from facerecon_torch.landmarks.registry import (
    DETECTORS,
    build_detector,
    detector_options,
    find_convention,
    find_detector,
)
from facerecon_torch.landmarks.scheme import CONVENTIONS, check_convention

__all__ = ["OPTIONS", "TRAINING_SOURCES", "LandmarkSourceSpec"]

TRAINING_SOURCES = ("noise", "truth", "set")  # of labelled sets; everything else is a detector
OPTIONS = ("origin", "convention", "tiles", "min_score", "min_face", "max_faces", "dtype")
"""Those of the spec that go to the detector as they are."""


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
    convention: str | None = None  # of auto, noise, truth and file; None: mediapipe, of files what they state
    tiles: str | None = None  # of mediapipe; None: the detector's own choice
    min_score: float | int | None = None  # detections below it are left out; None: the detector's own bound
    min_face: float | int = 0.0  # share of the picture's long side; faces below it are left out
    max_faces: int | None = None  # of a picture, the largest score x box area first; None: all
    dtype: str = "float32"  # of a detector's network: float32, float16 or bfloat16

    def __post_init__(self) -> None:
        sources = (*TRAINING_SOURCES, *DETECTORS)
        if self.source not in sources:
            raise ValueError(f"landmarks.source must be one of {', '.join(sources)}; got {self.source!r}")
        if self.path is not None and self.source != "file":
            raise ValueError(f"landmarks.path is for landmarks.source=file; got source {self.source!r}")
        if self.convention is not None:
            check_convention(self.convention, "landmarks.convention")
        require_selection(self.min_face, self.max_faces, "landmarks.")
        require_origin("landmarks.origin", self.origin)
        for option in self._asked():
            takers = [name for name in DETECTORS if option in detector_options(name)]
            takers += [name for name in ("noise", "truth") if option == "convention"]
            if self.source not in takers:
                raise ValueError(f"landmarks.{option} is for {', '.join(takers)}; got source {self.source!r}")

    def _asked(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: getattr(self, name) for name in OPTIONS if getattr(self, name) != defaults[name]}

    @property
    def own_convention(self) -> str:
        """The convention of the points of this source, one of `scheme.CONVENTIONS`. Sets that bring landmarks say it
        themselves."""
        if self.source in TRAINING_SOURCES:
            return self.convention or CONVENTIONS[0]
        if self.convention is None and self.source == "file":
            stated: str = find_detector("file").stated_convention(self.path)  # type: ignore[attr-defined]
            return stated
        return self.convention or find_convention(self.source)

    def _accepted(self) -> list[str]:
        return [] if self.source in TRAINING_SOURCES else detector_options(self.source)

    def settled(self, device: torch.device) -> "LandmarkSourceSpec":
        """The same source, `auto` replaced by the detector that it stands for on `device`. Raises DetectorError where
        no detector can run."""
        if self.source != "auto":
            return self
        detector = build_detector("auto", **self.options(device) | {"convention": self.own_convention})
        return replace(self, source=detector.name, convention=None)

    def options(self, device: torch.device) -> dict[str, Any]:
        """The options of `build_detector`. Raises ValueError for a source that is no detector."""
        if self.source in TRAINING_SOURCES:
            raise ValueError(f"landmarks.source={self.source} is for training sets; use {', '.join(DETECTORS)}")
        options: dict[str, Any] = {"source": self.path} if self.source == "file" else {}
        if "device" in self._accepted():
            options["device"] = str(device)
        numbers = ("min_score", "min_face")  # YAML may give whole ones
        return options | {name: float(value) if name in numbers else value for name, value in self._asked().items()}
