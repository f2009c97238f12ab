"""One protocol on one set: the tested photographs, the estimates of every method, and their errors per image."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.evaluation.errors import REGIONS, MethodErrors, method_errors, summary
from facerecon_torch.evaluation.outside import Outside
from facerecon_torch.metrics.bootstrap import Interval, paired_bootstrap, subject_interval
from facerecon_torch.metrics.landmarks import area_under_ced
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import FaceParameters

__all__ = ["MEASURES", "Measure", "Study", "TestedFaces"]

CED_LIMIT = 10.0
"""Millimetres up to which the area under the cumulative error distribution is taken."""


@dataclass(frozen=True)
class Measure:
    """One error of Eq. 14 or 15: `mae` or `rmse_z` in mm after an alignment, vs M or S*, on a vertex set."""

    kind: str
    align: str
    truth: str
    region: str

    @property
    def name(self) -> str:
        """As in `mae none vs M whole`."""
        return f"{self.kind} {self.align} vs {self.truth} {self.region}"

    def of(self, errors: MethodErrors) -> Float[Tensor, "n"]:
        """The error of every image."""
        table: dict[tuple[str, str, str], Tensor] = getattr(errors, self.kind)
        return table[self.align, self.truth, self.region]


MEASURES = (
    Measure("mae", "none", "M", "whole"),
    Measure("mae", "similarity", "M", "whole"),
    Measure("rmse_z", "none", "S", "centre"),
    Measure("rmse_z", "none", "M", "whole"),
)
"""The errors in which methods are compared."""


@dataclass(frozen=True, kw_only=True)
class TestedFaces:
    """The tested photographs of a study, in the order of its folds, with their ground truth.

    Attributes:
        faces: files, landmarks, subjects, M and classes; one row per tested photograph.
        parameters: S*.
        folds: number of the fold that tested each photograph.
    """

    faces: FaceSet
    parameters: FaceParameters
    folds: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.faces)

    def true_meshes(self, part: slice, like: Tensor) -> Float[Tensor, "m vertices 3"]:
        """M of a part of the faces, on the device and in the dtype of `like`."""
        return self.faces.meshes[part].to(like.device).to(like.dtype)

    def covered_vertices(self, part: slice, device: torch.device) -> Bool[Tensor, "m vertices"] | None:
        """The vertices that the scans of a part of the faces hold; None if unknown."""
        return None if self.faces.covered is None else self.faces.covered[part].to(device)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The results of one protocol.

    Attributes:
        name: of the study.
        protocol: the folds in words; stands at every table.
        model: the face model.
        tested: the photographs.
        estimates: of every method, one row per photograph.
        models: of the methods whose estimates are weights of another model on the same mesh.
        errors: of every method.
        stages: of every cascade, the stages of every fold.
        training: images and subjects that trained, of each fold.
        reference: the method that all others are compared with.
        outside: other systems on some of the photographs.

    Example:
        >>> study = Study.measured(name="full", protocol="paper_5x5", model=model, tested=tested, estimates=estimates)
        >>> study.document(torch.Generator().manual_seed(0))["methods"]["ours"]
    """

    name: str
    protocol: str
    model: FaceModel
    tested: TestedFaces
    estimates: Mapping[str, FaceParameters]
    models: Mapping[str, FaceModel]
    errors: Mapping[str, MethodErrors]
    stages: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
    training: Sequence[Mapping[str, int]]
    reference: str
    outside: Outside | None = None

    @classmethod
    def measured(
        cls,
        *,
        model: FaceModel,
        tested: TestedFaces,
        estimates: Mapping[str, FaceParameters],
        models: Mapping[str, FaceModel] | None = None,
        **facts: Any,
    ) -> "Study":
        """The study of some estimates, whose errors are measured here; `facts` are the other attributes."""
        like, models = model.identity_mean, models or {}
        errors = {
            name: method_errors(model, estimate.to(like.device, like.dtype), tested, own=models.get(name))
            for name, estimate in estimates.items()
        }
        return cls(model=model, tested=tested, estimates=estimates, models=models, errors=errors, **facts)

    @cached_property
    def cpu_model(self) -> FaceModel:
        """A copy of the model on the CPU, for pictures; `model` stays where it is."""
        return deepcopy(self.model).to("cpu")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The class of every photograph, without its code; `all` where the set has none."""
        kinds = self.tested.faces.kinds
        return ("all",) * len(self.tested) if kinds is None else tuple(kind.partition("_")[0] for kind in kinds)

    @property
    def codes(self) -> tuple[str, ...]:
        """The code of every photograph within its class; empty where it has none."""
        kinds = self.tested.faces.kinds
        return ("",) * len(self.tested) if kinds is None else tuple(kind.partition("_")[2] for kind in kinds)

    def rows(self, kind: str) -> Bool[Tensor, "n"]:
        """Whether each photograph is of a class."""
        return torch.tensor([own == kind for own in self.kinds])

    def interval(self, method: str, measure: Measure, generator: torch.Generator) -> Interval:
        """The mean of a measure over all images, with its 95 % interval over subjects."""
        return subject_interval(measure.of(self.errors[method]), self.tested.faces.subjects, generator)

    def gap(
        self, method: str, other: str, measure: Measure, generator: torch.Generator, *, statistic: str = "difference"
    ) -> Interval:
        """`method` - `other` in mm, or their ratio, with its 95 % interval from a paired bootstrap over subjects."""
        a, b = (measure.of(self.errors[name]) for name in (method, other))
        return paired_bootstrap(a, b, self.tested.faces.subjects, generator, statistic=statistic)

    def document(self, generator: torch.Generator) -> dict[str, Any]:
        """The results as plain values: what metrics.json holds of this study."""
        subjects = self.tested.faces.subjects
        return {
            "protocol": self.protocol,
            "reference": self.reference,
            "counts": {
                "images": len(self.tested),
                "subjects": len(torch.unique(subjects)),
                "folds": len(torch.unique(self.tested.folds)),
                "training": [dict(counts) for counts in self.training],
            },
            "methods": {name: self._method(name, generator) for name in self.errors},
            "comparisons": {
                f"{self.reference} - {other}": self._comparison(other, generator)
                for other in self.errors
                if other != self.reference and self.reference in self.errors
            },
            "by_kind": self._by_kind(),
            "stages": {name: [list(map(dict, fold)) for fold in folds] for name, folds in self.stages.items()},
            **({} if self.outside is None else {"outside": self.outside.report(self.reference, generator)}),
        }

    def _method(self, name: str, generator: torch.Generator) -> dict[str, Any]:
        errors = self.errors[name]
        intervals = {m.name: _plain(self.interval(name, m, generator)) for m in MEASURES}
        areas = {region: float(area_under_ced(errors.mae["none", "M", region], CED_LIMIT)) for region in REGIONS}
        return summary(errors) | {"interval_mm": intervals, "auc_10mm": areas}

    def _comparison(self, other: str, generator: torch.Generator) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for measure in MEASURES:
            gap = self.gap(self.reference, other, measure, generator)
            ratio = self.gap(self.reference, other, measure, generator, statistic="ratio")
            out[measure.name] = {"difference_mm": _plain(gap), "percent": _plain(ratio, lambda r: 100 * (r - 1))}
        return out

    def _by_kind(self) -> dict[str, Any]:
        """Mean MAE in mm vs M, no alignment, of every class and of every code in it: class -> {images, mae_mm}."""
        kinds = self.tested.faces.kinds
        if kinds is None:
            return {}
        table: dict[str, Any] = {}
        for kind in sorted({*self.kinds, *kinds}):
            rows = torch.tensor([kind in (own, code) for own, code in zip(self.kinds, kinds, strict=True)])
            mae = {name: float(e.mae["none", "M", "whole"][rows].mean()) for name, e in self.errors.items()}
            table[kind] = {"images": int(rows.sum()), "mae_mm": mae}
        return table


def _plain(interval: Interval, change: Any = float) -> dict[str, float | None]:
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: None if value is None else change(value) for name, value in values.items()}


def measure_columns(errors: MethodErrors) -> dict[str, Float[Tensor, "n"]]:
    """Every error per image by its column name: mae_none_M_whole, rmse_z_none_S_centre, ..., size_error_percent."""
    columns = {"size_error_percent": errors.size_error}
    for kind in ("mae", "rmse_z"):
        table: dict[tuple[str, str, str], Tensor] = getattr(errors, kind)
        columns |= {"_".join((kind, *key)): values for key, values in table.items()}
    return columns
