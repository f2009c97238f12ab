"""The 68 iBUG landmarks from the 468 vertices of MediaPipe's face mesh."""

import importlib.resources
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.formats.checked_columns import load_columns
from facerecon_torch.formats.json_file import read_json

__all__ = ["N_MESH", "mesh_to_ibug68", "mesh_to_ibug68_3d", "mesh_triangles"]

N_MESH = 468
"""Vertices of the mesh; FaceMesh gives 10 more for the irises."""

_FOLDER = Path(str(importlib.resources.files("facerecon_torch"))) / "assets" / "mediapipe"
_COUNTS = (468, 478)  # the last 10 of 478 are the irises
MAP_FORMAT = "facerecon_torch.mesh_to_ibug68/2"
TRIANGLES_FORMAT = "facerecon_torch.mesh_triangles/1"


def mesh_to_ibug68(points: Float[Tensor, "*b points c"]) -> Float[Tensor, "*b 68 2"]:
    """The 68 points in iBUG order, in the unit of the mesh: each is a weighted sum of the vertices.

    Args:
        points: 468 vertices, or 478 with the irises, which are not used; x and y, or x, y and z.

    Raises:
        ValueError: another number of points or coordinates.

    Example:
        >>> mesh_to_ibug68(FaceMesh()([picture], faces.boxes, faces.points)[0]).shape
        torch.Size([1, 68, 2])
    """
    _require_mesh(points, (2, 3))
    return _weighted(points[..., :2])


def mesh_to_ibug68_3d(points: Float[Tensor, "*b points c"]) -> Float[Tensor, "*b 68 3"]:
    """The 68 points of `mesh_to_ibug68` in space, by the same weights, in the unit of the mesh.

    Args:
        points: 468 vertices, or 478 with the irises, which are not used; x, y and z.

    Raises:
        ValueError: another number of points or coordinates.

    Example:
        >>> mesh_to_ibug68_3d(FaceMesh()([picture], faces.boxes, faces.points)[0]).shape
        torch.Size([1, 68, 3])
    """
    _require_mesh(points, (3,))
    return _weighted(points)


def _require_mesh(points: Tensor, coordinates: tuple[int, ...]) -> None:
    if points.ndim < 2 or points.shape[-2] not in _COUNTS or points.shape[-1] not in coordinates:
        expected = " or ".join(map(str, coordinates))
        raise ValueError(f"points must be [..., 468 or 478, {expected}]; got {list(points.shape)}")


def _weighted(points: Float[Tensor, "*b points c"]) -> Float[Tensor, "*b 68 c"]:
    # In float64, so that a face's points do not depend on how many faces stand beside it.
    return (_weights().to(points.device) @ points[..., :N_MESH, :].double()).to(points.dtype)


@lru_cache(maxsize=1)
def mesh_triangles() -> Int[Tensor, "T 3"]:
    """The triangles of the 468 vertices, as in MediaPipe's canonical face mesh.

    Example:
        >>> mesh_triangles().shape
        torch.Size([898, 3])
    """
    with torch.inference_mode(False):
        return torch.tensor(read_json(triangles_file())["triangles"], dtype=torch.int64)


def triangles_file() -> Path:
    """The committed triangles; `commands/build_assets/mesh_triangles.py` makes them."""
    return _FOLDER / "mesh_triangles.json"


def map_file() -> Path:
    """The committed weights; `commands/build_assets/mesh_points.py` makes them."""
    return _FOLDER / "mesh_to_ibug68.safetensors"


@lru_cache(maxsize=1)
def _weights() -> Float[Tensor, "68 468"]:
    """Of every landmark the weights of the vertices, which sum to one."""
    with torch.inference_mode(False):
        return load_columns(map_file())[0]["weights"].double()
