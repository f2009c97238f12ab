"""Reports of a prepared set: report.json, the table that is printed, and pictures of a few samples for review."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.commands.prepare.read import ReadyScan
from facerecon_torch.data.prepared import CROPS, PreparedSet
from facerecon_torch.data.recordings import Recording
from facerecon_torch.images.read import read_image
from facerecon_torch.images.write import save_png
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.register import Registered
from facerecon_torch.report.registration import draw_landmark_pair, draw_shaded, grid_mesh

__all__ = ["choose_pictured", "draw_sample", "prepare_table", "summarise"]

ALL = "all"
_SHOWN = ("scan_to_fit", "scan_to_mesh", "landmark_residual", "eyelid_residual", "inlier_share")
_PICTURES = "pictures"


def summarise(prepared: PreparedSet, recordings: Sequence[Recording]) -> dict[str, Any]:
    """For every class and for all: counts, median and 95th percentile of every measure, flags and failures."""
    kinds = list(dict.fromkeys(recording.kind for recording in recordings))
    kind_of = {recording.name: recording.kind for recording in recordings}
    rows = {kind: [k for k, other in enumerate(prepared.kinds) if other == kind] for kind in kinds}
    failures = Counter(kind_of[name] for name in prepared.failures)
    together = _summary(prepared, list(range(len(prepared))), len(prepared.failures))
    return {ALL: together} | {kind: _summary(prepared, rows[kind], failures[kind]) for kind in kinds}


def _summary(prepared: PreparedSet, rows: list[int], failures: int) -> dict[str, Any]:
    flags = Counter(flag for row in rows for flag in prepared.flags[row])
    return {
        "recordings": len(rows) + failures,
        "samples": len(rows),
        "failures": failures,
        "with_landmarks": int(prepared.has_landmarks[rows].sum()),
        "flags": dict(sorted(flags.items())),
        "measures": {name: _spread(values[rows]) for name, values in sorted(prepared.measures.items())},
    }


def _spread(values: Tensor) -> dict[str, float] | None:
    """Median and 95th percentile of the finite values; None where there are none, such as eyelids without lifted
    points."""
    finite = values.double()[torch.isfinite(values)]
    if not len(finite):
        return None
    median, high = torch.quantile(finite, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {"median": round(median, 4), "p95": round(high, 4)}


def prepare_table(summary: dict[str, Any]) -> str:
    """One line per class: samples, failures, and median / 95th percentile of the main measures."""
    measures = [name for name in _SHOWN if name in summary[ALL]["measures"]]
    wide = max(8, *(len(kind) + 1 for kind in summary))
    titles = "".join(f"{name.replace('_', ' '):>20}" for name in measures)
    spreads = "".join(f"{'median / p95':>20}" for _ in measures)
    lines = [f"{'class':<{wide}}{'samples':>8}{'failed':>8}{titles}", f"{'':<{wide + 16}}{spreads}"]
    for kind, row in summary.items():
        cells = "".join(f"{_cell(row['measures'][name]):>20}" for name in measures)
        lines.append(f"{kind:<{wide}}{row['samples']:>8}{row['failures']:>8}{cells}")
    flags = ", ".join(f"{count} {flag}" for flag, count in summary[ALL]["flags"].items())
    return "\n".join([*lines, f"flags: {flags or 'none'}"])


def _cell(spread: dict[str, float] | None) -> str:
    return f"{spread['median']:.2f} / {spread['p95']:.2f}" if spread else "-"


def choose_pictured(recordings: Sequence[Recording], count: int) -> frozenset[str]:
    """Names of `count` recordings: one of every class in turn, and within a class one of every subject in turn."""
    turns: list[tuple[int, int, str]] = []
    kinds = list(dict.fromkeys(recording.kind for recording in recordings))
    for place, kind in enumerate(kinds):
        repeats: dict[str, int] = {}
        ordered = []
        for recording in (recording for recording in recordings if recording.kind == kind):
            repeats[recording.subject] = repeats.get(recording.subject, -1) + 1
            ordered.append((repeats[recording.subject], recording.name))
        ordered.sort()
        # the classes start at different subjects; otherwise one person would stand for all of them
        shift = place % len(ordered)
        turns += [(turn, place, name) for turn, (_, name) in enumerate((*ordered[shift:], *ordered[:shift]))]
    return frozenset(name for _, _, name in sorted(turns)[:count])


def draw_sample(folder: Path, image: str, ready: ReadyScan, registered: Registered, model: FaceModel) -> None:
    """Write pictures/NAME_landmarks.png, the crop with the data set's own landmarks beside that with the 66 used, and
    pictures/NAME_scan_fit_mesh.png: scan, S* and M, seen from the sensor. `registered` holds this sample alone.

    Raises ValueError for a model without topology.
    """
    topology = model.whole_topology("a picture needs a whole model")
    name = ready.recording.name
    pair = draw_landmark_pair(read_image(folder / CROPS / image), ready.marks, ready.landmarks)
    save_png(pair, folder / _PICTURES / f"{name}_landmarks.png")
    triangles = topology.triangles.cpu()
    parameters = registered.parameters.to(model.device, model.dtype)
    fitted = model.vertices(parameters.identity, parameters.expression).float().cpu()
    meshes = [mesh @ registered.rotation.mT + registered.translation[:, None] for mesh in (fitted, registered.mesh)]
    scan = grid_mesh(ready.scan.points[0], ready.scan.valid[0], longest=4 * ready.scan.spacing)
    with torch.no_grad():
        panels = [scan, *((mesh[0], triangles) for mesh in meshes)]
        save_png(draw_shaded(panels), folder / _PICTURES / f"{name}_scan_fit_mesh.png")
