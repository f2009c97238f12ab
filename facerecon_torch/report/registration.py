"""Images of a registration: scan, fitted mesh and deformed mesh side by side, and landmarks on the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.mesh_queries import MeshBackend, get_backend
from facerecon_torch.geometry.normals import triangle_normals, vertex_normals
from facerecon_torch.report.overlay import draw_dots

__all__ = ["ShadedSpec", "draw_landmark_pair", "draw_shaded", "grid_mesh"]


@dataclass(frozen=True, kw_only=True)
class ShadedSpec:
    """Style of shaded meshes; `light` points from the face to the lamp, +x right, +y up, +z to the viewer."""

    px_per_mm: float = 2.0
    margin: float = 6.0  # mm around the window
    ambient: float = 0.12
    background: float = 1.0
    back: tuple[float, float, float] = (0.85, 0.3, 0.2)  # colour of triangles seen from behind
    light: tuple[float, float, float] = (-0.45, 0.55, 0.7)
    supersample: int = 2

    def __post_init__(self) -> None:
        if not (0 < self.px_per_mm <= 20 and self.margin >= 0 and self.supersample >= 1):
            raise ValueError(f"px_per_mm must lie in (0, 20], margin be 0 or more, supersample 1 or more; got {self}")


def draw_shaded(
    meshes: Sequence[tuple[Tensor, Tensor]],
    *,
    window: Tensor | None = None,
    spec: ShadedSpec | None = None,
    backend: MeshBackend | None = None,
) -> Tensor:
    """Meshes side by side, grey under one lamp and seen along -z, as an image [3, H, W] in [0, 1].

    Args:
        meshes: vertices [V, 3] in mm of one frame and triangles [T, 3]. Triangles seen from behind are red.
        window: [[low x, low y], [high x, high y]] in mm, shown by every panel; None: the extent of the last mesh.
        spec: style; None: the defaults.
        backend: rasteriser; None: the fastest one.

    Raises:
        ValueError: no mesh, another shape, or a value that is not finite.
    """
    spec, backend = spec or ShadedSpec(), backend or get_backend()
    if not meshes:
        raise ValueError("meshes must hold at least one mesh; got none")
    for vertices, triangles in meshes:
        require_shape("vertices", vertices, (None, 3))
        require_shape("triangles", triangles, (None, 3))
        require_finite("vertices", vertices)
    shown = meshes[-1][0]
    if window is None:
        window = torch.stack([shown[:, :2].amin(0), shown[:, :2].amax(0)])
    require_shape("window", window, (2, 2))
    low, high = window[0] - spec.margin, window[1] + spec.margin
    panels = [_panel(vertices, triangles, low, high, spec, backend) for vertices, triangles in meshes]
    return torch.cat(panels, -1)


def _panel(
    vertices: Float[Tensor, "V 3"], triangles: Tensor, low: Tensor, high: Tensor, spec: ShadedSpec, backend: MeshBackend
) -> Float[Tensor, "3 H W"]:
    scale = spec.px_per_mm * spec.supersample
    width, height = (max(1, round(float(side) * spec.px_per_mm)) * spec.supersample for side in high - low)
    corner = torch.stack([low[0], high[1]])
    places = (vertices[:, :2] - corner) * vertices.new_tensor([scale, -scale]) - 0.5
    depth = (vertices[:, 2:] - vertices[:, 2:].mean()) * scale
    raster = backend.rasterise(torch.cat([places, depth], -1)[None], triangles, height, width)
    hit, weights = raster.triangle[0], raster.barycentric[0]
    covered = hit >= 0
    normals = vertex_normals(vertices, triangles)[triangles[hit.clamp_min(0)]]
    normal = normalize((weights[..., None] * normals).sum(-2), dim=-1)
    away = triangle_normals(vertices, triangles)[hit.clamp_min(0)][..., 2] < 0
    cosine = (normal @ normalize(vertices.new_tensor(spec.light), dim=0)).clamp_min(0)
    grey = spec.ambient + (0.95 - spec.ambient) * cosine
    colour = torch.where(away[..., None], vertices.new_tensor(spec.back), grey[..., None].expand(-1, -1, 3))
    image = torch.where(covered[..., None], colour, vertices.new_tensor(spec.background))
    return avg_pool2d(image.permute(2, 0, 1), spec.supersample)


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


def draw_landmark_pair(
    image: Tensor,
    labelled: Tensor,
    used: Tensor,
    *,
    labelled_colour: tuple[float, float, float] = (1.0, 0.2, 0.1),
    used_colour: tuple[float, float, float] = (0.1, 1.0, 0.35),
) -> Tensor:
    """The image [3, H, W] in [0, 1] twice: with the data set's own points (22 to 24 in Bosphorus), then with the
    landmarks in use.

    Points are [n, 2] in px; NaN points are left out. Raises ValueError for other shapes.
    """
    require_shape("image", image, (3, None, None))
    radius = _dot_radius(used, image)
    panels = []
    for name, points, colour in (("labelled", labelled, labelled_colour), ("used", used, used_colour)):
        require_shape(name, points, (None, 2))
        finite = points[torch.isfinite(points).all(-1)]
        panels.append(draw_dots(image, finite.to(image), colour, radius=radius))
    return torch.cat(panels, -1)


def _dot_radius(points: Tensor, image: Tensor) -> float:
    """The radius of dots: 1.1 % of the larger side of the points, or of the image where no points are finite."""
    finite = points[torch.isfinite(points).all(-1)]
    side = float((finite.amax(0) - finite.amin(0)).max()) if len(finite) > 1 else min(image.shape[-2:])
    return max(1.2, 0.011 * side)
