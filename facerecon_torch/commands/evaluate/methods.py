"""One method on one fold: its penalties chosen on the training people, its estimates of the tested faces."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.commands.evaluate.posed import PosedState
from facerecon_torch.commands.train.first_stage import FirstStageCache, SplitState, TrainSetup, choose_penalties
from facerecon_torch.commands.train.methods import baseline, fit_cascade, learned_from
from facerecon_torch.commands.train.samples import Samples, fit_meshes
from facerecon_torch.config.evaluate import MethodSpec
from facerecon_torch.config.train import FittingSpec
from facerecon_torch.fitting.dense_fit import DenseFitter
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import FaceParameters

__all__ = ["FoldSamples", "MethodFitter"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldSamples:
    """The training and test samples of one fold."""

    number: int
    train: Samples
    test: Samples


@dataclass
class MethodFitter:
    """Fits methods on folds; landmark fits, first features and their moments are shared by all that agree on them.

    Args:
        models: what methods describe faces with, by `MethodSpec.model`.
        crop_fitting: the landmark fit and crop that made the cached crops.
        convention: of the landmarks.
        cache: first stages of whole sets.
        seed: of shifted starts.
        chosen: landmark fits with the penalties chosen so far, by fold, model and landmark fit; fitters share them.
    """

    models: Mapping[str, FaceModel]
    crop_fitting: FittingSpec
    convention: str
    cache: FirstStageCache
    seed: int
    chosen: dict[tuple[int, str, FitSpec], FitSpec]
    _refitted: dict[tuple[int, str], Samples] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @in_own_precision
    def fit(self, name: str, method: MethodSpec, fold: FoldSamples) -> tuple[FaceParameters, list[dict[str, Any]]]:
        """The estimates of the tested faces of a fold, and the stages of a cascade."""
        with self._lock:
            fold = replace(fold, train=self._under(method, fold.train), test=self._under(method, fold.test))
        setup = self._setup(method, fold)
        with self._lock:  # one thread at a time makes a first stage; the others take it
            kind = PosedState if method.regress_pose else SplitState
            train = kind(fold.train, self.cache.first_stage(setup, fold.train))
            at_test = replace(setup.spec, start=method.test_start or setup.spec.start)
            test = kind(fold.test, self.cache.first_stage(replace(setup, spec=at_test), fold.test))
        if method.kind != "cascade":
            return baseline(method.kind, setup.model, train, {"test": test})["test"], []
        fitted = fit_cascade(setup, learned_from(setup, train), {"test": test}, tuple(setup.spec.features.blocks))
        _log.info("fold %d, %s: %d stages", fold.number, name, sum(stage["kept"] for stage in fitted.stages))
        return fitted.estimates["test"], fitted.stages

    def _under(self, method: MethodSpec, samples: Samples) -> Samples:
        """The same samples with S* of the method's model, which is fitted to the true meshes once per set."""
        if method.model == "own":
            return samples
        whole = samples if samples.whole is None else samples.whole
        key = (id(whole), method.model)
        if key not in self._refitted:
            model = self.models[method.model]
            parameters = fit_meshes(DenseFitter(model), whole.meshes, whole.places, model.identity_mean)
            self._refitted[key] = replace(whole, parameters=parameters)
        return self._refitted[key] if samples.whole is None else self._refitted[key][samples.rows]

    def _setup(self, method: MethodSpec, fold: FoldSamples) -> TrainSetup:
        ridge = method.cascade.ridge
        if ridge.memory is None:
            ridge = replace(ridge, memory=self.cache.memory.regression)
        spec = ReconstructorSpec(
            fit=self._fit_spec(method, fold),
            crop=self.crop_fitting.crop,
            features=method.features,
            start=method.cascade.start,
            crop_fit=self.crop_fitting.fit,
            convention=self.convention,
        )
        return TrainSetup(
            self.models[method.model], spec, replace(method.cascade, ridge=ridge), method.cascade.perturbed(self.seed)
        )

    def _fit_spec(self, method: MethodSpec, fold: FoldSamples) -> FitSpec:
        """The landmark fit of a method, with penalties chosen on the training people of the fold."""
        if not method.fitting.select_penalties:
            return method.fitting.fit
        key, model = (fold.number, method.model, method.fitting.fit), self.models[method.model]
        with self._lock:
            if key not in self.chosen:
                self.chosen[key] = choose_penalties(model, fold.train, method.fitting.fit)
            return self.chosen[key]
