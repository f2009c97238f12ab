"""Errors of every method on one test set, per image, and the tables that a report prints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.metrics.bootstrap import paired_bootstrap, subject_interval
from facerecon_torch.metrics.vertex_error import distance_errors, size_error_percent
from facerecon_torch.model.base import FaceModel
from facerecon_torch.report.tables import ALIGNMENTS
from facerecon_torch.runtime.ranks import GatherOrder
from facerecon_torch.structures import FaceParameters

__all__ = [
    "ALIGNMENTS",
    "COVERED",
    "REGIONS",
    "TRUTHS",
    "MethodErrors",
    "SetErrors",
    "TrueFaces",
    "error_table",
    "method_errors",
    "summary",
]

TRUTHS = ("M", "S")
REGIONS = ("whole", "centre")
COVERED = "_covered"  # the same vertex sets, of each image those alone that its scan holds
_CHUNK = 128  # images whose vertices stand in memory at once


@runtime_checkable
class TrueFaces(Protocol):
    """The ground truth of some photographs: S* as parameters, M as meshes, and the vertices that scans hold."""

    @property
    def parameters(self) -> FaceParameters:
        """S*."""

    def __len__(self) -> int: ...

    def true_meshes(self, part: slice, like: Tensor) -> Float[Tensor, "m vertices 3"]:
        """M of a part of the faces, on the device and in the dtype of `like`."""

    def covered_vertices(self, part: slice, device: torch.device) -> Bool[Tensor, "m vertices"] | None:
        """The vertices that the scans of a part of the faces hold; None if unknown."""


@dataclass(frozen=True)
class MethodErrors:
    """Per image: `mae` and `rmse_z` in mm by (align, truth, region), and the signed size error in percent vs M."""

    mae: dict[tuple[str, str, str], Tensor]
    rmse_z: dict[tuple[str, str, str], Tensor]
    size_error: Tensor

    def gathered(self, order: GatherOrder) -> "MethodErrors":
        """The errors of all processes, in the order of the data set."""
        return self._joined([self], order.gather)

    @classmethod
    def cat(cls, parts: Sequence["MethodErrors"]) -> "MethodErrors":
        """The errors of several sets, as of one."""
        return cls._joined(parts, lambda rows: rows)

    @classmethod
    def _joined(cls, parts: Sequence["MethodErrors"], change: Callable[[Tensor], Tensor]) -> "MethodErrors":
        first = parts[0]
        return cls(
            {k: change(torch.cat([part.mae[k] for part in parts])) for k in first.mae},
            {k: change(torch.cat([part.rmse_z[k] for part in parts])) for k in first.rmse_z},
            change(torch.cat([part.size_error for part in parts])),
        )


def method_errors(
    model: FaceModel, estimate: FaceParameters, truth: TrueFaces, *, own: FaceModel | None = None
) -> MethodErrors:
    """Errors of `estimate` against M and S* on both vertex sets, under every alignment; also on the covered vertices of
    each set, where these are known.

    The estimate stands in the model frame, where M was put by its ground-truth pose: no ICP, pose errors do not count
    (Eq. 14 and 15; RMSE over z, MAE over the Euclidean distance).

    Args:
        model: of S*.
        estimate: weights.
        truth: of the same faces.
        own: the model of the estimate, on the same mesh; None: `model`.
    """
    of_estimate = model if own is None else own
    pieces: list[dict[Any, Tensor]] = []
    for start in range(0, max(1, len(truth)), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(truth)))
        shape = of_estimate.vertices(estimate.identity[part], estimate.expression[part])
        star = model.vertices(truth.parameters.identity[part], truth.parameters.expression[part])
        truths = {"M": truth.true_meshes(part, shape), "S": star}
        pieces.append(_chunk_errors(model, shape, truths, truth.covered_vertices(part, shape.device)))
    joined = {key: torch.cat([piece[key] for piece in pieces]).cpu() for key in pieces[0]}
    masks = ("", COVERED) if ("mae", "none", "M", REGIONS[0] + COVERED) in joined else ("",)
    keys = list(product(ALIGNMENTS, TRUTHS, [region + mask for mask in masks for region in REGIONS]))
    return MethodErrors(
        {k: joined[("mae", *k)] for k in keys}, {k: joined[("rmse", *k)] for k in keys}, joined["size_error"]
    )


def _chunk_errors(
    model: FaceModel, shape: Tensor, truths: dict[str, Tensor], covered: Tensor | None
) -> dict[Any, Tensor]:
    topology = model.whole_topology("errors need a whole model")
    rows = {"whole": topology.whole_vertices, "centre": topology.centre_vertices}
    out: dict[Any, Tensor] = {}
    for region, places in rows.items():
        index = places.to(shape.device)
        own = shape[:, index]
        masks = {"": None} if covered is None else {"": None, COVERED: covered[:, index]}
        for name, truth in truths.items():
            true = truth[:, index]
            for align, (mask, known) in product(ALIGNMENTS, masks.items()):
                key = (align, name, region + mask)
                out[("mae", *key)], out[("rmse", *key)] = distance_errors(own, true, align, known=known)
            if (name, region) == ("M", "whole"):
                out["size_error"] = size_error_percent(own, true)
    return out


@dataclass(frozen=True)
class SetErrors:
    """Errors of every method on one set, and the subject and class of each image."""

    methods: dict[str, MethodErrors]
    subjects: Int[Tensor, "samples"]
    kinds: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        methods: dict[str, MethodErrors],
        subjects: Int[Tensor, "own"],
        kinds: Sequence[str] | None,
        order: GatherOrder,
    ) -> "SetErrors":
        """`methods` measured on the samples of all processes, in `order`; `subjects` are those of this process, `kinds`
        stand in the places of the data set."""
        gathered = None if kinds is None else tuple(kinds[k] for k in order.sorted_places.tolist())
        return cls(methods, order.gather(subjects), gathered)

    @classmethod
    def cat(cls, folds: Sequence["SetErrors"]) -> "SetErrors":
        """The errors of several folds, as of one set."""
        methods = {name: MethodErrors.cat([fold.methods[name] for fold in folds]) for name in folds[0].methods}
        kinds = None if folds[0].kinds is None else tuple(kind for fold in folds for kind in fold.kinds or ())
        return cls(methods, torch.cat([fold.subjects for fold in folds]), kinds)

    def report(self, generator: torch.Generator) -> dict[str, Any]:
        """Means of all methods, by class if known, and the cascade against each method by a bootstrap over subjects."""
        entries = {
            "methods": {name: summary(errors) for name, errors in self.methods.items()},
            "comparisons": _compare(self.methods, self.subjects, generator),
        }
        return entries if self.kinds is None else entries | {"by_kind": _by_kind(self.methods, self.kinds)}


def _nested(values: Mapping[tuple[str, str, str], Tensor]) -> dict[str, Any]:
    """[align][truth][region]; images without a covered vertex there do not count."""
    out: dict[str, Any] = {align: {truth: {} for truth in TRUTHS} for align in ALIGNMENTS}
    for (align, truth, region), errors in values.items():
        out[align][truth][region] = float(errors.nanmean())
    return out


def summary(errors: MethodErrors) -> dict[str, Any]:
    """Means over images: `mae_mm` and `rmse_z_mm` as [align][truth][region], and `size_error_percent`.

    `size_error_percent` is the mean signed error; `abs_size_error_percent` the mean of its magnitude.
    """
    return {
        "mae_mm": _nested(errors.mae),
        "rmse_z_mm": _nested(errors.rmse_z),
        "size_error_percent": float(errors.size_error.mean()),
        "abs_size_error_percent": float(errors.size_error.abs().mean()),
    }


def _by_kind(errors: Mapping[str, MethodErrors], kinds: Sequence[str]) -> dict[str, Any]:
    """Mean MAE in mm vs M on the whole face, no alignment, of every method on every class of photographs: class ->
    {images, mae_mm: method -> mm}."""
    out: dict[str, Any] = {}
    for kind in sorted(set(kinds)):
        rows = torch.tensor([k == kind for k in kinds])
        mae = {name: float(each.mae["none", "M", "whole"][rows].mean()) for name, each in errors.items()}
        out[kind] = {"images": int(rows.sum()), "mae_mm": mae}
    return out


def _compare(
    errors: Mapping[str, MethodErrors], subjects: Int[Tensor, "samples"], generator: torch.Generator
) -> dict[str, Any]:
    """Paired bootstrap over subjects of the cascade against every other method: mean difference in mm (negative: the
    cascade is better) with its 95 % interval, vs M on the whole face; and every method's own interval."""
    out: dict[str, Any] = {"difference_mm": {}, "interval_mm": {}}
    for name, other in errors.items():
        out["interval_mm"][name] = {}
        for align in ALIGNMENTS:
            key = (align, "M", "whole")
            own = subject_interval(other.mae[key], subjects, generator=generator)
            out["interval_mm"][name][align] = {"mean": own.mean, "low": own.low, "high": own.high}
            if name != "cascade" and "cascade" in errors:
                gap = paired_bootstrap(errors["cascade"].mae[key], other.mae[key], subjects, generator=generator)
                entry = {"mean": gap.mean, "low": gap.low, "high": gap.high}
                out["difference_mm"].setdefault(f"cascade - {name}", {})[align] = entry
    return out


def error_table(errors: Mapping[str, Any]) -> str:
    """A table of the MAE in mm vs M on the whole face, one line per method, from `report["test"]`."""
    lines = [f"{'test MAE, mm vs M':<20}{'none':>8}{'transl.':>9}{'simil.':>8}{'size %':>8}"]
    for name, entry in errors.items():
        none, translation, similarity = (entry["mae_mm"][a]["M"]["whole"] for a in ALIGNMENTS)
        lines.append(f"{name:<20}{none:8.3f}{translation:9.3f}{similarity:8.3f}{entry['size_error_percent']:8.2f}")
    return "\n".join(lines)
