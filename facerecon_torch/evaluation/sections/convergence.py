"""Variants side by side, and whether a second stage pays: errors of cascades stage by stage, train and test."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from facerecon_torch.evaluation.plots import curve_chart
from facerecon_torch.evaluation.sections.numbers import comparison_table, error_table
from facerecon_torch.evaluation.study import Study
from facerecon_torch.evaluation.tables import Figure, Section, Table

__all__ = ["ablation"]

_Point = tuple[float, float]
_Folds = Sequence[Sequence[Mapping[str, Any]]]
"""Stages by fold."""


def ablation(study: Study, generator: torch.Generator) -> Section:
    """Errors of all variants, the convergence of cascades of several stages, and what stage 2 could gain."""
    tables = [error_table(study), comparison_table(study, generator)]
    long = {name: folds for name, folds in study.stages.items() if min(map(len, folds), default=0) > 1}
    figures = []
    if long:
        tables.append(_stage_table(study, long))
        figures.append(_convergence(study, _longest(long)))
    return Section(
        name="ablation",
        title="Ablation",
        text=" ".join(map(_verdict, long, long.values())),
        tables=tables,
        figures=figures,
    )


def _longest(long: Mapping[str, _Folds]) -> dict[str, _Folds]:
    """The longest cascade of each kind of update; of several the one listed last. A cross-fitted cascade ends where a
    stage gains nothing, so that it is shorter than one in-sample."""
    best: dict[str, str] = {}
    for name, folds in long.items():
        kind = folds[0][0]["update"]
        if kind not in best or max(map(len, folds)) >= max(map(len, long[best[kind]])):
            best[kind] = name
    return {name: folds for name, folds in long.items() if name in best.values()}


def _curves(folds: _Folds) -> dict[str, list[_Point]]:
    """Means over the folds after each stage: `train` is the error after the update that moves the training samples."""
    train, test = list[_Point](), list[_Point]()
    first = [fold[0]["start_mae_mm"] for fold in folds]
    train.append((0.0, sum(first) / len(first)))
    for k in range(min(map(len, folds))):
        stages = [fold[k] for fold in folds]
        moved = [s["cross_fitted_mae_mm"] if s["update"] == "cross-fitted" else s["in_sample_mae_mm"] for s in stages]
        train.append((k + 1.0, sum(moved) / len(moved)))
        test.append((k + 1.0, sum(s["test_mae_mm"] for s in stages) / len(stages)))
    return {"train": train, "test": test}


def _convergence(study: Study, long: Mapping[str, _Folds]) -> Figure:
    lines, paths = dict[str, list[_Point]](), dict[str, list[_Point]]()
    for name, folds in long.items():
        curves = _curves(folds)
        lines |= {f"{name}, {part}": curves[part] for part in ("test", "train")}
        finite = [p for p in folds[0][1]["path"] if p["relative_penalty"] is not None]
        weights = max(
            (tuple(p["block_weights"]) for p in finite),
            default=(),
            key=lambda w: sum(tuple(p["block_weights"]) == w for p in finite),
        )
        points = [(p["relative_penalty"], p["error_mm"]) for p in finite if tuple(p["block_weights"]) == weights]
        if len(points) > 1:
            paths[f"{name}, left-out people"] = sorted(points)
            start = folds[0][1]["start_mae_mm"]
            paths[f"{name}, no second stage"] = [(min(points)[0], start), (max(points)[0], start)]
    panels = {"after each stage": lines} | ({"stage 2, by its penalty": paths} if paths else {})
    png = curve_chart(
        panels, x=["stage", "relative penalty"][: len(panels)], y="MAE, mm vs M", log=[False, True][: len(panels)]
    )
    caption = (
        "Convergence of the longest cascade of each kind of update: mean over the folds after each stage, on test "
        "people (whole face) and on the training samples (dashed; on 200 vertices; moved by in-sample or by "
        "cross-fitted updates). Right: the "
        f"error of stage 2 on people left out, by its penalty, and without it (dashed), first fold; {study.protocol}"
    )
    return Figure(
        name="ablation_convergence", caption=caption, alternative="Errors after each stage; the table has them", png=png
    )


def _stage_table(study: Study, long: Mapping[str, _Folds]) -> Table:
    longest = max(len(fold) for folds in long.values() for fold in folds)
    rows = []
    for name, folds in long.items():
        for part, points in _curves(folds).items():
            values = {int(stage): f"{error:.3f}" for stage, error in points}
            rows.append([f"{name}, {part}", *(values.get(stage, "-") for stage in range(longest + 1))])
    caption = f"MAE in mm vs M after each stage, mean over folds (train: 200 vertices, test: whole); {study.protocol}"
    return Table(caption=caption, columns=["cascade", *map(str, range(longest + 1))], rows=rows)


def _verdict(name: str, folds: _Folds) -> str:
    """The gain of the stages after the first, in words."""
    curves = _curves(folds)
    train, test = curves["train"], curves["test"]
    if len(test) < 2:
        return ""
    best = min(test[1:], key=lambda point: point[1])
    gain = 100 * (1 - best[1] / test[0][1])
    on_training = 100 * (1 - train[-1][1] / train[1][1])
    zero = sum(fold[1]["relative_penalty"] is None for fold in folds)
    words = (
        f"{name}: after stage 1 the test error is {test[0][1]:.3f} mm, at best {best[1]:.3f} mm (stage {best[0]:.0f}, "
        f"{gain:+.2f} % gained), at the end {test[-1][1]:.3f} mm; the error on the training samples falls by "
        f"{on_training:.1f} % after stage 1."
    )
    return words + (f" In {zero} of {len(folds)} folds the best stage 2 for people left out is none." if zero else "")
