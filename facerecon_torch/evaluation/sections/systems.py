"""Errors and pictures of other systems beside ours (Fig. 8 and 9)."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.evaluation.outside import Outside
from facerecon_torch.evaluation.pictures import TILE, FacePictures, draw_mesh, png_bytes, sheet
from facerecon_torch.evaluation.plots import cumulative_chart
from facerecon_torch.evaluation.study import Study
from facerecon_torch.evaluation.tables import Figure, Section, Table
from facerecon_torch.external.measure import upright
from facerecon_torch.external.methods import FaceGroup, MethodFaces
from facerecon_torch.external.report import PAIRED
from facerecon_torch.external.truth import evenly_spread
from facerecon_torch.geometry.align import align_similarity

__all__ = ["fig8_external", "fig9_external_gallery"]

SCAN_LIMIT = 5.0
"""Millimetres at the end of the cumulative distribution of scan-to-mesh distances."""
_ROWS = 6  # of the gallery
_CURVE = "scan_similarity_mean_all"
_COLUMNS = {
    "scan-to-mesh median": "scan_similarity_median_all",
    "mean": "scan_similarity_mean_all",
    "std": "scan_similarity_std_all",
    "rigid, median": "scan_rigid_median_all",
    "MAE, similarity": "mae_similarity_all",
    "MAE, none": "mae_none_all",
    "size error %": "size_vertices_percent",
}


def fig8_external(study: Study, generator: torch.Generator) -> Section:
    """Scan-to-mesh distances and MAE of ours and of other systems on the same photographs."""
    name, title = "fig8_external", "Fig. 8: other systems"
    outside = study.outside
    if outside is None:
        return Section(name=name, title=title, text=_NOTHING)
    report = outside.report(study.reference, generator)
    about = (
        f"{report['common_images']} photographs that every method has, {report['subjects']} subjects; {study.protocol}"
    )
    curves = {errors.name: errors.columns[_CURVE] for errors in outside.errors if _CURVE in errors.columns}
    curves = {own: column[torch.isfinite(column)] for own, column in curves.items()}
    figure = Figure(
        name=name,
        caption=f"Photographs by their mean scan-to-mesh distance after a similarity (7 points, then ICP); {about}",
        alternative="Share of photographs below each distance for every method; the table has the means",
        png=cumulative_chart({"whole face": curves}, SCAN_LIMIT, unit="mean scan-to-mesh distance, mm"),
    )
    notes = " ".join(f"{own}: {note}" for own, note in outside.notes.items())
    if report["left_out"]:
        notes += f" Without photographs in common with the others: {', '.join(report['left_out'])}."
    return Section(
        name=name, title=title, text=notes, tables=[_errors(report, about), _gaps(report, about)], figures=[figure]
    )


_NOTHING = "No other system: evaluation.external=DIR gives its results, evaluation.peers=[eos,mediapipe] runs one here."


def _errors(report: Mapping[str, Any], about: str) -> Table:
    rows = []
    for own, entry in report["methods"].items():
        values = [entry["mean"].get(column) for column in _COLUMNS.values()]
        signs = ["+" if "percent" in column else "" for column in _COLUMNS.values()]
        rows.append([own, *("-" if v is None else f"{v:{sign}.3f}" for v, sign in zip(values, signs, strict=True))])
    caption = (
        "Errors in mm. Scan-to-mesh: after a similarity, or rigid, by 7 points, then ICP. MAE on correspondences: "
        f"aligned on the measured vertices, or without alignment beside its size error; {about}"
    )
    return Table(caption=caption, columns=["method", *_COLUMNS], rows=rows)


def _gaps(report: Mapping[str, Any], about: str) -> Table:
    rows = []
    for pair, gaps in report["comparisons"].items():
        for column in PAIRED:
            if column in gaps:
                gap = gaps[column]
                span = "" if gap["low"] is None else f" [{gap['low']:+.3f}, {gap['high']:+.3f}]"
                rows.append([pair, column.replace("_", " "), f"{gap['mean']:+.3f}{span}", str(gap["images"])])
    caption = f"Differences, negative where the first is better, 95 % intervals over subjects, paired; {about}"
    return Table(caption=caption, columns=["methods", "error", "difference", "photographs"], rows=rows)


def fig9_external_gallery(study: Study, generator: torch.Generator) -> Section:
    """Photographs with the reconstruction of ours and of every other system, in one pose."""
    name, title = "fig9_external_gallery", "Fig. 9: gallery of other systems"
    outside = study.outside
    if outside is None:
        return Section(name=name, title=title, text=_NOTHING)
    pictures = FacePictures(study.cpu_model, study.tested.faces)
    rows = []
    for k in evenly_spread(len(outside.places), _ROWS):
        place = outside.places[k]
        estimate = study.estimates[study.reference][place : place + 1].cpu()
        turned = pictures.camera(place, estimate).rotation[0]
        tiles = pictures.tiles(place, estimate)
        rows.append([*tiles, *(_tile(method, k, outside, turned) for method in outside.others)])
    names = ", ".join(["photograph", f"{study.reference} on it", study.reference, *(m.name for m in outside.others)])
    figure = Figure(
        name=name,
        caption=f"From left to right: {names}. Other systems' meshes are placed by 7 points and drawn in the pose of "
        f"{study.reference}; white where a system gave none; {study.protocol}",
        alternative="Photographs beside the reconstructed meshes of every system",
        png=png_bytes(sheet(rows)),
    )
    return Section(name=name, title=title, figures=[figure])


def _tile(method: MethodFaces, image: int, outside: Outside, turned: Float[Tensor, "3 3"]) -> Tensor:
    """A system's mesh of one photograph in a pose; white where there is none."""
    for group in method.groups:
        if image in group.places:
            vertices, triangles = _placed(group, group.places.index(image), outside.truth.scans[image].landmarks)
            return draw_mesh((vertices @ turned.to(vertices).mT).float(), triangles)
    return torch.ones(3, TILE, TILE)


def _placed(group: FaceGroup, row: int, seven: Float[Tensor, "7 3"]) -> tuple[Tensor, Tensor]:
    """One mesh of a group in the frame of the true mesh, and its triangles with their outside outside."""
    one, flipped = upright(group.only([row]), seven[None])
    triangles = group.triangles.flip(1) if bool(flipped[0]) else group.triangles
    return align_similarity(one.seven, seven[None]).apply(one.vertices)[0], triangles
