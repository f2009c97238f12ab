"""The typed configuration of a training run: one frozen, self-checking dataclass per config group."""

from dataclasses import dataclass, field, replace

import torch

from facerecon_torch.cascade.start import Perturbation
from facerecon_torch.config.landmarks import settled_landmarks
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.specs import DataSpec, SyntheticPhotos
from facerecon_torch.data.splits import CvSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec
from facerecon_torch.regression.cascade import CascadeSpec

__all__ = ["FaceCascadeSpec", "FittingSpec", "TrainSpecs"]


@dataclass(frozen=True, kw_only=True)
class FittingSpec:
    """The landmark fit and the crop that follows from it."""

    fit: FitSpec = field(default_factory=FitSpec)
    crop: CropSpec = field(default_factory=CropSpec)
    select_penalties: bool = True  # choose both penalties on the training people instead of taking fit's


@dataclass(frozen=True, kw_only=True)
class FaceCascadeSpec(CascadeSpec):
    """The stages in a row, their ridge, and where they start."""

    start: str = "landmark_fit"  # landmark_fit | mean_face
    perturbed_copies: int = 0  # of every training sample, whose starts are shifted at random
    perturbation: float | int = 0.25  # of a weight's start, in standard deviations of the weight over people

    def __post_init__(self) -> None:
        super().__post_init__()
        self.perturbed(0)
        if self.start not in ("landmark_fit", "mean_face"):
            raise ValueError(f"cascade.start must be landmark_fit or mean_face; got {self.start!r}")

    def perturbed(self, seed: int) -> Perturbation:
        """The copies of training samples that start elsewhere."""
        return Perturbation(copies=self.perturbed_copies, deviations=self.perturbation, seed=seed)


@dataclass(frozen=True, kw_only=True)
class TrainSpecs:
    """A whole training run.

    Raises:
        ValueError: too few people for the folds (of recorded sets known only when they are read), or block sizes other
            than those of the features.
    """

    model: ModelSpec
    data: DataSpec
    landmarks: LandmarkSourceSpec
    fitting: FittingSpec
    features: JointSpec
    cascade: FaceCascadeSpec
    cv: CvSpec
    runtime: RuntimeSpec

    def __post_init__(self) -> None:
        sizes = self.cascade.ridge.block_sizes
        if sizes is not None and tuple(sizes) != self.features.block_sizes:
            raise ValueError(f"regression.block_sizes follow from features: {self.features.block_sizes}; got {sizes}")
        if not isinstance(self.data, SyntheticPhotos):
            return
        people, folds = self.data.train_subjects, max(self.cv.nested, self.cv.folds if self.cv.splits_training else 0)
        if folds and people - -(-people // folds) < 2:
            raise ValueError(
                f"data.train_subjects={people} leaves fewer than 2 people to train on in {folds} folds; "
                "take more people, or set cv.nested=0"
            )

    def settled(self, device: torch.device) -> "TrainSpecs":
        """The run as it will happen. `auto` landmarks become those of a named detector, and those that a prepared or
        fitted set brings. Such sets have no test people of their own, so that `holdout` becomes folds.

        Args:
            device: where a detector may run.

        Raises:
            ValueError: `set` landmarks of synthetic sets, `noise` or `truth` of others.
            DetectorError: `auto` landmarks of synthetic sets, and no detector can run.
        """
        landmarks = settled_landmarks(self.landmarks, self.data, device)
        if isinstance(self.data, SyntheticPhotos):
            return replace(self, landmarks=landmarks)
        cv = self.cv
        if cv.protocol == "holdout":
            cv = replace(cv, protocol="group_kfold", nested=0)
        return replace(self, landmarks=landmarks, cv=cv)
