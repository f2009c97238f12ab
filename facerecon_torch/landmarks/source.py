"""The config group `landmarks`: where the landmarks of a run come from."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from facerecon_torch.landmarks.detector import require_selection
from facerecon_torch.landmarks.registry import DETECTORS, detector_options, find_detector

__all__ = ["TRAINING_SOURCES", "LandmarkSourceSpec"]

TRAINING_SOURCES = ("noise", "truth", "set")  # of labelled sets; everything else is a detector
_OPTIONS = ("min_score", "min_face", "max_faces", "dtype")  # those of the spec that go to the detector as they are


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
        require_selection(self.min_face, self.max_faces, "landmarks.")
        for option in self._asked():
            takers = [name for name in DETECTORS if option in detector_options(name)]
            if self.source not in takers:
                raise ValueError(f"landmarks.{option} is for {', '.join(takers)}; got source {self.source!r}")

    def _asked(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: getattr(self, name) for name in _OPTIONS if getattr(self, name) != defaults[name]}

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
        options: dict[str, Any] = {"source": self.path} if self.source == "file" else {}
        if "device" in self._accepted():
            options["device"] = str(device)
        numbers = ("min_score", "min_face")  # YAML may give whole ones
        return options | {name: float(value) if name in numbers else value for name, value in self._asked().items()}
