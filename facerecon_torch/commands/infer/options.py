"""The configuration of `facerecon infer`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch

from facerecon_torch.cascade.found_faces import faces_at_once
from facerecon_torch.cascade.reconstruction import KnownSize
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.config.targets import require_type
from facerecon_torch.images.open import MAX_MEGAPIXELS, require_megapixels
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec

__all__ = ["DECODERS", "FORMATS", "MODES", "InferOptions", "InferSpecs", "infer_specs"]

MODES = ("throughput", "latency")
DECODERS = ("cpu", "device")
FORMATS = ("json", "obj", "ply", "glb", "overlay")


@dataclass(frozen=True, kw_only=True)
class InferOptions:
    """What is done with a folder of photographs.

    mode: `throughput` reads ahead and works by the batch; `latency` takes every picture alone, from its file to its
    results, before the next. decode: `device` decodes JPEGs in batches on a CUDA device (on the CPU it is `cpu`).
    """

    faces: str = "all"  # all | largest
    mode: str = "throughput"
    batch: int | None = None  # faces at once; None: 32 on the CPU, 256 on CUDA, 1 with mode latency
    decode: str = "cpu"
    formats: Sequence[str] = FORMATS
    resume: bool = False
    size: KnownSize = field(default_factory=KnownSize)
    max_megapixels: float | int = MAX_MEGAPIXELS  # larger images are refused before they are decoded
    workers: int | None = None  # threads that decode and write
    progress: bool = True

    def __post_init__(self) -> None:
        for name, choice in (("faces", ("all", "largest")), ("mode", MODES), ("decode", DECODERS)):
            if getattr(self, name) not in choice:
                raise ValueError(f"{name} must be {' or '.join(choice)}; got {getattr(self, name)!r}")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be at least 1; got {self.batch}")
        if self.mode == "latency" and self.batch not in (None, 1):
            raise ValueError(f"mode=latency takes every picture alone; batch must be null or 1, got {self.batch}")
        require_megapixels("images.max_megapixels", self.max_megapixels)
        unknown = [f for f in self.formats if f not in FORMATS]
        if unknown:
            raise ValueError(f"formats must be among {', '.join(FORMATS)}; got {', '.join(map(str, unknown))}")
        if self.resume and "json" not in self.formats:
            raise ValueError(f"resume=true needs the format json, which marks what is done; got {list(self.formats)}")

    def faces_at_once(self, device: torch.device) -> int:
        """Faces of a batch on `device`."""
        if self.mode == "latency":
            return 1
        return self.batch or faces_at_once(device)


@dataclass(frozen=True, kw_only=True)
class InferSpecs:
    """A whole run of `facerecon infer`."""

    input: Path
    output: Path
    cascade: Path | None  # None: the pretrained one
    model: ModelSpec
    landmarks: LandmarkSourceSpec
    runtime: RuntimeSpec
    options: InferOptions
    times: bool = False  # log the seconds of every part


def infer_specs(
    *,
    input: str | None,
    output: str | None,
    cascade: Mapping[str, str | None],
    model: ModelSpec,
    landmarks: LandmarkSourceSpec,
    runtime: RuntimeSpec,
    images: Mapping[str, float | int],
    times: bool,
    **options: Any,
) -> InferSpecs:
    """The specs of a run from the keys of `configs/infer.yaml`; `options` are those of `InferOptions`.

    Raises:
        ValueError: a path is missing, or an option has a value that it cannot have.
    """
    for name, path in (("input", input), ("output", output)):
        if not isinstance(path, str):
            raise ValueError(f"{name} must be a path; got {path!r}")
    types = get_type_hints(InferOptions)
    for name in sorted(set(options) & set(types)):
        require_type(name, options[name], types[name])
    return InferSpecs(
        input=Path(str(input)),
        output=Path(str(output)),
        cascade=None if cascade["path"] is None else Path(cascade["path"]),
        model=model,
        landmarks=landmarks,
        runtime=runtime,
        options=InferOptions(
            max_megapixels=images["max_megapixels"], workers=runtime.workers, progress=runtime.progress, **options
        ),
        times=times,
    )
