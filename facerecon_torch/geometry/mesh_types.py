"""Records and the interface of mesh queries, and the code that all backends share: checks and exact closest points."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.geometry.laplacian import Laplacian

__all__ = [
    "ClosestPoint",
    "MeshBackend",
    "Raster",
    "RayHit",
    "averaged_shades",
    "describe_closest",
    "finer_rows",
    "nearest_in_triangle",
    "require_indices",
    "triangle_corners",
]


@dataclass(frozen=True)
class Raster:
    """The nearest triangle behind every pixel centre: `triangle` is -1 and the rest 0 where there is none.

    `depth` is in the unit of the z that was rasterised; the corner weights in `barycentric` sum to 1.
    """

    triangle: Int[Tensor, "*b height width"]
    barycentric: Float[Tensor, "*b height width 3"]
    depth: Float[Tensor, "*b height width"]


@dataclass(frozen=True)
class ClosestPoint:
    """The point of the mesh nearest to each query point. Without triangles, `triangle` is -1 and `distance`
    infinite."""

    point: Float[Tensor, "*b n 3"]
    distance: Float[Tensor, "*b n"]
    triangle: Int[Tensor, "*b n"]
    barycentric: Float[Tensor, "*b n 3"]


@dataclass(frozen=True)
class RayHit:
    """The first triangle that each ray meets, from either side; -1 and an infinite distance where it meets none."""

    distance: Float[Tensor, "*b n"]
    triangle: Int[Tensor, "*b n"]


@runtime_checkable
class MeshBackend(Protocol):
    """The interface of the mesh backends. Vertex indices outside the mesh raise ValueError. No call changes its input;
    results lie on the input's device. All meshes of a batch share their triangles."""

    def rasterise(
        self, points_image: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"], height: int, width: int
    ) -> Raster:
        """The z-buffer of triangles given as (x px, y px, depth towards the viewer), both sides drawn.

        A pixel is covered where its centre lies in the triangle or on its edge; of equal depths the lower
        triangle index wins. Triangles without area or with a non-finite corner are left out. Not
        differentiable.
        """
        ...

    def shade(
        self,
        points_image: Float[Tensor, "V 3"],
        triangles: Int[Tensor, "T 3"],
        shades: Float[Tensor, "V"],
        size: tuple[int, int],
        *,
        finer: int,
    ) -> Float[Tensor, "2 height width"]:
        """The share of every pixel of one image that the mesh covers, and this share times its mean shade.

        `shades` in [0, 1] are interpolated over the triangles, whose points are those of `rasterise`. A pixel is the
        mean of `finer` samples, the k-th of them (k + 1/2) / finer - 1/2 px from its centre in x and in y. Not
        differentiable.
        """
        ...

    def closest_point(
        self,
        points: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> ClosestPoint:
        """The nearest surface point, in the unit of the vertices; differentiable given its triangle."""
        ...

    def first_hit(
        self,
        origins: Float[Tensor, "*b n 3"],
        directions: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> RayHit:
        """The distance along unit directions to the first triangle, in the unit of the vertices. Not
        differentiable."""
        ...

    def laplacian(self, vertices: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"]) -> Laplacian:
        """The cotangent Laplacian of one mesh, with areas in the squared unit of the vertices (see
        `laplacian.cotangent_laplacian`)."""
        ...


def finer_rows(points_image: Float[Tensor, "V 3"], finer: int) -> Float[Tensor, "V 3"]:
    """The points (x, y, depth) of an image where y counts `finer` rows of samples for every row of pixels."""
    # The centre of the first row of samples lies (finer - 1) / 2 of them before that of the first row of pixels.
    stretch = points_image.new_tensor([1.0, finer, 1.0])
    return points_image * stretch + points_image.new_tensor([0.0, (finer - 1) / 2, 0.0])


def averaged_shades(
    raster: Raster, triangles: Int[Tensor, "T 3"], shades: Float[Tensor, "V"]
) -> Float[Tensor, "2 height width"]:
    """The layers of `MeshBackend.shade` from `finer` rasters, one for each row of samples of every pixel."""
    covered = raster.triangle >= 0
    layers = shades.new_zeros(2, *covered.shape)
    layers[0][covered] = 1
    corners = shades[triangles.long()[raster.triangle[covered]]]
    layers[1][covered] = (corners * raster.barycentric[covered].to(shades)).sum(-1)
    return layers.mean(1)


def require_indices(triangles: Tensor, vertices: Tensor) -> None:
    """Raises ValueError for an index outside the mesh, where a kernel would read outside its memory. Waits for the
    device."""
    if not len(triangles):
        return
    low, high = (int(v) for v in triangles.aminmax())
    if low < 0 or high >= vertices.shape[-2]:
        raise ValueError(f"triangles must index vertices 0..{vertices.shape[-2] - 1}; got {low}..{high}")


def triangle_corners(vertices: Tensor, triangles: Tensor, triangle: Tensor) -> Tensor:
    """The corners [*b, n, 3, 3] of the triangles numbered `triangle` [*b, n] of meshes with `vertices` [*b, V, 3]."""
    rows = triangles.long()[triangle]
    flat = rows.reshape(*rows.shape[:-2], -1)[..., None].expand(*rows.shape[:-2], rows.shape[-2] * 3, 3)
    return vertices.gather(-2, flat).reshape(*rows.shape, 3)


def describe_closest(points: Tensor, vertices: Tensor, triangles: Tensor, triangle: Tensor) -> ClosestPoint:
    """The point of triangle `triangle` [*b, n] (-1: none) nearest to each of `points` [*b, n, 3], in their dtype and
    differentiable."""
    hit = triangle >= 0
    if not len(triangles):
        nothing = torch.zeros_like(points)
        return ClosestPoint(nothing, torch.full_like(points[..., 0], torch.inf), triangle, nothing)
    corners = triangle_corners(vertices, triangles, triangle.clamp_min(0))
    weights = torch.where(hit[..., None], nearest_in_triangle(points, corners), 0.0)
    nearest = (weights[..., None, :] @ corners).squeeze(-2)
    distance = torch.where(hit, torch.linalg.vector_norm(nearest - points, dim=-1), torch.inf)
    return ClosestPoint(nearest, distance, triangle, weights)


def nearest_in_triangle(points: Float[Tensor, "*b n 3"], corners: Float[Tensor, "*b n 3 3"]) -> Float[Tensor, "*b n 3"]:
    """The barycentric weights of the point of triangle i nearest to point i; differentiable almost everywhere.

    The candidates are the foot of the perpendicular, where it falls inside, and the nearest point of each edge. In a
    triangle without area the edges alone count.
    """
    a, b, c = corners.unbind(-2)
    inside, weights = _foot(points, a, b, c)
    best = torch.where(inside[..., None], weights, 0.0)
    nearest = torch.where(inside, -1.0, torch.inf).to(points.dtype)  # a foot inside beats every edge
    for first, second, third in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        share = _along(points, corners[..., first, :], corners[..., second, :])
        edge = torch.stack([1 - share, share, torch.zeros_like(share)], -1)
        order = torch.tensor([(first, second, third).index(k) for k in range(3)], device=points.device)
        edge = edge[..., order]
        squared = ((edge[..., None, :] @ corners).squeeze(-2) - points).square().sum(-1)
        closer = squared < nearest
        best = torch.where(closer[..., None], edge, best)
        nearest = torch.where(closer, squared, nearest)
    return best


def _along(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    edge = end - start
    length = edge.square().sum(-1)
    share = ((points - start) * edge).sum(-1) / torch.where(length > 0, length, 1.0)
    return share.clamp(0, 1)


def _foot(points: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the foot of the perpendicular on the triangle's plane lies inside, and its weights."""
    ab, ac, ap = b - a, c - a, points - a
    normal = torch.linalg.cross(ab, ac)
    area = normal.square().sum(-1)
    safe = torch.where(area > 0, area, 1.0)
    second = (torch.linalg.cross(ap, ac) * normal).sum(-1) / safe
    third = (torch.linalg.cross(ab, ap) * normal).sum(-1) / safe
    first = 1 - second - third
    inside = (area > 0) & (first >= 0) & (second >= 0) & (third >= 0)
    return inside, torch.stack([first, second, third], -1)
