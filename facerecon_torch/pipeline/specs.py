"""What a run is told: one frozen, self-checking dataclass per config group that no other package owns."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from facerecon_torch.data.splits import PAPER_GROUPS, PROTOCOLS
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.coefficients import FitSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.geometry.mesh_ops import use_backend
from facerecon_torch.pipeline.data_specs import DataSpec, SyntheticPhotos
from facerecon_torch.pipeline.spec_checks import require_count
from facerecon_torch.regression.cascade import CascadeSpec
from facerecon_torch.regression.stage_spec import DEFAULT_RHOS

__all__ = [
    "CvSpec",
    "FittingSpec",
    "LandmarkSourceSpec",
    "ModelSpec",
    "RegressionSpec",
    "RuntimeSpec",
    "StagesSpec",
    "TrainSpecs",
    "require_device",
]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which face model: the free default face, or a native model file."""

    path: str | None = None  # None: the default face that the package carries


@dataclass(frozen=True, kw_only=True)
class LandmarkSourceSpec:
    """Where landmarks come from. `noise` and `truth` exist for synthetic sets only, `set` for those that bring their
    own: prepared sets (what prepare found), 300W-LP and AFLW2000-3D."""

    source: str = "auto"
    path: str | None = None  # of source=file
    min_score: float | int | None = None  # detections below it are left out; None: the detector's own bound

    def __post_init__(self) -> None:
        known = ("noise", "truth", "set", "auto", "dlib", "face_alignment", "file")
        if self.source not in known:
            raise ValueError(f"landmarks.source must be one of {', '.join(known)}; got {self.source!r}")
        if self.path is not None and self.source != "file":
            raise ValueError(f"landmarks.path is for landmarks.source=file; got source {self.source!r}")
        if self.min_score is not None and self.source not in ("dlib", "face_alignment"):
            raise ValueError(f"landmarks.min_score is for dlib and face_alignment; got source {self.source!r}")

    def options(self, device: torch.device) -> dict[str, Any]:
        """What `build_detector` is told. Raises ValueError for a source that is no detector."""
        if self.source in ("noise", "truth", "set"):
            raise ValueError(f"landmarks.source={self.source} is for training sets; use auto, dlib or file")
        told: dict[str, Any] = {"source": self.path} if self.source == "file" else {}
        if self.source in ("auto", "face_alignment"):
            told["device"] = str(device)
        if self.min_score is not None:
            told["min_score"] = float(self.min_score)
        return told


@dataclass(frozen=True, kw_only=True)
class FittingSpec:
    """The landmark fit and the crop that follows from it."""

    fit: FitSpec = field(default_factory=FitSpec)
    crop: CropSpec = field(default_factory=CropSpec)
    select_penalties: bool = True  # choose both penalties on the training people instead of taking fit's


@dataclass(frozen=True, kw_only=True)
class RegressionSpec:
    """The ridge of a stage."""

    rho: float | int | None = None  # lambda = rho tr(G) / D; None: chosen by exact leave-one-subject-out
    rhos: Sequence[float] = DEFAULT_RHOS
    block_weights: Sequence[Sequence[float]] = ((1.0, 1.0),)  # relative weights of (hog, ld) to choose from
    form: str = "auto"  # auto | primal | dual

    def __post_init__(self) -> None:
        if self.rho is not None and not self.rho > 0:
            raise ValueError(f"regression.rho must be positive, or null to choose it; got {self.rho}")
        if self.form not in ("auto", "primal", "dual"):
            raise ValueError(f"regression.form must be auto, primal or dual; got {self.form!r}")


@dataclass(frozen=True, kw_only=True)
class StagesSpec:
    """The stages in a row."""

    stages: int = 5
    cross_fit: bool = True  # False: in-sample updates and all stages kept, as the paper has it
    min_gain: float | int = 0.005  # a stage is kept if the cross-fitted error falls by this share or more
    start: str = "landmark_fit"  # landmark_fit | mean_face

    def __post_init__(self) -> None:
        require_count("cascade.stages", self.stages, 1)
        if self.start not in ("landmark_fit", "mean_face"):
            raise ValueError(f"cascade.start must be landmark_fit or mean_face; got {self.start!r}")

    def with_regression(self, regression: RegressionSpec) -> CascadeSpec:
        """What the regression package is told."""
        return CascadeSpec(
            stages=self.stages,
            cross_fit=self.cross_fit,
            min_gain=self.min_gain,
            rho=regression.rho,
            rhos=tuple(regression.rhos),
            block_weights_grid=tuple(tuple(w) for w in regression.block_weights),
            form=regression.form,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, kw_only=True)
