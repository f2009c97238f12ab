"""One study: methods fitted on every fold of a set and stored, then measured from what is stored."""

import logging
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.feature_cache import row_bytes
from facerecon_torch.commands.evaluate.crops import CROPS, band_limited, with_features
from facerecon_torch.commands.evaluate.methods import FoldSamples, MethodFitter
from facerecon_torch.commands.evaluate.store import EstimateStore, FoldEstimates, digest
from facerecon_torch.commands.train.first_stage import FirstStageCache
from facerecon_torch.commands.train.samples import Samples, prepare_samples
from facerecon_torch.commands.train.sets import load_sets
from facerecon_torch.commands.train.train import make_splits
from facerecon_torch.config.evaluate import EvaluateSpecs, MethodSpec
from facerecon_torch.config.recorded import recorded
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.errors import DataFileError
from facerecon_torch.evaluation.study import Study, TestedFaces
from facerecon_torch.external.folder import system_folders
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.fitting.dense_fit import DenseFitter
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.model.load import load_face_model
from facerecon_torch.model.variants import model_variant
from facerecon_torch.runtime.memory import MemoryBudget, memory_budget
from facerecon_torch.runtime.timer import Timer
from facerecon_torch.structures import FaceParameters

__all__ = ["StudyRun"]

_log = logging.getLogger(__name__)


