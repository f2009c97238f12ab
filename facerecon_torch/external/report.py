"""Tables of a comparison: means on the images that every method has, and paired intervals over subjects."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.external.measure import ALIGNMENT_TEXTS, MethodErrors
from facerecon_torch.external.truth import Truth
from facerecon_torch.metrics.bootstrap import Interval, paired_bootstrap
from facerecon_torch.metrics.landmarks import YAW_BINS, errors_by_yaw
from facerecon_torch.metrics.scan import SCAN_ALIGNMENTS

__all__ = ["PAIRED", "comparison_report", "comparison_tables"]

PAIRED = (
    "scan_similarity_median_all",
    "scan_similarity_mean_all",
    "mae_similarity_all",
    "mae_none_all",
    "abs_size_vertices_percent",
    "nme",
)
"""Columns whose differences get an interval; `abs_` is the magnitude of a column."""


def comparison_report(
    methods: Sequence[MethodErrors], truth: Truth, generator: torch.Generator, *, reference: str
) -> dict[str, Any]:
    """The document `compare.json`: means, size errors, landmark errors by yaw, and paired differences.

    Means are taken over the images that every method has. A method is left out of the means where it has no image in
    common with those of more faces. The difference of a method to `reference` is taken over the images that both have:
    negative where `reference` is better.

    Args:
        methods: errors of every method.
        truth: of the images.
        generator: of the bootstrap over subjects.
        reference: name of a method.

    Raises:
        ValueError: no image has a face of any method.
    """
    common, left_out = _in_common(methods)
    first = next(errors for errors in methods if errors.name == reference)
    return {
        "truth": truth.name,
        "images": len(truth),
        "subjects": truth.people,
        "common_images": int(common.sum()),
        "alignments": {**ALIGNMENT_TEXTS, "mae": "none, rigid and similarity on the measured vertices"},
        "left_out": left_out,
        "methods": {errors.name: _means(errors, common, truth) for errors in methods if errors.name not in left_out},
        "comparisons": {
            f"{reference} - {errors.name}": _differences(first, errors, truth, generator)
            for errors in methods
            if errors.name != reference
        },
    }


def _in_common(methods: Sequence[MethodErrors]) -> tuple[Tensor, list[str]]:
    """The images that every method has, and the methods that would leave none. Raises ValueError without any face."""
    ordered = sorted(methods, key=lambda errors: -int(errors.present().sum()))
    common, left_out = ordered[0].present(), list[str]()
    if not bool(common.any()):
        raise ValueError(f"no image has a face of any method: {', '.join(errors.name for errors in methods)}")
    for errors in ordered[1:]:
        both = common & errors.present()
        if bool(both.any()):
            common = both
        else:
            left_out.append(errors.name)
    return common, left_out


def _means(errors: MethodErrors, common: Tensor, truth: Truth) -> dict[str, Any]:
    columns = {name: _number(column[common].nanmean()) for name, column in errors.columns.items()}
    for name in ("size_percent", "size_vertices_percent"):
        if name in errors.columns:
            columns[f"abs_{name}"] = _number(errors.columns[name][common].abs().nanmean())
    entry: dict[str, Any] = {"images": int(errors.present().sum()), "mirrored": int(errors.mirrored.sum())}
    entry["metres"] = int(errors.metres.sum())
    if "nme" in errors.columns and truth.yaw_degrees is not None:
        entry["nme_by_yaw"] = _by_yaw(errors.columns["nme"], common, truth.yaw_degrees)
    return entry | {"mean": columns}


def _by_yaw(nme: Tensor, common: Tensor, yaw: Tensor) -> dict[str, Any]:
    rows = common & torch.isfinite(nme)
    table = errors_by_yaw(nme[rows], yaw[rows].double())
    bins = {f"{low:g}-{high:g}": _number(value) for (low, high), value in zip(YAW_BINS, table.bins)}
    return {
        "bins": bins,
        "images": dict(zip(bins, table.counts)),
        "mean": _number(torch.tensor(table.mean)),
        "std": _number(torch.tensor(table.deviation)),
    }


def _differences(
    first: MethodErrors, other: MethodErrors, truth: Truth, generator: torch.Generator
) -> dict[str, dict[str, float | int | None]]:
    result: dict[str, dict[str, float | int | None]] = {}
    for name in PAIRED:
        a, b = _column(first, name), _column(other, name)
        if a is None or b is None:
            continue
        both = torch.isfinite(a) & torch.isfinite(b)
        if bool(both.any()):
            gap: Interval = paired_bootstrap(a[both], b[both], truth.subjects[both], generator)
            result[name] = {"mean": gap.mean, "low": gap.low, "high": gap.high, "images": int(both.sum())}
    return result


def _column(errors: MethodErrors, name: str) -> Tensor | None:
    """A column, or the magnitudes of one; None where the method lacks it."""
    column = errors.columns.get(name.removeprefix("abs_"))
    return column.abs() if column is not None and name.startswith("abs_") else column


def _number(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value)) else None


def comparison_tables(report: Mapping[str, Any], *, vertices: str = "all") -> str:
    """Markdown tables of a report; every unaligned figure stands beside its size error.

    Args:
        report: from `comparison_report`.
        vertices: `all` or `covered`.
    """
    about = (
        f"{report['common_images']} images that every method has (of {report['images']}, {report['subjects']} "
        f"subjects, set {report['truth']}), {vertices} vertices"
    )
    if report["left_out"]:
        about += f"; without images in common with these: {', '.join(report['left_out'])}"
    parts = [
        _scan_table(report, vertices, about),
        _table(
            f"{vertices} vertices: MAE on correspondences, mm",
            {
                "none": f"mae_none_{vertices}",
                "size %": "size_vertices_percent",
                "|size| %": "abs_size_vertices_percent",
                "rigid on vertices": f"mae_rigid_{vertices}",
                "similarity on vertices": f"mae_similarity_{vertices}",
            },
            report,
        ),
    ]
    if vertices == "all":
        parts += [_region_table(report), _yaw_table(report), _paired_table(report)]
    return "\n\n".join(part for part in parts if part)


def _scan_table(report: Mapping[str, Any], vertices: str, about: str) -> str:
    columns = {}
    for align in SCAN_ALIGNMENTS:
        for statistic in ("median", "mean", "std"):
            columns[f"{align} {statistic}"] = f"scan_{align}_{statistic}_{vertices}"
        if align == "none":
            columns |= {"size %": "size_percent", "|size| %": "abs_size_percent"}
    table = _table("scan-to-mesh, mm", columns, report)
    return f"{about}; rigid and similarity by 7 points, then ICP\n\n{table}" if table else ""


def _region_table(report: Mapping[str, Any]) -> str:
    columns = {name: f"region_{name}" for name in ("nose", "mouth", "forehead", "cheeks")}
    columns |= {"chamfer": "chamfer", "normals, degrees": "normal_degrees", "complete %": "complete_percent"}
    return _table("regions (each moved rigidly for itself), whole face (similarity), mm", columns, report)


def _table(title: str, columns: Mapping[str, str], report: Mapping[str, Any]) -> str:
    rows = {name: entry["mean"] for name, entry in report["methods"].items()}
    used = {head: key for head, key in columns.items() if any(key in row for row in rows.values())}
    if not used:
        return ""
    lines = [f"| {title} | {' | '.join(used)} |", f"|---|{'---|' * len(used)}"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(_cell(key, row.get(key)) for key in used.values())} |")
    return "\n".join(lines)


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.startswith("size"):
        return f"{value:+.2f}"
    return f"{value:.2f}" if "percent" in key or "degrees" in key else f"{value:.3f}"


def _yaw_table(report: Mapping[str, Any]) -> str:
    rows = {name: entry["nme_by_yaw"] for name, entry in report["methods"].items() if "nme_by_yaw" in entry}
    if not rows:
        return ""
    counts = next(iter(rows.values()))["images"]
    heads = [f"{name} ({count})" for name, count in counts.items()]
    lines = [f"| landmark NME %, by degrees of yaw (images) | {' | '.join(heads)} | mean of bins | std |"]
    lines.append(f"|---|{'---|' * (len(heads) + 2)}")
    for name, row in rows.items():
        values = [*row["bins"].values(), row["mean"], row["std"]]
        lines.append(f"| {name} | {' | '.join('-' if v is None else f'{v:.2f}' for v in values)} |")
    return "\n".join(lines)


def _paired_table(report: Mapping[str, Any]) -> str:
    heads = [name for name in PAIRED if any(name in gaps for gaps in report["comparisons"].values())]
    if not heads:
        return ""
    lines = [f"| difference, 95 % interval over subjects | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name, gaps in report["comparisons"].items():
        lines.append(f"| {name} | {' | '.join(_interval(gaps.get(head)) for head in heads)} |")
    return "\n".join(lines)


def _interval(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return "-"
    if gap["low"] is None:
        return f"{gap['mean']:+.3f}"
    return f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
