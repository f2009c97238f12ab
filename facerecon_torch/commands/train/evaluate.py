"""Errors of every method on one test set, per image, and the tables that a report prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.commands.train.everyone import Everyone
from facerecon_torch.metrics.bootstrap import paired_bootstrap, subject_interval
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.model.base import FaceModel
from facerecon_torch.report.tables import ALIGNMENTS
from facerecon_torch.structures import FaceParameters

__all__ = [
    "ALIGNMENTS",
    "REGIONS",
    "TRUTHS",
    "MethodErrors",
    "Truth",
    "by_kind",
    "compare",
    "method_errors",
    "summary",
]

TRUTHS = ("M", "S")
REGIONS = ("whole", "centre")
COVERED = "_covered"  # the same vertex sets, of each image those alone that its scan holds
_CHUNK = 128  # images whose vertices stand in memory at once


@dataclass(frozen=True)
class Truth:
    """Ground truth of one set: M (true meshes, mm), S* as parameters, and whose face each image shows; of sets made of
    scans also which vertices each scan holds, and the class of each photograph.

    `meshes` and `covered` are tables that are never copied, on whatever device they came on: sample i is their row
    `rows[i]`, or row i itself.
    """

    meshes: Float[Tensor, "table vertices 3"]
    parameters: FaceParameters
    subjects: Int[Tensor, "samples"]
    covered: Bool[Tensor, "table vertices"] | None = None
    kinds: tuple[str, ...] | None = None
    rows: Int[Tensor, "samples"] | None = None

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, rows: Int[Tensor, "rows"]) -> "Truth":
        kinds = None if self.kinds is None else tuple(self.kinds[i] for i in rows.tolist())
        at = rows if self.rows is None else self.rows[rows]
        return Truth(self.meshes, self.parameters[rows], self.subjects[rows], self.covered, kinds, at)

    def true_meshes(
        self, part: slice, like: Tensor, vertices: Int[Tensor, "some"] | None = None
    ) -> Float[Tensor, "m some 3"]:
        """M of a part of the samples, all vertices or some, on the device and in the dtype of `like`."""
        return self._taken(self.meshes, part, vertices).to(like.device).to(like.dtype)

    def known_vertices(self, part: slice, device: torch.device) -> Bool[Tensor, "m vertices"] | None:
        """Which vertices the scans of a part of the samples hold, where that is known."""
        return None if self.covered is None else self._taken(self.covered, part).to(device)

    def _taken(self, table: Tensor, part: slice, columns: Int[Tensor, "some"] | None = None) -> Tensor:
        rows = part if self.rows is None else self.rows[part].to(table.device)
        if columns is None:
            return table[rows]
        # At once: whole rows of thousands of samples would be a copy of the table.
        return table[rows if isinstance(rows, slice) else rows[:, None], columns.to(table.device)]

    @property
    def regions(self) -> tuple[str, ...]:
        """The vertex sets that errors are told on: `whole` and `centre`, and the covered part of each where known."""
        return REGIONS if self.covered is None else (*REGIONS, *(f"{region}{COVERED}" for region in REGIONS))


@dataclass(frozen=True)
class MethodErrors:
    """Per image: `mae` and `rmse_z` in mm by (align, truth, region), and the signed size error in percent vs M."""

    mae: dict[tuple[str, str, str], Tensor]
    rmse_z: dict[tuple[str, str, str], Tensor]
    size_error: Tensor

    def gathered(self, everyone: Everyone) -> "MethodErrors":
        """Those of all processes, in the set's own order."""
        return MethodErrors(
            {k: everyone.gather(v) for k, v in self.mae.items()},
            {k: everyone.gather(v) for k, v in self.rmse_z.items()},
            everyone.gather(self.size_error),
        )


def method_errors(model: FaceModel, estimate: FaceParameters, truth: Truth) -> MethodErrors:
    """Errors of `estimate` against M and S* on both vertex sets, under every alignment.

    The estimate stands in the model frame, where M was put by its ground-truth pose: no ICP, pose errors do not count
    (Eq. 14 and 15; RMSE over z, MAE over the Euclidean distance).
    """
    pieces: list[dict[Any, Tensor]] = []
    for start in range(0, max(1, len(truth)), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(truth)))
        shape = model.vertices(estimate.identity[part], estimate.expression[part])
        star = model.vertices(truth.parameters.identity[part], truth.parameters.expression[part])
        truths = {"M": truth.true_meshes(part, shape), "S": star}
        pieces.append(_chunk_errors(model, shape, truths, truth.known_vertices(part, shape.device)))
    joined = {key: torch.cat([piece[key] for piece in pieces]).cpu() for key in pieces[0]}
    keys = [(a, t, r) for a in ALIGNMENTS for t in TRUTHS for r in truth.regions]
    return MethodErrors(
        {k: joined[("mae", *k)] for k in keys}, {k: joined[("rmse", *k)] for k in keys}, joined["size_error"]
    )


def _chunk_errors(
    model: FaceModel, shape: Tensor, truths: dict[str, Tensor], covered: Tensor | None
) -> dict[Any, Tensor]:
    topology = model.topology
    if topology is None:
        raise ValueError("errors need a whole model; this one was restricted to some vertices")
    rows = {"whole": topology.whole_vertices, "centre": topology.centre_vertices}
    masks = {"": None} if covered is None else {"": None, COVERED: covered}
    out: dict[Any, Tensor] = {}
    for truth_name, region, align, mask in product(truths, REGIONS, ALIGNMENTS, masks):
        index = rows[region].to(shape.device)
        error = vertex_errors(shape, truths[truth_name], align, rows=index, known=masks[mask])
        out["mae", align, truth_name, region + mask] = error.mae
        out["rmse", align, truth_name, region + mask] = error.rmse_z
        if (align, truth_name, region + mask) == ("none", "M", "whole"):
            out["size_error"] = error.size_error_percent
    return out


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


def by_kind(errors: Mapping[str, MethodErrors], kinds: Sequence[str]) -> dict[str, Any]:
    """Mean MAE in mm vs M on the whole face, no alignment, of every method on every class of photographs: class ->
    {images, mae_mm: method -> mm}."""
    out: dict[str, Any] = {}
    for kind in sorted(set(kinds)):
        rows = torch.tensor([k == kind for k in kinds])
        mae = {name: float(each.mae["none", "M", "whole"][rows].mean()) for name, each in errors.items()}
        out[kind] = {"images": int(rows.sum()), "mae_mm": mae}
    return out


def compare(
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
