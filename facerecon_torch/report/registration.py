"""Images of a registration: scan, fitted mesh and deformed mesh side by side, and landmarks on the image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import triangle_normals, vertex_normals
from facerecon_torch.report.overlay import draw_dots

__all__ = ["draw_landmark_pair", "draw_shaded", "grid_mesh"]


_PX_PER_MM, _FINER = 2.0, 2  # of the image; samples per px
_MARGIN = 6.0  # mm around the shown extent
_AMBIENT, _BACKGROUND = 0.12, 1.0
_LIGHT = (-0.45, 0.55, 0.7)  # from the face to the lamp, +x right, +y up, +z to the viewer
_BACK = (0.85, 0.3, 0.2)  # colour of triangles seen from behind
_LABELLED, _USED = (1.0, 0.2, 0.1), (0.1, 1.0, 0.35)


def draw_shaded(meshes: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Meshes side by side, grey under one lamp and seen along -z, as an image [3, H, W] in [0, 1].

    `meshes` are vertices [V, 3] in mm of one frame and triangles [T, 3]; every panel shows the extent of the last one.
    Triangles seen from behind are red. Raises ValueError for no mesh, another shape, or a value that is not finite.
    """
    if not meshes:
        raise ValueError("meshes must hold at least one mesh; got none")
    for vertices, triangles in meshes:
        require_shape("vertices", vertices, (None, 3))
        require_shape("triangles", triangles, (None, 3))
        require_finite("vertices", vertices)
    shown = meshes[-1][0][:, :2]
    low, high = shown.amin(0) - _MARGIN, shown.amax(0) + _MARGIN
    return torch.cat([_panel(vertices, triangles, low, high) for vertices, triangles in meshes], -1)


def _panel(
    vertices: Float[Tensor, "V 3"], triangles: Tensor, low: Float[Tensor, "2"], high: Float[Tensor, "2"]
) -> Float[Tensor, "3 H W"]:
    scale = _PX_PER_MM * _FINER
    width, height = (max(1, round(float(side) * _PX_PER_MM)) * _FINER for side in high - low)
    corner = torch.stack([low[0], high[1]])
    places = (vertices[:, :2] - corner) * vertices.new_tensor([scale, -scale]) - 0.5
    depth = (vertices[:, 2:] - vertices[:, 2:].mean()) * scale
    raster = get_backend().rasterise(torch.cat([places, depth], -1)[None], triangles, height, width)
    hit, weights = raster.triangle[0], raster.barycentric[0]
    covered = hit >= 0
    normals = vertex_normals(vertices, triangles)[triangles[hit.clamp_min(0)]]
    normal = normalize((weights[..., None] * normals).sum(-2), dim=-1)
    away = triangle_normals(vertices, triangles)[hit.clamp_min(0)][..., 2] < 0
    cosine = (normal @ normalize(vertices.new_tensor(_LIGHT), dim=0)).clamp_min(0)
    grey = _AMBIENT + (0.95 - _AMBIENT) * cosine
    colour = torch.where(away[..., None], vertices.new_tensor(_BACK), grey[..., None].expand(-1, -1, 3))
    image = torch.where(covered[..., None], colour, vertices.new_tensor(_BACKGROUND))
    return avg_pool2d(image.permute(2, 0, 1), _FINER)


def grid_mesh(points: Tensor, valid: Tensor, *, longest: float = 4.0) -> tuple[Tensor, Tensor]:
    """The vertices and triangles of a depth grid's points [r, c, 3] (mm, row 0 on top).

    A cell has two triangles where its corners are valid and its edges at most `longest` mm. Raises ValueError for other
    shapes.
    """
    require_shape("points", points, (None, None, 3))
    require_shape("valid", valid, tuple(points.shape[:2]))
    rows, columns = valid.shape
    index = torch.arange(rows * columns, device=points.device).view(rows, columns)
    corners = torch.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).flatten(0, 1)
    flat = points.flatten(0, 1)
    edges = flat[corners] - flat[corners.roll(1, 1)]
    complete = valid.flatten()[corners].all(1) & (torch.linalg.vector_norm(edges, dim=-1) <= longest).all(1)
    quads = corners[complete]
    return flat, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def draw_landmark_pair(image: Tensor, labelled: Tensor, used: Tensor) -> Tensor:
    """The image [3, H, W] in [0, 1] twice: with the data set's own points (22 to 24 in Bosphorus), then with the
    landmarks in use.

    Points are [n, 2] in px; NaN points are left out. Raises ValueError for other shapes.
    """
    require_shape("image", image, (3, None, None))
    radius = _dot_radius(used, image)
    panels = []
    for name, points, colour in (("labelled", labelled, _LABELLED), ("used", used, _USED)):
        require_shape(name, points, (None, 2))
        finite = points[torch.isfinite(points).all(-1)]
        panels.append(draw_dots(image, finite.to(image), colour, radius=radius))
    return torch.cat(panels, -1)


def _dot_radius(points: Tensor, image: Tensor) -> float:
    """The radius of dots: 1.1 % of the larger side of the points, or of the image where no points are finite."""
    finite = points[torch.isfinite(points).all(-1)]
    side = float((finite.amax(0) - finite.amin(0)).max()) if len(finite) > 1 else min(image.shape[-2:])
    return max(1.2, 0.011 * side)
