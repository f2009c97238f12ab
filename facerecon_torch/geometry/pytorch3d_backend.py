"""Mesh operations through pytorch3d, run once against version 0.7.9 on a CPU; on CUDA it was never run.

pytorch3d has no wheel for Linux and no ray casting: rays are answered by warp. Its rasteriser works in float32 and
draws in normalised device coordinates: +x left, +y up, +z away from the viewer, the shorter side of the picture from
-1 to 1, with the centres of the pixels half a pixel inside.
"""

import torch
from jaxtyping import Float, Int
from pytorch3d.ops import cot_laplacian, knn_points
from pytorch3d.renderer.mesh import rasterize_meshes
from pytorch3d.structures import Meshes
from scipy import sparse
from torch import Tensor

from facerecon_torch.geometry.laplacian import STEEPEST, Laplacian, laplacian_of_weights
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.mesh_types import (
    ClosestPoint,
    Raster,
    RayHit,
    averaged_shades,
    describe_closest,
    nearest_in_triangle,
    require_indices,
    triangle_corners,
)

__all__ = ["Pytorch3dBackend"]

_EDGE = 1e-12  # squared distance (NDC) within which a pixel's centre counts as on the edge, hence as covered
_CANDIDATES = 8  # nearest vertices whose triangles are tried first
_PAIRS = 4_000_000  # points x triangles that stand in memory at once


