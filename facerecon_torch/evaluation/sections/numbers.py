"""Tables of errors and comparisons: every study's own, and Table 1 of the paper."""

from itertools import product

import torch

from facerecon_torch.evaluation.errors import ALIGNMENTS, COVERED, REGIONS, TRUTHS
from facerecon_torch.evaluation.published import RMSE
from facerecon_torch.evaluation.study import MEASURES, Study
from facerecon_torch.evaluation.tables import Section, Table, interval_text, percent_text

__all__ = ["comparison_table", "error_table", "fig10_cross_dataset", "methods", "table1"]


def error_table(study: Study) -> Table:
    """MAE of every method vs M on the whole face under every alignment, on the covered vertices, and the size error."""
    keys = [(align, "M", "whole") for align in ALIGNMENTS]
    first = next(iter(study.errors.values()))
    covered = [(align, "M", "whole" + COVERED) for align in ALIGNMENTS]
    keys += [key for key in covered if key in first.mae]
    columns = [f"{align}{', covered' if region.endswith(COVERED) else ''}" for align, _, region in keys]
    rows = []
    for name, errors in study.errors.items():
        values = [f"{float(errors.mae[key].nanmean()):.3f}" for key in keys]
        sizes = f"{float(errors.size_error.mean()):+.2f}", f"{float(errors.size_error.abs().mean()):.2f}"
        rows.append([name, *values, *sizes])
    caption = f"MAE in mm vs M, whole face, by alignment; {study.protocol}"
    return Table(caption=caption, columns=["method", *columns, "size error %", "|size error| %"], rows=rows)


def comparison_table(study: Study, generator: torch.Generator) -> Table:
    """The reference method against every other: differences in mm and in percent with 95 % intervals over subjects."""
    rows = []
    for other in study.errors:
        if other == study.reference or study.reference not in study.errors:
            continue
        for measure in MEASURES:
            gap = study.gap(study.reference, other, measure, generator)
            ratio = study.gap(study.reference, other, measure, generator, statistic="ratio")
            better = gap.excludes(0.0) and gap.mean < 0
            worse = gap.excludes(0.0) and gap.mean > 0
            verdict = "better" if better else "worse" if worse else "not decided"
            rows.append([other, measure.name, interval_text(gap), percent_text(ratio), verdict])
    caption = (
        f"{study.reference} minus each other method, paired bootstrap over subjects, 95 % intervals; {study.protocol}"
    )
    return Table(caption=caption, columns=["against", "error", "mm", "percent", study.reference], rows=rows)


def methods(study: Study, generator: torch.Generator) -> Section:
    """Errors of all methods and the comparisons with the reference."""
    tables = [error_table(study), comparison_table(study, generator)]
    return Section(name="methods", title=f"Methods on {study.tested.faces.name}", tables=tables)


def fig10_cross_dataset(study: Study, generator: torch.Generator) -> Section:
    """Errors on another data set than the one that trained."""
    text = "Photographs of both sets hold no more detail than those of the coarser set."
    tables = [error_table(study), comparison_table(study, generator)]
    return Section(name="fig10_cross_dataset", title=f"Fig. 10: {study.protocol}", text=text, tables=tables)


def table1(study: Study, generator: torch.Generator) -> Section:
    """RMSE on frontal neutral faces vs S and vs M, centre and whole, beside the published figures."""
    keys = list(product(TRUTHS[::-1], REGIONS[::-1]))
    rows = []
    for name, errors in study.errors.items():
        cells = [f"{float(errors.rmse_z['none', truth, region].mean()):.3f}" for truth, region in keys]
        known = RMSE.get(name)
        cells += ["-" if known is None else f"{known[key]:.4f}" for key in keys]
        rows.append([name, *cells])
    heads = [f"vs {truth} {region}" for truth, region in keys]
    table = Table(
        caption=f"RMSE over z in mm, no alignment, frontal neutral faces; {study.protocol}. Published: the paper's "
        "Table 1, on the real Bosphorus",
        columns=["method", *heads, *(f"published {head}" for head in heads)],
        rows=rows,
    )
    tables = [table, comparison_table(study, generator), error_table(study)]
    return Section(name="table1", title="Table 1: frontal neutral faces", tables=tables)
