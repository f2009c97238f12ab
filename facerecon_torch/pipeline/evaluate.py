"""Errors of every method on one test set, per image, and the tables that a report prints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.metrics.bootstrap import paired_bootstrap, subject_interval
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.model.protocol import FaceModel
from facerecon_torch.structures import FaceParameters

__all__ = ["ALIGNMENTS", "REGIONS", "TRUTHS", "MethodErrors", "Truth", "compare", "method_errors", "summary"]

ALIGNMENTS = ("none", "translation", "similarity")
TRUTHS = ("M", "S")
REGIONS = ("whole", "centre")
_CHUNK = 128  # images whose vertices stand in memory at once


@dataclass(frozen=True)
class Truth:
    """Ground truth of one set: M (true meshes, mm), S* as parameters, and whose face each image shows."""

    meshes: Float[Tensor, "samples vertices 3"]
    parameters: FaceParameters
    subjects: Int[Tensor, "samples"]


@dataclass(frozen=True)
class MethodErrors:
    """Per image: `mae` and `rmse_z` in mm by (align, truth, region), and the signed size error in percent vs M."""

    mae: dict[tuple[str, str, str], Tensor]
    rmse_z: dict[tuple[str, str, str], Tensor]
    size_error: Tensor


def method_errors(model: FaceModel, estimate: FaceParameters, truth: Truth) -> MethodErrors:
    """Errors of `estimate` against M and S* on both vertex sets, under every alignment.

    The estimate stands in the model frame, where M was put by its ground-truth pose: no ICP, pose errors do not count
    (Eq. 14 and 15; RMSE over z, MAE over the Euclidean distance).
    """
    pieces: list[dict[Any, Tensor]] = []
    for start in range(0, len(truth.subjects), _CHUNK):
        rows = slice(start, start + _CHUNK)
        shape = model.vertices(estimate.identity[rows], estimate.expression[rows])
        star = model.vertices(truth.parameters.identity[rows], truth.parameters.expression[rows])
        pieces.append(_chunk_errors(model, shape, {"M": truth.meshes[rows].to(shape), "S": star}))
    joined = {key: torch.cat([piece[key] for piece in pieces]).cpu() for key in pieces[0]}
    keys = [(a, t, r) for a in ALIGNMENTS for t in TRUTHS for r in REGIONS]
    return MethodErrors(
        {k: joined[("mae", *k)] for k in keys}, {k: joined[("rmse", *k)] for k in keys}, joined["size_error"]
    )


def _chunk_errors(model: FaceModel, shape: Tensor, truths: dict[str, Tensor]) -> dict[Any, Tensor]:
    topology = model.topology
    if topology is None:
        raise ValueError("errors need a whole model; this one was restricted to some vertices")
    rows = {"whole": topology.whole_vertices, "centre": topology.centre_vertices}
    out: dict[Any, Tensor] = {}
    for truth_name, truth in truths.items():
        for region in REGIONS:
            index = rows[region].to(shape.device)
            for align in ALIGNMENTS:
                error = vertex_errors(shape, truth, align, rows=index)
                out["mae", align, truth_name, region] = error.mae
                out["rmse", align, truth_name, region] = error.rmse_z
                if (align, truth_name, region) == ("none", "M", "whole"):
                    out["size_error"] = error.size_error_percent
    return out


def _nested(values: Mapping[tuple[str, str, str], Tensor]) -> dict[str, Any]:
    return {
        align: {truth: {region: float(values[align, truth, region].mean()) for region in REGIONS} for truth in TRUTHS}
        for align in ALIGNMENTS
    }


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