@dataclass
class StudyRun:
    """A study on its way: `fit` stores the estimates of all methods and folds, `measured` reads them.

    Args:
        specs: settled.
        store: folder of the estimates.
        device: of the work.
        timer: of the parts of the run.

    Example:
        >>> run = StudyRun(specs, EstimateStore(folder), device, Timer(device))
        >>> run.fit()
        >>> study = run.measured()
    """

    specs: EvaluateSpecs
    store: EstimateStore
    device: torch.device
    timer: Timer

    def __post_init__(self) -> None:
        self.model = load_face_model(self.specs.model).to(self.device, self.specs.runtime.torch_dtype)
        variants = {method.model for method in self.specs.method.values()}
        self.models = {name: model_variant(self.model, name) for name in variants}
        missing = [str(folder) for folder in system_folders(self.specs.evaluation.external) if not folder.is_dir()]
        if missing:  # before hours of training
            raise ValueError(f"evaluation.external must name folders of results; there is no {', '.join(missing)}")
        with self.timer.timed("data"):
            self.sets = self._load()
        if self.specs.cv.splits_training:  # too few people are refused before crops are cut
            self.specs.cv.draw(self.sets["train"].subjects, torch.Generator())

    def fit(self) -> None:
        """Fit all methods on all folds, but those that are stored already."""
        missing = [name for name in self.specs.method if not self._is_stored(name)]
        if not missing:
            _log.info("%s: all estimates are stored", self.specs.evaluation.study)
            return
        budget = memory_budget(self.specs.runtime.memory, self.device)
        with self.timer.timed("prepare"):
            samples = self._samples(budget)
        chosen: dict[tuple[int, str, FitSpec], FitSpec] = {}
        for hog, names in self._by_features(missing).items():
            self._fit_group(names, hog, samples, budget, chosen)

    def _fit_group(
        self,
        names: list[str],
        hog: HogSpec,
        samples: Mapping[str, Samples],
        budget: MemoryBudget,
        chosen: dict[tuple[int, str, FitSpec], FitSpec],
    ) -> None:
        """Fit the methods that read one table of features; the table is dropped afterwards."""
        with self.timer.timed("features"):
            tables = {key: self._with_features(own, hog, budget) for key, own in samples.items()}
        cache = FirstStageCache(budget)
        specs, convention = self.specs, self.sets["train"].convention
        fitter = MethodFitter(self.models, specs.fitting, convention, cache, specs.runtime.seed, chosen)
        folds = self._folds(tables)
        for name in names:
            with self.timer.timed(f"fit {name}"), ThreadPoolExecutor(self.specs.evaluation.folds_at_once) as pool:
                list(pool.map(partial(self._fit_fold, fitter, name), folds))

    def measured(self) -> Study:
        """The study of the stored estimates.

        Raises:
            DataFileError: a method is not stored, or for other photographs than another.
        """
        with self.timer.timed("measure"):
            stored = {name: self._stored(name) for name in self.specs.method}
            first = next(iter(stored.values()))
            for name, folds in stored.items():
                if [f.places.tolist() for f in folds] != [f.places.tolist() for f in first]:
                    raise DataFileError(
                        f"{self.store.folder}: expected {name} on the photographs of the other methods; its differ"
                    )
            places = torch.cat([fold.places for fold in first])
            numbers = torch.tensor([k for k, fold in enumerate(first) for _ in range(len(fold.places))])
            faces = self._tested_set[places]
            return Study.measured(
                model=self.model,
                tested=TestedFaces(faces=faces, parameters=self._true_parameters(faces), folds=numbers),
                estimates={k: FaceParameters.cat([f.parameters for f in folds]) for k, folds in stored.items()},
                models={
                    name: self.models[method.model]
                    for name, method in self.specs.method.items()
                    if method.model != "own"
                },
                name=self.specs.evaluation.study,
                protocol=self.specs.protocol,
                stages={name: [f.stages for f in folds] for name, folds in stored.items() if folds[0].stages},
                training=[fold.training for fold in first],
                reference=self.specs.evaluation.reference,
            )

    @property
    def _tested_set(self) -> FaceSet:
        return self.sets.get("test", self.sets["train"])

    def _load(self) -> dict[str, FaceSet]:
        """The people of the study and, where they are others, the tested ones, with numbers of their own."""
        specs = self.specs
        file = None if specs.model.path is None else Path(specs.model.path)
        load = partial(load_sets, landmarks=specs.landmarks, runtime=specs.runtime, model=self.model, model_file=file)
        names = ("train", "test") if specs.cv.protocol == "holdout" else ("train",)
        sets = load(specs.data, names=names)
        if specs.test_data is not None:
            tested = load(specs.test_data)["train"]
            after = int(sets["train"].subjects.max()) + 1
            sets["test"] = replace(tested, subjects=tested.subjects + after)
        return sets

    def _samples(self, budget: MemoryBudget) -> dict[str, Samples]:
        """The crops of all sets; of two data sets both hold no more detail than the coarser one."""
        specs, fitting = self.specs, self.specs.fitting
        size = sum(map(len, self.sets.values())) * row_bytes(fitting.crop.size, CROPS)
        location = budget.cache_location(size, self.device, self._scratch)
        prepare = partial(
            prepare_samples, model=self.model, fit=fitting.fit, crop=fitting.crop, hog=CROPS, location=location,
            workers=specs.runtime.workers, progress=specs.runtime.progress,
        )  # fmt: skip
        samples = {name: prepare(faces) for name, faces in self.sets.items()}
        if specs.test_data is None:
            return samples
        coarsest = min(float(self._density(faces).median()) for faces in self.sets.values())
        ratio = coarsest / fitting.crop.px_per_mm
        _log.info(
            "both sets hold the detail of %.2f px/mm, %.0f %% of the crops' density", coarsest, 100 * min(1, ratio)
        )
        return {name: band_limited(own, ratio) for name, own in samples.items()}

    def _density(self, faces: FaceSet) -> Float[Tensor, "n"]:
        """Pixels per mm of each photograph at the face."""
        fit = LandmarkFitter(self.model, self.specs.fitting.fit).fit(faces.landmarks.to(self.device))
        return fit.camera.scale

    @property
    def _scratch(self) -> Path:
        return self.store.folder if self.store.folder.is_dir() else Path(tempfile.gettempdir())

    def _with_features(self, samples: Samples, hog: HogSpec, budget: MemoryBudget) -> Samples:
        crop = self.specs.fitting.crop
        location = budget.cache_location(len(samples) * row_bytes(crop.size, hog), self.device, self._scratch)
        return with_features(samples, hog, crop, location, progress=self.specs.runtime.progress)

    def _by_features(self, names: list[str]) -> dict[HogSpec, list[str]]:
        """The methods that read one table of features, together."""
        groups: dict[HogSpec, list[str]] = {}
        for name in names:
            groups.setdefault(self.specs.method[name].features.hog, []).append(name)
        return groups

    def _folds(self, samples: Mapping[str, Samples]) -> list[FoldSamples]:
        """The folds, the same for every table of features: they are drawn from the seed."""
        generator = torch.Generator().manual_seed(self.specs.runtime.seed)
        splits = make_splits(self.specs.cv, samples, generator)
        return [FoldSamples(split.fold or 0, split.train, split.test) for split in splits]

    def _fit_fold(self, fitter: MethodFitter, name: str, fold: FoldSamples) -> None:
        fingerprint = self._fingerprint(self.specs.method[name])
        if self.store.load(name, fold.number, fingerprint) is not None:
            return
        parameters, stages = fitter.fit(name, self.specs.method[name], fold)
        training = {"images": len(fold.train), "subjects": len(torch.unique(fold.train.subjects))}
        estimates = FoldEstimates(parameters, fold.test.places.cpu(), stages, training)
        self.store.save(name, fold.number, estimates, fingerprint)

    def _fingerprint(self, method: MethodSpec) -> str:
        """Of all that estimates depend on."""
        specs = self.specs
        folds = replace(specs.cv, fold="all")  # one fold alone is the same as among all
        parts = (specs.model, specs.data, specs.test_data, specs.landmarks, specs.fitting, folds, method)
        settings = [*map(recorded, parts), specs.runtime.seed, specs.runtime.dtype, self.model.sha256]
        return digest([*settings, *self._set_digests])

    @cached_property
    def _set_digests(self) -> list[str]:
        return [faces.digest() for faces in self.sets.values()]

    def _is_stored(self, name: str) -> bool:
        fingerprint = self._fingerprint(self.specs.method[name])
        return all(self.store.load(name, fold, fingerprint) is not None for fold in self._numbers)

    @property
    def _numbers(self) -> list[int]:
        return list(self.specs.cv.chosen) if self.specs.cv.splits_training else [0]

    def _stored(self, name: str) -> list[FoldEstimates]:
        fingerprint = self._fingerprint(self.specs.method[name])
        folds = [self.store.load(name, fold, fingerprint) for fold in self._numbers]
        if any(fold is None for fold in folds):
            raise DataFileError(
                f"{self.store.folder}: expected the estimates of {name} on {len(folds)} folds; not all are there"
            )
        return [fold for fold in folds if fold is not None]

    def _true_parameters(self, faces: FaceSet) -> FaceParameters:
        """S* of the tested photographs; fitted to M where the set does not bring it."""
        like = self.model.identity_mean
        if faces.parameters is not None:
            return faces.parameters.to(like.device, like.dtype)
        return DenseFitter(self.model)(faces.meshes.to(like.device, like.dtype))
