"""Texture coordinates that use the whole texture: the islands of a mesh, all at one scale, packed into a square."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from facerecon_torch.structures import Mesh

__all__ = ["corner_uv_of", "packed_uv", "uv_islands"]

_GAP = 0.008  # of the texture's side, around every island
_INNER = 0.4  # px per mm of smaller islands, eyes and mouth, of the largest one's
_STEPS = 30  # of the bisection of the scale


def packed_uv(mesh: Mesh) -> Float[Tensor, "triangles 3 2"]:
    """Texture coordinates of the triangles' corners, whose islands keep their shape.

    The smaller islands have 0.4 of the px per mm of the largest.

    The default face's own coordinates are those of a whole body, of which a face takes a twentieth.

    Args:
        mesh: with texture coordinates, and vertices in mm.

    Raises:
        ValueError: the mesh has no texture coordinates.
    """
    corners = corner_uv_of(mesh).double().cpu().numpy()
    island = uv_islands(mesh).cpu().numpy()
    largest = np.bincount(island).argmax()
    vertices = mesh.vertices.double().cpu().numpy()[mesh.triangles.cpu().numpy()]
    boxes = np.zeros((island.max() + 1, 2))
    placed = np.zeros_like(corners)
    for k in range(len(boxes)):
        rows = island == k
        density = np.sqrt(_area(vertices[rows]) / max(_area(corners[rows]), 1e-12))
        density *= 1.0 if k == largest else _INNER
        placed[rows] = (corners[rows] - corners[rows].min((0, 1))) * density
        boxes[k] = placed[rows].max((0, 1))
    low, high = 0.0, 1 / boxes.max()
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _shelved(boxes * middle) is not None else (low, middle)
    starts = _shelved(boxes * low)
    assert starts is not None  # the scale 0 always fits
    return torch.from_numpy(placed * low + starts[island][:, None]).to(mesh.uv)


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


def _shelved(boxes: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"] | None:
    """Corners of the boxes in the unit square, in shelves from the highest box to the lowest; None if they do not
    fit."""
    starts = np.zeros_like(boxes)
    x = y = shelf = 0.0
    for k in np.argsort(-boxes[:, 1], kind="stable"):
        width, height = boxes[k] + 2 * _GAP
        if x + width > 1:
            x, y, shelf = 0.0, y + shelf, 0.0
        if x + width > 1 or y + height > 1:
            return None
        starts[k] = x + _GAP, y + _GAP
        x, shelf = x + width, max(shelf, height)
    return starts
