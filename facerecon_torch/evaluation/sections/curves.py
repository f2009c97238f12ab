"""MAE per expression class (Fig. 4) and per pose (Fig. 5), and cumulative error distributions (Fig. 7)."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from facerecon_torch.evaluation.errors import REGIONS
from facerecon_torch.evaluation.plots import bar_chart, cumulative_chart
from facerecon_torch.evaluation.published import EXPRESSION_SPREAD
from facerecon_torch.evaluation.study import CED_LIMIT, MEASURES, Study
from facerecon_torch.evaluation.tables import Figure, Section, Table, interval_text
from facerecon_torch.metrics.landmarks import area_under_ced, cumulative_error

__all__ = ["fig4_expressions", "fig5_poses", "fig7_ced"]

EXPRESSIONS = ("N", "E", "LFAU", "UFAU", "CAU", "O")
"""Frontal classes of Bosphorus; O are hands, glasses and hair."""
YAWS = ("L90", "L45", "R10", "R20", "R30", "R45", "R90")
PITCHES = ("SD", "D", "U", "SU")
CROSSES = ("RU", "RD")
EYES_CLOSED = ("UFAU_43", "UFAU_44")
_MAE, _MAE_SIMILARITY = MEASURES[:2]
_CED_POINTS = (1.0, 2.0, 3.0, 4.0, 5.0)  # mm


def _groups(study: Study, wanted: Sequence[str]) -> dict[str, Bool[Tensor, "n"]]:
    """The photographs of each wanted class, code or class_code that the study holds."""
    full = study.tested.faces.kinds or study.kinds
    names = list(zip(study.kinds, study.codes, full, strict=True))
    rows = {name: torch.tensor([name in own for own in names]) for name in wanted}
    return {name: at for name, at in rows.items() if bool(at.any())}


def _by_group(
    study: Study, groups: Mapping[str, Bool[Tensor, "n"]], *, what: str
) -> tuple[Table, dict[str, list[float]]]:
    """Mean MAE of every method on every group, unaligned and after similarity; the unaligned means as numbers."""
    rows, means = [], {}
    for name, errors in study.errors.items():
        values = [_MAE.of(errors)[at] for at in groups.values()]
        aligned = [_MAE_SIMILARITY.of(errors)[at] for at in groups.values()]
        means[name] = [float(v.mean()) for v in values]
        rows.append([name, *(f"{float(a.mean()):.3f} ({float(b.mean()):.3f})" for a, b in zip(values, aligned))])
    heads = [f"{name} ({int(at.sum())})" for name, at in groups.items()]
    caption = f"MAE in mm vs M, whole face, unaligned (after similarity), per {what} (images); {study.protocol}"
    return Table(caption=caption, columns=["method", *heads], rows=rows), means


def _grouped_section(
    study: Study, parts: Mapping[str, Sequence[str]], *, name: str, title: str, text: str = ""
) -> Section:
    tables, figures = [], []
    for what, wanted in parts.items():
        groups = _groups(study, wanted)
        if not groups:
            text += f" The set has no photographs for: {what}."
            continue
        table, means = _by_group(study, groups, what=what)
        tables.append(table)
        stem = f"{name}_{what.split()[0]}"
        alternative = f"Bars of the mean error of every method per {what}; the table above has the numbers"
        png = bar_chart(means, list(groups), unit="MAE, mm vs M")
        figures.append(Figure(name=stem, caption=table.caption, alternative=alternative, png=png))
    return Section(name=name, title=title, text=text.strip(), tables=tables, figures=figures)


def fig4_expressions(study: Study, generator: torch.Generator) -> Section:
    """MAE per expression class, and the spread across the classes without occlusions."""
    groups = _groups(study, [kind for kind in EXPRESSIONS if kind != "O"])
    text = ""
    if len(groups) > 1:
        means = [float(_MAE.of(study.errors[study.reference])[at].mean()) for at in groups.values()]
        spread = 100 * (max(means) / min(means) - 1)
        text = (
            f"Spread of {study.reference} across the classes {', '.join(groups)}: the largest mean is {spread:.1f} % "
            f"above the smallest (the paper: below {EXPRESSION_SPREAD:g} %)."
        )
    parts = {"expression class": EXPRESSIONS, "closed eyes": EYES_CLOSED}
    return _grouped_section(study, parts, name="fig4_expressions", title="Fig. 4: expressions", text=text)


def fig5_poses(study: Study, generator: torch.Generator) -> Section:
    """MAE per yaw, pitch and cross rotation, beside the neutral frontal faces."""
    parts = {"yaw": ("N", *YAWS), "pitch": ("N", *PITCHES), "cross rotation": ("N", *CROSSES)}
    return _grouped_section(study, parts, name="fig5_poses", title="Fig. 5: poses")


def fig7_ced(study: Study, generator: torch.Generator) -> Section:
    """Cumulative error distributions on the centre and the whole face, with the area below them up to 10 mm."""
    panels = {
        region: {name: errors.mae["none", "M", region] for name, errors in study.errors.items()} for region in REGIONS
    }
    rows = []
    at = torch.tensor(_CED_POINTS, dtype=torch.float64)
    for name in study.errors:
        shares = [f"{100 * float(s):.1f}" for s in cumulative_error(panels["whole"][name].double(), at)]
        areas = [f"{float(area_under_ced(panels[region][name], CED_LIMIT)):.4f}" for region in REGIONS]
        rows.append([name, *areas, *shares, interval_text(study.interval(name, _MAE, generator))])
    columns = [
        "method",
        *(f"AUC {region}" for region in REGIONS),
        *(f"% below {t:g} mm" for t in _CED_POINTS),
        "MAE, mm",
    ]
    caption = f"Images whose MAE (mm vs M, unaligned) is at most so large, whole face; {study.protocol}"
    figure = Figure(
        name="fig7_ced",
        caption=f"Cumulative distribution of the MAE in mm vs M, unaligned; {study.protocol}",
        alternative="Share of images below each error for every method; the table has the areas and shares",
        png=cumulative_chart(panels, CED_LIMIT, unit="MAE, mm"),
    )
    table = Table(caption=caption, columns=columns, rows=rows)
    return Section(name="fig7_ced", title="Fig. 7: error distributions", tables=[table], figures=[figure])
