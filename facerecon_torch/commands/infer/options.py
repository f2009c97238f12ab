"""The configuration of `facerecon infer`."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch

from facerecon_torch.cascade.found_faces import faces_at_once
from facerecon_torch.cascade.reconstruction import KnownSize
from facerecon_torch.commands.infer.files.mesh_files import MESH_FORMATS, MeshOptions, TextureOptions
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.config.targets import require_type
from facerecon_torch.images.open import MAX_MEGAPIXELS, require_megapixels
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec

__all__ = ["DECODERS", "FORMATS", "MODES", "InferOptions", "InferSpecs", "infer_specs"]

MODES = ("throughput", "latency")
DECODERS = ("cpu", "device")
ENGINES = ("local", "ray")
_GROUPS = ("subject",)
FORMATS = ("json", *MESH_FORMATS, "overlay", "csv")
_OF_ONE = (
    "json",
    "obj",
    "ply",
    "glb",
    "texture",
    "overlay",
)  # of a run with one input, unless others are asked for


@dataclass(frozen=True, kw_only=True)
class InferOptions:
    """Options of a run of `infer`.

    mode: `throughput` reads ahead and works by the batch; `latency` takes every picture alone, from its file to its
    results, before the next. decode: `device` decodes JPEGs in batches on a CUDA device (on the CPU it is `cpu`).
    """

    faces: str = "all"  # all | largest
    mode: str = "throughput"
    batch: int | None = None  # faces at once; None: 32 on the CPU, 256 on CUDA, 1 with mode latency
    decode: str = "cpu"
    formats: Sequence[str] | None = None  # beside the tables; None: all but csv and depth for one input, else none
    resume: bool = True  # go on with the run in the output folder; false: replace it
    retry: str | None = None  # failed: inputs without faces are done again
    group_by: str | None = None  # subject: one identity per subject of the manifest, in tables of their own
    shard: str = "0/1"  # which part of the run this process does: I/N
    shard_size: int = 1000  # inputs that are committed together
    engine: str = "local"
    actors: int | None = None  # of engine=ray; None: one per GPU, or per two CPUs
    size: KnownSize = field(default_factory=KnownSize)
    mesh: MeshOptions = field(default_factory=MeshOptions)
    texture: TextureOptions = field(default_factory=TextureOptions)
    max_megapixels: float | int = MAX_MEGAPIXELS  # larger images are refused before they are decoded
    ahead_mb: float | int = 256  # MB of pixels that wait between reading, reconstruction and writing, each
    image_seconds: float | int | None = 60.0  # of reading, decoding, search, fit and writing of an image, each
    workers: int | None = None  # threads that decode and write
    progress: bool = True

    def __post_init__(self) -> None:
        for name, choice in (("faces", ("all", "largest")), ("mode", MODES), ("decode", DECODERS), ("engine", ENGINES)):
            if getattr(self, name) not in choice:
                raise ValueError(f"{name} must be {' or '.join(choice)}; got {getattr(self, name)!r}")
        for name in ("batch", "actors", "shard_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.mode == "latency" and self.batch not in (None, 1):
            raise ValueError(f"mode=latency takes every picture alone; batch must be null or 1, got {self.batch}")
        require_megapixels("images.max_megapixels", self.max_megapixels)
        for name in ("ahead_mb", "image_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"images.{name.removeprefix('image_')} must be a positive number; got {value}")
        unknown = [f for f in self.formats or () if f not in FORMATS]
        if unknown:
            raise ValueError(f"formats must be among {', '.join(FORMATS)}; got {', '.join(map(str, unknown))}")
        if self.retry not in (None, "failed"):
            raise ValueError(f"retry must be failed or null; got {self.retry!r}")
        if self.group_by not in (None, *_GROUPS):
            raise ValueError(f"group_by must be {' or '.join(_GROUPS)} or null; got {self.group_by!r}")
        workers = self._shard[1]
        if not self.resume and (self.retry or workers > 1):
            raise ValueError("resume=false replaces a run; it goes neither with retry=failed nor with shard=I/N")

    @property
    def shard_index(self) -> int:
        """I of shard=I/N."""
        return self._shard[0]

    @property
    def shard_count(self) -> int:
        """N of shard=I/N."""
        return self._shard[1]

    @property
    def _shard(self) -> tuple[int, int]:
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(self.shard))
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard must be I/N with I from 0 to N - 1, such as 0/2; got {self.shard!r}")
        return int(match[1]), int(match[2])

    def formats_of(self, inputs: int) -> tuple[str, ...]:
        """The formats of a run with so many inputs."""
        if self.formats is not None:
            return tuple(self.formats)
        return _OF_ONE if inputs == 1 else ()

    @property
    def seconds(self) -> float | None:
        """`image_seconds` as a float."""
        return None if self.image_seconds is None else float(self.image_seconds)

    def threads(self) -> int:
        """The number of threads that read, decode and write."""
        return self.workers or min(32, (os.cpu_count() or 1) + 4)

    def faces_at_once(self, device: torch.device) -> int:
        """Faces of a batch on `device`."""
        if self.mode == "latency":
            return 1
        return self.batch or faces_at_once(device)


@dataclass(frozen=True, kw_only=True)
class InferSpecs:
    """A whole run of `facerecon infer`."""

    input: InputSpec
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
    images: Mapping[str, float | int | None],
    recursive: bool,
    every: int,
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
    require_type("recursive", recursive, bool)
    require_type("every", every, int)
    options |= {"max_megapixels": images["max_megapixels"], "ahead_mb": images["ahead_mb"],
                "image_seconds": images["seconds"]}  # fmt: skip
    types = get_type_hints(InferOptions)
    for name in sorted(set(options) & set(types)):
        require_type(name, options[name], types[name])
    return InferSpecs(
        input=InputSpec(path=str(input), recursive=recursive, every=every),
        output=Path(str(output)),
        cascade=None if cascade["path"] is None else Path(cascade["path"]),
        model=model,
        landmarks=landmarks,
        runtime=runtime,
        options=InferOptions(workers=runtime.workers, progress=runtime.progress, **options),
        times=times,
    )
