"""Tables of a training report, as Markdown: python -m facerecon_torch.report.tables RUN/report.json"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facerecon_torch.formats.json_file import read_json

__all__ = ["ALIGNMENTS", "error_table", "stage_table"]

ALIGNMENTS = ("none", "translation", "similarity")
"""Alignments under which reports give errors."""


def error_table(report: Mapping[str, Any], which: str = "test") -> str:
    """A Markdown table of the MAE in mm vs M on the whole face for every method of the set `which`.

    It also has the size errors, and the gap to the cascade under similarity with its 95 % subject-bootstrap interval.
    """
    gaps = report["comparisons"][which]["difference_mm"]
    lines = [
        f"| {which}, MAE in mm | none | translation | similarity | size error % | cascade - method, similarity |",
        "|---|---|---|---|---|---|",
    ]
    for name, errors in report[which].items():
        values = [f"{errors['mae_mm'][align]['M']['whole']:.3f}" for align in ALIGNMENTS]
        size = f"{errors['size_error_percent']:+.2f}"
        gap = gaps.get(f"cascade - {name}", {}).get("similarity")
        lines.append(f"| {name} | {' | '.join(values)} | {size} | {_interval(gap)} |")
    return "\n".join(lines)


def _interval(gap: Mapping[str, float] | None) -> str:
    if gap is None or gap["low"] is None:
        return "-"
    return f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"


def stage_table(stages: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of penalty, block weights and errors (mm) of every stage."""
    lines = [
        "| stage | relative penalty | block weights | cross-fitted MAE | test MAE | kept |",
        "|---|---|---|---|---|---|",
    ]
    for stage in stages:
        penalty = stage["relative_penalty"]
        strength = "zero update" if penalty is None else f"{penalty:.3g}"
        test = "-" if stage["test_mae_mm"] is None else f"{stage['test_mae_mm']:.3f}"
        fitted = "-" if stage["cross_fitted_mae_mm"] is None else f"{stage['cross_fitted_mae_mm']:.3f}"
        weights = ", ".join(f"{w:g}" for w in stage["block_weights"])
        lines.append(
            f"| {stage['stage']} | {strength} | {weights} | {fitted} | {test} | {'yes' if stage['kept'] else 'no'} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the tables of one report; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m facerecon_torch.report.tables RUN/report.json\n")
        return 2
    report = read_json(Path(arguments[0]))
    parts = [stage_table(report["stages"]), *(error_table(report, s) for s in ("test", "shifted") if s in report)]
    if "nested" in report:
        folds = {"nested": report["nested"]["methods"], "comparisons": {"nested": report["nested"]["comparisons"]}}
        parts.append(error_table(folds, "nested"))
    sys.stdout.write("\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
