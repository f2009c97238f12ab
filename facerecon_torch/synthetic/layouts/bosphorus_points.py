"""The 22 to 24 marked points of a Bosphorus scan: their vertices, their visibility and marking errors."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.data.bosphorus.landmarks import IBUG_OF_NAME, NAMES, NamedLandmarks
from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.synthetic.render.range_sensor import GridWindow

__all__ = ["mark_points", "point_vertices", "visible_points"]

_MARKING_SD = 0.5  # mm, marking error
_HEAD_CLEARANCE = 8.0  # mm in front of a point from which the head hides it; the corners of closed lids lie that deep
_OBJECT_CLEARANCE = 1.0  # mm in front of a point from which an occluder hides it
_PATCH = 7.0  # mm, radius over which a point's normal is averaged: corners of eyes and lips lie in creases
_AVERTED = -0.2  # least cosine between normal and view of a visible point
_REACH = 3  # cells around a marked point that are searched for a measured one
_DEPTH = 8.0  # mm, largest difference in depth to the measured cell: excludes spikes and the background


@lru_cache(maxsize=1)
def point_vertices() -> Int[Tensor, "24"]:
    """The vertices of the default face's source for NAMES.

    Most are iBUG points. `Chin middle` is the foremost point of the chin; the saddles lie beside the root of the nose,
    the lobes at the bottom of the ears.
    """
    source, marks = load_source(), load_topology().landmark_vertices
    of_ibug = {ibug: int(marks[paper]) for paper, ibug in enumerate(IBUG_OF_PAPER)}
    mean, face = source.mean, source.mean[: source.n_face]
    chin = (face[:, 0].abs() < 5) & (face[:, 1] > mean[of_ibug[8], 1]) & (face[:, 1] < mean[of_ibug[57], 1] - 12)
    vertex = {name: of_ibug[ibug] for name, ibug in IBUG_OF_NAME.items()}
    vertex["Chin middle"] = int(torch.where(chin, face[:, 2], -torch.inf).argmax())
    ears = source.masks["ears"] > 0.5
    root = mean[of_ibug[27]]
    for side, word in ((-1.0, "left"), (1.0, "right")):
        place = root[:2] + torch.tensor([side * 9.0, -3.0])
        apart = (face[:, :2] - place).norm(dim=1)
        vertex[f"Nose saddle {word}"] = int(torch.where(face[:, 2] > 0, apart, torch.inf).argmin())
        on_side = ears & (side * mean[:, 0] > 0)
        vertex[f"{word.capitalize()} ear lobe"] = int(torch.where(on_side, mean[:, 1], torch.inf).argmin())
    return torch.tensor([vertex[name] for name in NAMES])


@lru_cache(maxsize=1)
def _patches() -> Float[Tensor, "24 v"]:
    """Indicator of the skin vertices near each point."""
    source = load_source()
    on_skin = torch.zeros(len(source.mean))
    parts = torch.tensor([source.part_names.index(part) for part in ("skin", "lips")])
    on_skin[source.triangles[torch.isin(source.triangle_parts, parts)].flatten()] = 1.0
    return (torch.cdist(source.mean[point_vertices()], source.mean) < _PATCH) * on_skin


def visible_points(scene: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], n_head: int) -> Bool[Tensor, "24"]:
    """Visibility of NAMES: the point faces the sensor or lies on the outline, and nothing is in front of it.

    `scene` (mm, scan frame) holds the `n_head` vertices of the head, the default face's source first, then the
    occluders.
    """
    patches, points = _patches(), scene[point_vertices()]
    normals = normalize(patches @ vertex_normals(scene, triangles)[: patches.shape[1]], dim=1)
    own = (triangles < n_head).all(1)
    hidden = _occluded(points, _HEAD_CLEARANCE, scene, triangles[own])
    if not bool(own.all()):
        hidden |= _occluded(points, _OBJECT_CLEARANCE, scene, triangles[~own])
    return ~hidden & (normals[:, 2] > _AVERTED)


def _occluded(
    points: Float[Tensor, "n 3"], clearance: float, scene: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]
) -> Bool[Tensor, "n"]:
    """Whether a triangle lies more than `clearance` mm in front of each point."""
    towards = torch.zeros_like(points)
    towards[:, 2] = 1.0
    return get_backend().first_hit(points + clearance * towards, towards, scene, triangles).triangle >= 0


def mark_points(
    points: Float[Tensor, "24 3"],
    visible: Bool[Tensor, "24"],
    grid: RangeGrid,
    window: GridWindow,
    generator: torch.Generator,
) -> tuple[NamedLandmarks, NamedLandmarks]:
    """The marked points with marking errors: in px of the image (6 per cell), and the grid points measured there.

    Hidden points and points outside the image are in neither; points without a measured cell nearby are in the first
    only.
    """
    off = _MARKING_SD * torch.randn(len(points), 2, generator=generator)
    cells = window.to_cells(points + torch.cat([off, torch.zeros(len(points), 1)], dim=1))
    column, row = cells.round().long().unbind(1)
    inside = (column >= 0) & (row >= 0) & (column < window.columns) & (row < window.rows)
    names_2d, points_2d, names_3d, points_3d = [], [], [], []
    for i in (visible & inside).nonzero()[:, 0].tolist():
        names_2d.append(NAMES[i])
        points_2d.append(6.0 * cells[i] + cells.new_tensor([0.0, 4.0]))
        measured = _measured_near(grid, int(row[i]), int(column[i]), float(points[i, 2]))
        if measured is not None:
            names_3d.append(NAMES[i])
            points_3d.append(measured)
    return (
        NamedLandmarks(tuple(names_2d), torch.stack(points_2d)),
        NamedLandmarks(tuple(names_3d), torch.stack(points_3d)),
    )


def _measured_near(grid: RangeGrid, row: int, column: int, depth: float) -> Tensor | None:
    """The measured point nearest to a cell, without spikes; None where there is none."""
    top, left = max(0, row - _REACH), max(0, column - _REACH)
    area = (slice(top, row + _REACH + 1), slice(left, column + _REACH + 1))
    good = grid.valid[area] & ((grid.points[area][..., 2] - depth).abs() < _DEPTH)
    places = good.nonzero()
    if not len(places):
        return None
    nearest = places[(places - torch.tensor([row - top, column - left])).square().sum(1).argmin()]
    point: Tensor = grid.points[area][nearest[0], nearest[1]]
    return point
