"""Texture coordinates that use the whole texture: the islands of a mesh, each at its density, packed into a square."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from facerecon_torch.export.uv_packing import packed_pieces
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.structures import Mesh

__all__ = ["corner_uv_of", "largest_island", "middle_islands", "packed_uv", "uv_islands"]

_MOUTH, _EYE, _HIDDEN = 0.7, 2.0, 0.2  # px per mm of the skin's: of the mouth, of eyes, of what the front view hides
_FRONT_PX = 512  # of that view


def packed_uv(mesh: Mesh) -> Float[Tensor, "triangles 3 2"]:
    """Texture coordinates of the triangles' corners, whose islands keep their shape.

    The default face's own coordinates are those of a whole body, of which a face takes a twentieth. The visible side
    of the eyes, which is small and looked at most, has twice the px per mm of the skin, the mouth 0.7 of them, other
    islands a fifth.

    Args:
        mesh: with texture coordinates, and vertices in mm, model frame.

    Raises:
        ValueError: the mesh has no texture coordinates.
    """
    corners = corner_uv_of(mesh).double().cpu().numpy()
    islands = uv_islands(mesh)
    island, densities = islands.cpu().numpy(), _densities(mesh, islands)
    vertices = mesh.vertices.double().cpu().numpy()[mesh.triangles.cpu().numpy()]
    pieces = []
    for k, density in enumerate(densities):
        rows = island == k
        stretch = np.sqrt(_area(vertices[rows]) / max(_area(corners[rows]), 1e-12))
        pieces.append((corners[rows] - corners[rows].min((0, 1))) * stretch * density)
    scale, starts = packed_pieces(pieces)
    placed = np.zeros_like(corners)
    for k, piece in enumerate(pieces):
        placed[island == k] = piece * scale + starts[k]
    return torch.from_numpy(placed).to(mesh.uv)


def _densities(mesh: Mesh, island: Int[Tensor, "triangles"]) -> list[float]:
    """The px per mm of every island, those of the largest being 1."""
    flat = mesh.vertices.detach().double().cpu() * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    low = flat.amin(0)
    points = (flat - low) * (_FRONT_PX / float((flat.amax(0) - low)[:2].max()))
    raster = get_backend().rasterise(points, mesh.triangles.cpu(), _FRONT_PX, _FRONT_PX)
    shown = set(island.cpu()[raster.triangle[raster.triangle >= 0]].tolist())
    middle, largest = middle_islands(mesh, island), largest_island(island)

    def density(k: int) -> float:
        if k in middle:
            return 1.0 if k == largest else _MOUTH
        return _EYE if k in shown else _HIDDEN

    return [density(k) for k in range(int(island.max()) + 1)]


def largest_island(island: Int[Tensor, "triangles"]) -> int:
    """The number of the island with the most triangles, which is the face's outer skin."""
    return int(island.bincount().argmax())


def middle_islands(mesh: Mesh, island: Int[Tensor, "triangles"]) -> set[int]:
    """The numbers of the islands on both sides of the face: skin and mouth, but not eyes."""
    side = mesh.vertices[mesh.triangles][..., 0].cpu()
    left, right = (set(island.cpu()[part.any(1)].tolist()) for part in (side < 0, side > 0))
    return left & right


def corner_uv_of(mesh: Mesh) -> Float[Tensor, "triangles 3 2"]:
    """The texture coordinates of the triangles' corners. Raises ValueError for a mesh without any."""
    if mesh.uv is None:
        raise ValueError("a texture needs a face model with texture coordinates; this one has none")
    return mesh.uv[mesh.triangles] if mesh.corner_uv is None else mesh.corner_uv


def uv_islands(mesh: Mesh) -> Int[Tensor, "triangles"]:
    """The number of every triangle's island: triangles hang together that share a vertex at one texture coordinate."""
    triangles = mesh.triangles.cpu().numpy()
    corners = corner_uv_of(mesh).double().cpu().numpy()
    keys = np.concatenate([triangles.reshape(-1, 1), corners.reshape(-1, 2)], axis=1)
    _, rows = np.unique(keys, axis=0, return_inverse=True)
    rows = rows.reshape(-1, 3)
    first, second = rows[:, [0, 1]].ravel(), rows[:, [1, 2]].ravel()
    size = rows.max() + 1
    _, labels = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(size, size)), False)
    return torch.from_numpy(np.unique(labels[rows[:, 0]], return_inverse=True)[1].reshape(-1)).long()


def _area(corners: NDArray[np.float64]) -> float:
    """The area of triangles in the plane or in space."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    squares = (first**2).sum(-1) * (second**2).sum(-1) - (first * second).sum(-1) ** 2
    return float(np.sqrt(squares.clip(0)).sum() / 2)
