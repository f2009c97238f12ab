"""Images of a face model's topology for review: numbered landmarks, contour lines, vertex sets."""

import colorsys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.mesh_queries import get_backend, visible_vertices
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.topology import FaceTopology

__all__ = ["TopologyMarks", "draw_topology"]

_VIEWS = ((0, 0), (55, 0), (-55, 0), (0, 40))  # yaw, pitch in degrees: front, both sides, from below
_SKIN, _WHOLE, _CENTRE, _DOUBT = (0.80, 0.77, 0.74), (0.62, 0.72, 0.88), (0.55, 0.80, 0.62), (0.90, 0.35, 0.30)
_KNOWN, _DERIVED, _RED, _INK = (255, 255, 255), (255, 225, 50), (255, 30, 20), (20, 20, 20)
_LIGHT, _AMBIENT = (-0.3, 0.4, 0.87), 0.3
_PAPER = 0.13
_SPAN = 1.2  # height of the image, in heights of landmarks and vertex sets
_CLEARANCE = 0.8  # mm by which a drawn landmark may lie behind the surface


@dataclass(frozen=True, kw_only=True)
class TopologyMarks:
    """Derived landmarks (paper order) and uncertain entries, which are drawn in their own colours."""

    derived: frozenset[int] = frozenset()
    uncertain_landmarks: frozenset[int] = frozenset()
    uncertain_lines: frozenset[int] = frozenset()
    uncertain_sets: frozenset[str] = frozenset()  # "centre", "whole"


def draw_topology(
    vertices: Tensor, topology: FaceTopology, marks: TopologyMarks, names: tuple[int, ...], *, tile: int = 700
) -> Tensor:
    """Four views [3, 2 tile, 2 tile] of a mesh [V, 3] (mm, model frame) with its tables drawn on it.

    Landmarks are dots with their number from `names`: white known, yellow derived, red uncertain. Contour lines have a
    colour each and a ring at the back end; red ones are uncertain. The whole set is tinted blue, the centre green, an
    uncertain set red. Only entries that face the viewer are drawn. Raises ValueError for another number of vertices.
    """
    require_shape("vertices", vertices, (topology.n_vertices, 3))
    require_finite("vertices", vertices)
    vertices = vertices.detach().float().cpu()
    topology = topology.to("cpu")
    face = vertices[torch.cat([topology.whole_vertices, topology.landmark_vertices])]
    centre = (face.amin(0) + face.amax(0)) / 2
    scale = tile / (_SPAN * float((face.amax(0) - face.amin(0)).max()))
    tiles = []
    for yaw, pitch in _VIEWS:
        rotation = euler_to_matrix(*torch.deg2rad(torch.tensor([yaw, pitch, 0.0])))
        turned = (vertices - centre) @ rotation.mT
        canvas = _shaded(turned, topology, _tints(topology, marks), scale, tile)
        tiles.append(_draw_tables(canvas, _View(turned, scale, tile), topology, marks, names))
    return torch.cat([torch.cat(tiles[:2], dim=2), torch.cat(tiles[2:], dim=2)], dim=1)


class _View:
    """Image position and visibility of every vertex."""

    def __init__(self, turned: Float[Tensor, "v 3"], scale: float, tile: int) -> None:
        self.turned = turned
        self.px: Float[Tensor, "v 2"] = _pixels(turned, scale, tile)[:, :2]

    def visible(self, triangles: Int[Tensor, "t 3"]) -> Bool[Tensor, "v"]:
        """Whether each vertex is visible."""
        return visible_vertices(self.turned, triangles, clearance=_CLEARANCE, facing=-0.2)


def _pixels(turned: Float[Tensor, "v 3"], scale: float, tile: int) -> Float[Tensor, "v 3"]:
    return turned * scale * turned.new_tensor([1.0, -1.0, 1.0]) + turned.new_tensor([(tile - 1) / 2, (tile - 1) / 2, 0])


def _tints(topology: FaceTopology, marks: TopologyMarks) -> Float[Tensor, "v 3"]:
    colours = torch.tensor(_SKIN).repeat(topology.n_vertices, 1)
    for name, colour in (("whole", _WHOLE), ("centre", _CENTRE)):
        table: Tensor = getattr(topology, f"{name}_vertices")
        colours[table] = torch.tensor(_DOUBT if name in marks.uncertain_sets else colour)
    return colours


def _shaded(
    turned: Float[Tensor, "v 3"], topology: FaceTopology, colours: Float[Tensor, "v 3"], scale: float, tile: int
) -> Float[Tensor, "3 h w"]:
    points = _pixels(turned, scale, tile)
    raster = get_backend().rasterise(points[None], topology.triangles, tile, tile)
    covered = raster.triangle[0] >= 0
    lamp = normalize(turned.new_tensor(_LIGHT), dim=0)
    shade = _AMBIENT + (1 - _AMBIENT) * (vertex_normals(turned, topology.triangles) @ lamp).clamp_min(0)
    lit = (colours * shade[:, None])[topology.triangles[raster.triangle[0][covered]]]
    image = torch.full((tile, tile, 3), _PAPER)
    image[covered] = (raster.barycentric[0][covered][..., None] * lit).sum(-2)
    return image.movedim(-1, 0)


def _draw_tables(
    canvas: Float[Tensor, "3 h w"],
    view: _View,
    topology: FaceTopology,
    marks: TopologyMarks,
    names: tuple[int, ...],
) -> Float[Tensor, "3 h w"]:
    image = Image.fromarray((canvas.clamp(0, 1) * 255).byte().movedim(0, -1).numpy())
    pen = ImageDraw.Draw(image)
    visible, px = view.visible(topology.triangles).tolist(), view.px.tolist()
    for k, row in enumerate(topology.contour_lines.tolist()):
        colour = _RED if k in marks.uncertain_lines else _hue(k)
        line = [v for v in row if v >= 0]
        for a, b in pairwise(line):
            if visible[a] and visible[b]:
                pen.line([tuple(px[a]), tuple(px[b])], fill=colour, width=2)
        for place, v in enumerate(line):
            if visible[v]:
                _dot(pen, px[v], 4 if place == 0 else 2, colour, hollow=place == 0)
    for paper, v in enumerate(topology.landmark_vertices.tolist()):
        if visible[v]:
            colour = _DERIVED if paper in marks.derived else _KNOWN
            colour = _RED if paper in marks.uncertain_landmarks else colour
            _dot(pen, px[v], 3, colour)
            pen.text((px[v][0] + 4, px[v][1] - 11), str(names[paper]), fill=colour, stroke_width=1, stroke_fill=_INK)
    return torch.from_numpy(np.asarray(image).copy()).movedim(-1, 0).float() / 255


def _hue(k: int) -> tuple[int, int, int]:
    """The colour of contour line k: one of 17 hues without red and yellow, which mean uncertain and derived."""
    red, green, blue = colorsys.hsv_to_rgb(0.20 + 0.68 * k / 16, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _dot(
    pen: ImageDraw.ImageDraw, px: list[float], radius: int, colour: tuple[int, int, int], hollow: bool = False
) -> None:
    box = [px[0] - radius, px[1] - radius, px[0] + radius, px[1] + radius]
    pen.ellipse(box, fill=None if hollow else colour, outline=colour if hollow else _INK, width=1)
