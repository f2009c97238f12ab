"""report.json of a prepared set, and the table that is printed at the end of the run."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.data.prepared import PreparedSet
from facerecon_torch.data.recordings import Recording

__all__ = ["prepare_table", "summarise"]

ALL = "all"
_SHOWN = ("scan_to_fit", "scan_to_mesh", "landmark_residual", "eyelid_residual", "inlier_share")


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
