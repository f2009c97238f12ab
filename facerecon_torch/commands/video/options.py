"""The configuration of `facerecon video`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec
from facerecon_torch.tracking.smooth import SmoothingSpec

__all__ = ["VideoSpecs", "video_specs"]


@dataclass(frozen=True, kw_only=True)
class VideoSpecs:
    """A whole run of `facerecon video`."""

    input: Path
    output: Path
    cascade: Path | None  # None: the pretrained one
    model: ModelSpec
    landmarks: LandmarkSourceSpec
    runtime: RuntimeSpec
    overlay: bool = True
    joint: bool = True
    smoothing: SmoothingSpec = field(default_factory=SmoothingSpec)


def video_specs(
    *,
    input: str | None,
    output: str | None,
    cascade: Mapping[str, str | None],
    model: ModelSpec,
    landmarks: LandmarkSourceSpec,
    runtime: RuntimeSpec,
    overlay: bool,
    joint: bool,
    smoothing: SmoothingSpec,
) -> VideoSpecs:
    """The specs of a run from the keys of `configs/video.yaml`.

    Raises:
        ValueError: a path is missing, or landmarks come from a file.
    """
    for name, path in (("input", input), ("output", output)):
        if not isinstance(path, str):
            raise ValueError(f"{name} must be a path; got {path!r}")
    if landmarks.source == "file":
        raise ValueError("landmarks must be those of a detector for a video; got landmarks=file")
    return VideoSpecs(
        input=Path(str(input)),
        output=Path(str(output)),
        cascade=None if cascade["path"] is None else Path(cascade["path"]),
        model=model,
        landmarks=landmarks,
        runtime=runtime,
        overlay=overlay,
        joint=joint,
        smoothing=smoothing,
    )
