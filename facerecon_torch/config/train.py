"""The typed configuration of a training run: one frozen, self-checking dataclass per config group."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from facerecon_torch.checks import require_count
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.specs import DataSpec, SyntheticPhotos
from facerecon_torch.data.splits import CvSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec
from facerecon_torch.regression.cascade import CascadeSpec
from facerecon_torch.regression.stage_spec import DEFAULT_RHOS

__all__ = ["FittingSpec", "RegressionSpec", "StagesSpec", "TrainSpecs"]


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
