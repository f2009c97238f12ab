"""Scaling plots: throughput over N, D, stages, landmarks or batch."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from .case import Row, slug

__all__ = ["MISSING", "draw_scaling"]

MISSING = "no plots: matplotlib is not installed; pip install 'facerecon-torch[bench]' brings it"
_STYLE = {"cpu": "-", "cuda": "--"}


def draw_scaling(folder: Path, bench: str, rows: Mapping[str, Sequence[Row]]) -> list[Path]:
    """A PNG for every axis on which a case of `rows` (by device type) has two points or more.

    Raises ImportError where matplotlib is not installed.
    """
    lines = _lines(rows)
    axes = sorted({axis for axis, *_ in lines})
    if not axes:
        return []
    figure_of = importlib.import_module("matplotlib.figure").Figure
    written = []
    for axis in axes:
        figure = figure_of(figsize=(9, 5), layout="constrained")
        plot = figure.add_subplot()
        for (mine, name, device), points in sorted(lines.items()):
            if mine == axis:
                x, y = zip(*sorted(points))
                plot.loglog(x, y, _STYLE.get(device, ":"), marker="o", label=f"{name} ({device})")
        plot.set_xlabel(axis)
        plot.set_ylabel("items per second")
        plot.set_title(bench)
        plot.grid(True, which="both", alpha=0.3)
        plot.legend(fontsize="x-small")
        path = folder / f"{slug(bench)}--over-{slug(axis)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        written.append(path)
    return written


def _lines(rows: Mapping[str, Sequence[Row]]) -> dict[tuple[str, str, str], list[tuple[float, float]]]:
    """(axis, case, device) -> points; cases of one name in several groups are one line."""
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for device, found in rows.items():
        for row in found:
            if row.axis and row.x is not None and row.per_second:
                lines.setdefault((row.axis, row.name, device), []).append((row.x, row.per_second))
    return {key: points for key, points in lines.items() if len({x for x, _ in points}) > 1}
