"""The 22 to 24 points that are marked on a Bosphorus scan: where they lie, which are seen, how they are clicked."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.data.bosphorus.landmarks import IBUG_OF_NAME, NAMES, NamedLandmarks
from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.synthetic.render.range_sensor import GridWindow

__all__ = ["click", "point_vertices", "seen_points"]

_CLICK_SD = 0.5  # mm, of whoever marked the points
_FOLD = 8.0  # mm; parts of the head that hide a point stand out further: in closed lids the corners lie that deep
_ABOVE = 1.0  # mm; the same for other things
_PATCH = 7.0  # mm around a point, over which its normal is averaged: corners of eyes and lips lie in creases
_AVERTED = -0.2  # cosine to the view down to which a point on the outline still counts as seen
_REACH = 3  # cells around a click in which a measured one is taken ...
_DEPTH = 8.0  # mm ... that is no further from it in depth: no spike, nothing behind


@lru_cache(maxsize=1)
def point_vertices() -> Int[Tensor, "24"]:
    """Vertices of the default face's source that stand for NAMES.

    Most are iBUG points. `Chin middle` is the foremost point of the chin; the saddles lie beside the root of the nose,
    the lobes at the bottom of the ears.
    """
    source, marks = load_source(), load_topology().landmark_vertices
    of_ibug = {ibug: int(marks[paper]) for paper, ibug in enumerate(IBUG_OF_PAPER)}
    mean, face = source.mean, source.mean[: source.n_face]
    chin = (face[:, 0].abs() < 5) & (face[:, 1] > mean[of_ibug[8], 1]) & (face[:, 1] < mean[of_ibug[57], 1] - 12)
    found = {name: of_ibug[ibug] for name, ibug in IBUG_OF_NAME.items()}
    found["Chin middle"] = int(torch.where(chin, face[:, 2], -torch.inf).argmax())
    ears = source.masks["ears"] > 0.5
    root = mean[of_ibug[27]]
    for side, word in ((-1.0, "left"), (1.0, "right")):
        place = root[:2] + torch.tensor([side * 9.0, -3.0])
        apart = (face[:, :2] - place).norm(dim=1)
        found[f"Nose saddle {word}"] = int(torch.where(face[:, 2] > 0, apart, torch.inf).argmin())
        on_side = ears & (side * mean[:, 0] > 0)
        found[f"{word.capitalize()} ear lobe"] = int(torch.where(on_side, mean[:, 1], torch.inf).argmin())
    return torch.tensor([found[name] for name in NAMES])


@lru_cache(maxsize=1)
def _patches() -> Float[Tensor, "24 v"]:
    """Vertices of the face and the ears near each point."""
    source = load_source()
    on_skin = torch.zeros(len(source.mean))
    parts = torch.tensor([source.part_names.index(part) for part in ("skin", "lips")])
    on_skin[source.triangles[torch.isin(source.triangle_parts, parts)].flatten()] = 1.0
    return (torch.cdist(source.mean[point_vertices()], source.mean) < _PATCH) * on_skin


def seen_points(scene: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], n_head: int) -> Bool[Tensor, "24"]:
    """Which of NAMES face the sensor, or lie on the outline, with nothing in front of them.

    `scene` (mm, scan frame) begins with the `n_head` vertices of the head, of which the first are those of the default
    face's source; occluders follow.
    """
    patches, points = _patches(), scene[point_vertices()]
    normals = normalize(patches @ vertex_normals(scene, triangles)[: patches.shape[1]], dim=1)
    own = (triangles < n_head).all(1)
    hidden = _covered(points, _FOLD, scene, triangles[own])
    if not bool(own.all()):
        hidden |= _covered(points, _ABOVE, scene, triangles[~own])
    return ~hidden & (normals[:, 2] > _AVERTED)


def _covered(
    points: Float[Tensor, "n 3"], above: float, scene: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]
) -> Bool[Tensor, "n"]:
    """Whether a triangle lies further than `above` in front of each point."""
    towards = torch.zeros_like(points)
    towards[:, 2] = 1.0
    return get_backend().first_hit(points + above * towards, towards, scene, triangles).triangle >= 0


def click(
    points: Float[Tensor, "24 3"],
    seen: Bool[Tensor, "24"],
    grid: RangeGrid,
    window: GridWindow,
    generator: torch.Generator,
) -> tuple[NamedLandmarks, NamedLandmarks]:
    """Points as they are marked: px of the picture (6 per cell), and the measured grid points under them.

    Both are a little off the truth. Points that are not seen, or lie outside the picture, are in neither; those without
    a measured cell nearby are in the first alone.
    """
    off = _CLICK_SD * torch.randn(len(points), 2, generator=generator)
    cells = window.to_cells(points + torch.cat([off, torch.zeros(len(points), 1)], dim=1))
    column, row = cells.round().long().unbind(1)
    inside = (column >= 0) & (row >= 0) & (column < window.columns) & (row < window.rows)
    flat_names, flat, solid_names, solid = [], [], [], []
    for i in (seen & inside).nonzero()[:, 0].tolist():
        flat_names.append(NAMES[i])
        flat.append(6.0 * cells[i] + cells.new_tensor([0.0, 4.0]))
        measured = _measured_near(grid, int(row[i]), int(column[i]), float(points[i, 2]))
        if measured is not None:
            solid_names.append(NAMES[i])
            solid.append(measured)
    return NamedLandmarks(tuple(flat_names), torch.stack(flat)), NamedLandmarks(tuple(solid_names), torch.stack(solid))


def _measured_near(grid: RangeGrid, row: int, column: int, depth: float) -> Tensor | None:
    """The measured point nearest to a cell, spikes left out."""
    top, left = max(0, row - _REACH), max(0, column - _REACH)
    area = (slice(top, row + _REACH + 1), slice(left, column + _REACH + 1))
    good = grid.valid[area] & ((grid.points[area][..., 2] - depth).abs() < _DEPTH)
    places = good.nonzero()
    if not len(places):
        return None
    nearest = places[(places - torch.tensor([row - top, column - left])).square().sum(1).argmin()]
    point: Tensor = grid.points[area][nearest[0], nearest[1]]
    return point
