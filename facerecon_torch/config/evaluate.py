"""The typed configuration of an evaluation: its methods, its protocol and what its page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from facerecon_torch.cascade.checkpoint import STARTS
from facerecon_torch.checks import require_count
from facerecon_torch.config.landmarks import settled_landmarks
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.config.train import FaceCascadeSpec, FittingSpec
from facerecon_torch.data.specs import DataSpec, SyntheticPhotos
from facerecon_torch.data.splits import CvSpec
from facerecon_torch.evaluation.sections.registry import SECTIONS
from facerecon_torch.external.folder import system_folders
from facerecon_torch.external.peers import PEERS
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec
from facerecon_torch.model.variants import VARIANTS

__all__ = ["METHOD_KINDS", "EvaluateSpecs", "EvaluationSpec", "MethodSpec"]

METHOD_KINDS = ("mean_face", "landmark_fit", "landmark_fit_bias", "cascade")


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One method: the mean face, a landmark fit, or a cascade.

    Attributes:
        kind: mean_face, landmark_fit, landmark_fit_bias (with the mean training residual added), or cascade.
        fitting: the landmark fit, whose penalties are chosen on the training people of every fold unless
            `select_penalties` is false. `crop` is not used: all methods see the same crops.
        features: of a cascade.
        cascade: its stages and where training samples start.
        test_start: where tested faces start; None: as in training.
        regress_pose: the cascade also regresses the camera, instead of solving it again after every stage.
        model: what the landmark fit and the cascade describe faces with: the face model of the run (`own`), the same
            with a free gauge (`free_gauge`), or its linear part (`linear`).

    Raises:
        ValueError: an unknown kind, start or model.
    """

    kind: str = "cascade"
    fitting: FittingSpec = field(default_factory=FittingSpec)
    features: JointSpec = field(default_factory=JointSpec)
    cascade: FaceCascadeSpec = field(default_factory=FaceCascadeSpec)
    test_start: str | None = None
    regress_pose: bool = False
    model: str = "own"

    def __post_init__(self) -> None:
        if self.kind not in METHOD_KINDS:
            raise ValueError(f"method.NAME.kind must be one of {', '.join(METHOD_KINDS)}; got {self.kind!r}")
        if self.model not in VARIANTS:
            raise ValueError(f"method.NAME.model must be one of {', '.join(VARIANTS)}; got {self.model!r}")
        if self.regress_pose and self.cascade.perturbed_copies:
            raise ValueError("method.NAME.regress_pose has no cascade.perturbed_copies; got both")
        if self.test_start not in (None, *STARTS):
            raise ValueError(f"method.NAME.test_start must be null, {' or '.join(STARTS)}; got {self.test_start!r}")


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """Settings of the report that an evaluation writes.

    Attributes:
        study: name of the run in tables and files.
        sections: experiments that the page shows of it, names of `evaluation.sections.registry.SECTIONS`.
        reference: the method that all others are compared with.
        folds_at_once: folds that run side by side, each on a thread of its own.
        parts: other experiments, which are run instead, into one folder and one page.
        facewarehouse: the prepared set that experiment=fig10_cross_dataset tests on.
        frgc: the prepared set that experiment=fig10_frgc tests on.
        external: folders of other systems' results, which fig8_external and fig9_external_gallery show.
        peers: systems that run here for these two; None: all that can run.
        external_images: tested photographs that these two look at, evenly spread.
        eos_tune: photographs of training people of each fold on which eos's settings are chosen.

    Raises:
        ValueError: an unknown section or system, no section, or external folders of one name.
    """

    study: str = "full"
    sections: Sequence[str] = ("methods",)
    reference: str = "ours"
    folds_at_once: int = 1
    parts: Sequence[str] = ()
    facewarehouse: str | None = None
    frgc: str | None = None
    external: Sequence[str] | str | None = None
    peers: Sequence[str] | None = None
    external_images: int = 100
    eos_tune: int = 20

    def __post_init__(self) -> None:
        require_count("evaluation.folds_at_once", self.folds_at_once, 1)
        require_count("evaluation.external_images", self.external_images, 1)
        require_count("evaluation.eos_tune", self.eos_tune, 1)
        system_folders(self.external)
        strange = sorted(set(self.peers or ()) - set(PEERS))
        if strange:
            raise ValueError(f"evaluation.peers must be among {', '.join(PEERS)}; got {', '.join(strange)}")
        unknown = sorted(set(self.sections) - set(SECTIONS))
        if unknown or not self.sections:
            raise ValueError(
                f"evaluation.sections must be among {', '.join(SECTIONS)}; got {', '.join(unknown) or 'none'}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSpecs:
    """A whole evaluation.

    Raises:
        ValueError: no method, or a reference that is none of them.
    """

    model: ModelSpec
    data: DataSpec
    test_data: DataSpec | None
    landmarks: LandmarkSourceSpec
    fitting: FittingSpec  # of the crops, which all methods share
    method: Mapping[str, MethodSpec]
    cv: CvSpec
    runtime: RuntimeSpec
    evaluation: EvaluationSpec

    def __post_init__(self) -> None:
        if self.evaluation.reference not in self.method:
            raise ValueError(
                f"evaluation.reference must be one of the methods {', '.join(self.method)}; "
                f"got {self.evaluation.reference!r}"
            )
        if (variant := self.method[self.evaluation.reference].model) != "own":
            raise ValueError(f"evaluation.reference must be a method with model=own; got one with model={variant}")
        if isinstance(self.data, SyntheticPhotos) and self.test_data is not None:
            raise ValueError(
                "test_data is for data=bosphorus, facewarehouse or frgc; synthetic photographs have a test set"
            )

    def settled(self, device: torch.device) -> "EvaluateSpecs":
        """The run as it will happen: `auto` landmarks become a named detector, or those that a set brings; with test
        people of their own, as with `test_data`, the protocol is holdout, without them holdout becomes folds.

        Raises:
            ValueError: `set` landmarks of synthetic sets, `noise` or `truth` of others.
            DetectorError: `auto` landmarks of synthetic sets, and no detector can run.
        """
        landmarks, cv = settled_landmarks(self.landmarks, self.data, device), self.cv
        if self.test_data is not None:
            cv = CvSpec(nested=0)
        elif cv.protocol == "holdout" and not isinstance(self.data, SyntheticPhotos):
            cv = replace(cv, protocol="group_kfold")
        return replace(self, landmarks=landmarks, cv=replace(cv, nested=0))

    @property
    def protocol(self) -> str:
        """The folds in words, for tables."""
        if self.test_data is not None:
            return f"trained on {self.data.__dict__.get('name')}, tested on {self.test_data.__dict__.get('name')}"
        words = {
            "paper_5x5": "paper_5x5: 5 experiments with 5 test subjects each, all others train",
            "group_kfold": f"group_kfold: {self.cv.folds} folds that part the subjects",
            "holdout": "holdout: the set's own test people",
        }[self.cv.protocol]
        return words + ("" if self.cv.fold == "all" else f", fold {self.cv.fold} alone")