class CvSpec:
    """Which subjects train and which test."""

    protocol: str = "holdout"  # holdout: the data set's own test people | group_kfold | paper_5x5
    fold: int | str = "all"  # 0..n-1, or all; under holdout, a fold is left out of training and not tested on
    folds: int = 5  # of group_kfold and holdout
    nested: int = 5  # grouped folds of the whole cascade over the training people, 0: none

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"cv.protocol must be one of {', '.join(PROTOCOLS)}; got {self.protocol!r}")
        if self.fold != "all" and (not isinstance(self.fold, int) or isinstance(self.fold, bool)):
            raise ValueError(f"cv.fold must be a number from 0 or all; got {self.fold!r}")
        require_count("cv.folds", self.folds, 2)
        require_count("cv.nested", self.nested, 0)
        if self.nested == 1:
            raise ValueError("cv.nested must be 0 (none) or at least 2; got 1")
        if isinstance(self.fold, int) and not 0 <= self.fold < self.available:
            raise ValueError(f"cv.fold must lie in 0..{self.available - 1} for {self.protocol}; got {self.fold}")

    @property
    def available(self) -> int:
        """How many folds the protocol has."""
        return PAPER_GROUPS if self.protocol == "paper_5x5" else self.folds

    @property
    def splits_training(self) -> bool:
        """Whether the training people are split into folds at all."""
        return self.protocol != "holdout" or self.fold != "all"

    @property
    def chosen(self) -> list[int]:
        """The folds to run."""
        return list(range(self.available)) if isinstance(self.fold, str) else [self.fold]


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """The machine's side of a run."""

    device: str = "auto"  # auto: cuda where there is one, else cpu | cpu | cuda | cuda:1
    dtype: str = "float32"
    seed: int = 0
    workers: int | None = None  # processes that render and decode; None: one per core
    threads: int | None = None  # of torch; None: torch's own choice
    memory: str | float | int = "auto"  # what a run may fill: auto, or GB
    tf32: bool = False
    deterministic: bool = False
    progress: bool = True
    half: bool = False  # store cascade weights in float16
    mesh_backend: str = "warp"  # warp | pytorch3d, where that package is installed

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) is not None:
                require_count(f"runtime.{name}", getattr(self, name), 1)
        require_count("runtime.seed", self.seed, 0)
        if self.memory != "auto" and (isinstance(self.memory, (str, bool)) or not 0 < self.memory < math.inf):
            raise ValueError(f"runtime.memory must be auto or a positive number of GB; got {self.memory!r}")
        if self.mesh_backend not in ("warp", "pytorch3d"):
            raise ValueError(f"runtime.mesh_backend must be warp or pytorch3d; got {self.mesh_backend!r}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"runtime.dtype must be one of {', '.join(_DTYPES)}; got {self.dtype!r}")

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype]

    def apply(self) -> torch.device:
        """Set threads, TF32, determinism and the mesh backend for this process and return the device."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(self.deterministic)
        if self.mesh_backend != "warp":  # the default starts on its first use: not every run needs it
            use_backend(self.mesh_backend)
        return self.own_device()

    def own_device(self) -> torch.device:
        """The device of this process: under torchrun every process of a machine has a CUDA device of its own, unless
        the user named one."""
        device = require_device(self.device)
        if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
            return device
        return require_device(f"cuda:{os.environ['LOCAL_RANK']}")


def require_device(name: str) -> torch.device:
    """The device of that name. CUDA is never silently replaced by the CPU, and MPS is refused.

    Raises ValueError where the device is unknown, unsupported or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N; got {name!r}") from None
    if device.type == "mps":
        raise ValueError("runtime.device=mps is not supported: float64 solves are missing there; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"runtime.device={name} was asked for, but torch sees no CUDA device; use runtime.device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"runtime.device={name} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return device


@dataclass(frozen=True, kw_only=True)
class TrainSpecs:
    """A whole training run."""

    model: ModelSpec
    data: DataSpec
    landmarks: LandmarkSourceSpec
    fitting: FittingSpec
    features: JointSpec
    regression: RegressionSpec
    cascade: StagesSpec
    cv: CvSpec
    runtime: RuntimeSpec

    def __post_init__(self) -> None:
        self.cascade.with_regression(self.regression)  # a contradiction is found now, not after an hour of rendering
        self._require_people()

    def _require_people(self) -> None:
        """Too few people are found before an hour of rendering; those of recorded sets are known once they are read."""
        if not isinstance(self.data, SyntheticPhotos):
            return
        people, folds = self.data.train_subjects, max(self.cv.nested, self.cv.folds if self.cv.splits_training else 0)
        if folds and people - -(-people // folds) < 2:
            raise ValueError(
                f"data.train_subjects={people} leaves fewer than 2 people to train on in {folds} folds; "
                "take more people, or set cv.nested=0"
            )

    def settled(self) -> "TrainSpecs":
        """The same run with what follows from its data: sets of photographs other than the synthetic ones bring their
        landmarks, and have no test people of their own, so that `holdout` means folds. Raises ValueError for `set`
        landmarks of synthetic sets."""
        if isinstance(self.data, SyntheticPhotos):
            if self.landmarks.source == "set":
                raise ValueError("landmarks.source=set is for prepared sets; synthetic ones take noise, truth or dlib")
            return self
        landmarks = self.landmarks
        if landmarks.source in ("noise", "truth"):
            landmarks = LandmarkSourceSpec(source="set")
        cv = self.cv
        if cv.protocol == "holdout":
            cv = replace(cv, protocol="group_kfold", nested=0)
        return replace(self, landmarks=landmarks, cv=cv)