class Pytorch3dBackend:
    """`mesh_types.MeshBackend` on pytorch3d's rasterize_meshes, knn_points and cot_laplacian."""

    def rasterise(
        self, points_image: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"], height: int, width: int
    ) -> Raster:
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1; got {height} and {width}")
        require_indices(triangles, points_image)
        batch = points_image.shape[:-2]
        points = points_image.detach().reshape(-1, *points_image.shape[-2:])
        found = points.new_full((len(points), height, width), -1, dtype=torch.int64)
        if found.numel() and len(triangles):
            found = _nearest_triangles(points, triangles, height, width)
        corners = _picked_corners(points, triangles, found)
        weights = torch.where(found[..., None] >= 0, _weights_in_image(corners), 0.0)
        depth = (weights * corners[..., 2]).sum(-1)
        shape = (*batch, height, width)
        return Raster(found.reshape(shape), weights.reshape(*shape, 3), depth.reshape(shape))

    def shade(
        self,
        points_image: Float[Tensor, "V 3"],
        triangles: Int[Tensor, "T 3"],
        shades: Float[Tensor, "V"],
        size: tuple[int, int],
        *,
        finer: int,
    ) -> Float[Tensor, "2 height width"]:
        place = (torch.arange(finer, device=points_image.device) + 0.5) / finer - 0.5
        shifted = torch.stack([place, place, torch.zeros_like(place)], -1)[:, None]
        raster = self.rasterise(points_image - shifted.to(points_image), triangles, *size)
        return averaged_shades(raster, triangles, shades)

    def closest_point(
        self,
        points: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> ClosestPoint:
        require_indices(triangles, vertices)
        found = torch.full(points.shape[:-1], -1, dtype=torch.int64, device=points.device)
        if found.numel() and len(triangles):
            flat_points = points.detach().reshape(-1, *points.shape[-2:])
            flat_vertices = vertices.detach().reshape(-1, *vertices.shape[-2:])
            found = _closest_triangles(flat_points, flat_vertices, triangles).reshape(found.shape)
        return describe_closest(points, vertices, triangles, found)

    def first_hit(
        self,
        origins: Float[Tensor, "*b n 3"],
        directions: Float[Tensor, "*b n 3"],
        vertices: Float[Tensor, "*b V 3"],
        triangles: Int[Tensor, "T 3"],
    ) -> RayHit:
        return get_backend("warp").first_hit(origins, directions, vertices, triangles)

    def laplacian(self, vertices: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"]) -> Laplacian:
        require_indices(triangles, vertices)
        table, n_vertices = triangles.long().cpu(), len(vertices)
        cotangents, areas = _cotangents(vertices.detach().cpu(), table)
        edges, halves = table[:, [1, 2, 0, 2, 0, 1]].T.reshape(2, -1), cotangents.T.flatten() / 2
        kept = edges[0] != edges[1]  # a triangle with a repeated corner has edges of no length
        entries = (halves[kept].numpy(), edges[:, kept].numpy())
        half = sparse.coo_matrix(entries, shape=(n_vertices, n_vertices)).tocsr()
        around = torch.bincount(table.flatten(), areas.repeat_interleave(3) / 3, n_vertices)
        answer = laplacian_of_weights(half + half.T, around.numpy())
        return answer.to(vertices.device, torch.float64)


def _cotangents(
    vertices: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"]
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T"]]:
    """Cotangents of the angles at the corners, clamped, and areas, in float64.

    pytorch3d sums over the triangles at an edge, so every triangle is given corners of its own; it takes float32 alone,
    so every triangle is moved to the origin first.
    """
    corners = vertices[triangles].double()
    local = (corners - corners.mean(1, keepdim=True)).float()
    numbers = torch.arange(triangles.numel()).reshape(-1, 3)
    # torch warns of sparse matrices that are made without saying whether they are to be checked.
    with torch.sparse.check_sparse_tensor_invariants(enable=False):  # type: ignore[no-untyped-call]
        sums, inverse_areas = cot_laplacian(local.flatten(0, 1), numbers)
        sums = sums.coalesce()
    opposite = torch.zeros(numbers.numel(), dtype=torch.float64)
    rows, columns = sums.indices()
    opposite[3 * (rows // 3) + 3 - rows % 3 - columns % 3] = sums.values().double()
    areas = 1 / inverse_areas.double().reshape(-1, 3)[:, 0]
    return opposite.reshape(-1, 3).clamp(-STEEPEST, STEEPEST), areas


def _nearest_triangles(points: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """[b, height, width]: triangle nearest to the viewer behind every pixel's centre, or -1."""
    whole = [torch.isfinite(mesh).all(-1)[triangles].all(-1) for mesh in points]
    kept = [torch.nonzero(rows).flatten() for rows in whole]
    placed = _to_ndc(torch.nan_to_num(points, 0.0, 0.0, 0.0), height, width)
    meshes = Meshes(verts=list(placed), faces=[triangles[rows] for rows in kept])
    found, _, _, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=_EDGE,
        faces_per_pixel=1,
        perspective_correct=False,
        clip_barycentric_coords=False,
        cull_backfaces=False,
    )
    found = found[..., 0]  # counts the faces of all meshes in a row
    starts = torch.tensor([0, *(len(rows) for rows in kept)], device=points.device).cumsum(0)[:-1]
    local = torch.where(found >= 0, found - starts[:, None, None], -1)
    numbers = torch.nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=-1)
    if numbers.shape[1] == 0:
        return local
    original = numbers.gather(1, local.clamp_min(0).flatten(1)).reshape(local.shape)
    return torch.where(local >= 0, original, -1)


def _to_ndc(points: Tensor, height: int, width: int) -> Tensor:
    """px and depth towards the viewer -> NDC in float32; depths become distances from 1, as the viewer stands at 0."""
    shorter = min(height, width)
    x = (width - 1 - 2 * points[..., 0]) / shorter
    y = (height - 1 - 2 * points[..., 1]) / shorter
    depth = points[..., 2]
    z = depth.amax(-1, keepdim=True) - depth + 1
    return torch.stack([x, y, z], dim=-1).float()


def _picked_corners(points: Tensor, triangles: Tensor, found: Tensor) -> Tensor:
    if not len(triangles):
        return points.new_zeros(*found.shape, 3, 3)
    corners = triangle_corners(points, triangles, found.clamp_min(0).flatten(1))
    return torch.nan_to_num(corners, 0.0, 0.0, 0.0).reshape(*found.shape, 3, 3)


def _weights_in_image(corners: Tensor) -> Tensor:
    """Barycentric weights of every pixel's centre [b, h, w] in its triangle, in the dtype of the corners."""
    rows, columns = corners.shape[1:3]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = torch.stack([x, y], dim=-1).to(corners)
    edges = corners[..., :2] - place[..., None, :]
    a, b, c = edges.unbind(-2)

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    areas = torch.stack([cross(b, c), cross(c, a), cross(a, b)], dim=-1)
    total = areas.sum(-1, keepdim=True)
    return areas / torch.where(total == 0, 1.0, total)


def _closest_triangles(points: Tensor, vertices: Tensor, triangles: Tensor) -> Tensor:
    """[b, n]: number of the nearest triangle. The triangles around the nearest vertices are tried first; where a
    triangle elsewhere could still be nearer, all are."""
    near = knn_points(points.float(), vertices.float(), K=min(_CANDIDATES, vertices.shape[1]))
    around = _triangles_around(triangles, vertices.shape[1])
    answers = []
    for mesh, queries, places, squared in zip(vertices, points, near.idx, near.dists):
        tried = around[places].flatten(1)  # -1: padding
        distance, best = _best_of(queries, mesh, triangles, tried)
        # A triangle without any of these vertices has all corners beyond the farthest of them, and no point of it is
        # more than (longest edge) / sqrt(3) away from a corner.
        corners = mesh[triangles]
        longest = torch.linalg.vector_norm(corners - corners.roll(1, 1), dim=-1).max()
        sure = distance <= squared[:, -1].sqrt().to(distance) - longest / 3**0.5
        everything = torch.arange(len(triangles), device=points.device)
        for rows in torch.split(torch.nonzero(~sure).flatten(), max(1, _PAIRS // len(triangles))):
            if len(rows):
                best[rows] = _best_of(queries[rows], mesh, triangles, everything.expand(len(rows), -1))[1]
        answers.append(best)
    return torch.stack(answers)


def _best_of(points: Tensor, mesh: Tensor, triangles: Tensor, tried: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [n] to, and number of, the nearest of the triangles `tried` [n, k] (-1: none)."""
    corners = mesh[triangles[tried.clamp_min(0)]]
    places = points[:, None].expand(-1, tried.shape[1], -1)
    weights = nearest_in_triangle(places, corners)
    gap = torch.linalg.vector_norm((weights[..., None, :] @ corners).squeeze(-2) - places, dim=-1)
    distance, which = torch.where(tried >= 0, gap, torch.inf).min(-1)
    return distance, tried.gather(1, which[:, None])[:, 0]


def _triangles_around(triangles: Tensor, n_vertices: int) -> Tensor:
    """[V, most]: numbers of the triangles at every vertex, padded with -1."""
    corners = triangles.flatten()
    order = corners.argsort(stable=True)
    degree = torch.bincount(corners, minlength=n_vertices)
    first = degree.cumsum(0) - degree
    place = torch.arange(len(corners), device=corners.device) - first[corners[order]]
    table = corners.new_full((n_vertices, max(1, int(degree.max()))), -1)
    table[corners[order], place] = order // 3
    return table
