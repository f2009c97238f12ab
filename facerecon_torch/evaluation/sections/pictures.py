"""Error maps per expression (Fig. 3) and the gallery of poses (Fig. 6)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.evaluation.pictures import FacePictures, draw_mesh, png_bytes, sheet
from facerecon_torch.evaluation.plots import colour_scale
from facerecon_torch.evaluation.sections.curves import CROSSES, EXPRESSIONS, PITCHES, YAWS
from facerecon_torch.evaluation.study import MEASURES, Study
from facerecon_torch.evaluation.tables import Figure, Section, Table
from facerecon_torch.structures import FaceParameters

__all__ = ["fig3_error_maps", "fig6_poses_gallery"]

MAP_LIMIT = 10.0
"""Millimetres at the end of the colour scale of error maps."""
_CHUNK = 256  # images whose vertices stand in memory at once


def fig3_error_maps(study: Study, generator: torch.Generator) -> Section:
    """The mean error of every vertex per class, and one photograph of it with overlay and mesh."""
    rows, cells = [], []
    pictures = _pictures(study)
    for kind in [kind for kind in EXPRESSIONS if kind in study.kinds] or ["all"]:
        at = torch.nonzero(study.rows(kind)).flatten()
        error = _vertex_error(study, at)
        rows.append(
            [*pictures.tiles(int(_typical(study, at)), _estimate(study, _typical(study, at))), _map(study, error)]
        )
        whole = _whole(study)
        cells.append([kind, str(len(at)), *(f"{float(error[whole].quantile(q)):.3f}" for q in (0.5, 0.95, 1.0))])
    scale = colour_scale(torch.linspace(0, MAP_LIMIT, 880), MAP_LIMIT).T[:, None].expand(-1, 24, -1)
    figure = Figure(
        name="fig3_error_maps",
        caption="A typical photograph, overlay, mesh, and the mean error of every vertex over all images of the class: "
        f"{', '.join(row[0] for row in cells)} from top to bottom. Colours from 0 (dark) to {MAP_LIMIT:g} mm (yellow), "
        f"{study.reference}, unaligned, vs M; {study.protocol}",
        alternative="Rows of photograph, overlay, mesh and error map per class; the table has the numbers",
        png=png_bytes(torch.cat([sheet(rows), scale], 1)),
    )
    caption = (
        f"Mean error of a vertex in mm over all images of a class: its distribution over vertices; {study.protocol}"
    )
    table = Table(caption=caption, columns=["class", "images", "median", "95th percentile", "largest"], rows=cells)
    return Section(name="fig3_error_maps", title="Fig. 3: error maps", tables=[table], figures=[figure])


def fig6_poses_gallery(study: Study, generator: torch.Generator) -> Section:
    """A typical photograph of every pose with overlay and mesh."""
    pictures, tiles, names = _pictures(study), [], []
    for code in (*YAWS, *PITCHES, *CROSSES):
        at = torch.tensor([k for k, own in enumerate(study.codes) if own == code])
        if len(at):
            row = _typical(study, at)
            tiles.append(pictures.tiles(row, _estimate(study, row)))
            names.append(code)
    if not tiles:
        return Section(
            name="fig6_poses_gallery", title="Fig. 6: gallery of poses", text="The set has no rotated heads."
        )
    figure = Figure(
        name="fig6_poses_gallery",
        caption=f"The photograph of median error of each rotation, with overlay and mesh of {study.reference}; by row "
        f"two rotations, in the order {', '.join(names)}; {study.protocol}",
        alternative="Photographs of turned heads with the reconstructed mesh",
        png=png_bytes(sheet([a + b for a, b in _pairs(tiles)])),
    )
    return Section(name="fig6_poses_gallery", title="Fig. 6: gallery of poses", figures=[figure])


def _pairs(tiles: list[list[Tensor]]) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
    return [(tiles[k], tiles[k + 1] if k + 1 < len(tiles) else []) for k in range(0, len(tiles), 2)]


def _pictures(study: Study) -> FacePictures:
    return FacePictures(study.cpu_model, study.tested.faces)


def _estimate(study: Study, row: int) -> FaceParameters:
    return study.estimates[study.reference][row : row + 1].cpu()


def _typical(study: Study, at: Int[Tensor, "m"]) -> int:
    """The photograph of median error among some."""
    errors = MEASURES[0].of(study.errors[study.reference])[at]
    return int(at[errors.argsort()[len(at) // 2]])


def _whole(study: Study) -> Int[Tensor, "whole"]:
    return study.model.whole_topology("error maps need a whole model").whole_vertices.cpu()


def _vertex_error(study: Study, at: Int[Tensor, "m"]) -> Float[Tensor, "V"]:
    """The mean distance of every vertex from M over some photographs, unaligned."""
    estimate, like = study.estimates[study.reference], study.model.identity_mean
    total = torch.zeros(study.model.n_vertices, dtype=torch.float64)
    for rows in torch.split(at, _CHUNK):
        part = estimate[rows].to(like.device, like.dtype)
        truth = study.tested.faces.meshes[rows].to(like.device, like.dtype)
        gap = study.model.vertices(part.identity, part.expression) - truth
        total += torch.linalg.vector_norm(gap, dim=-1).sum(0).double().cpu()
    return total / len(at)


def _map(study: Study, error: Float[Tensor, "V"]) -> Float[Tensor, "3 tile tile"]:
    """The mean face coloured by the error of each vertex; vertices outside the whole face are grey."""
    model = study.cpu_model
    topology = model.whole_topology("error maps need a whole model")
    colours = torch.full((model.n_vertices, 3), 0.75)
    whole = _whole(study)
    colours[whole] = colour_scale(error[whole], MAP_LIMIT)
    mean = model.vertices(model.identity_mean, model.expression_mean).float()
    return draw_mesh(mean, topology.triangles, colours)
