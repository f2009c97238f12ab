"""The numpy arrays of a checked mesh, for the writers of mesh files."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Mesh

__all__ = ["MeshArrays", "mesh_arrays", "suffixed_path"]


@dataclass(frozen=True)
class MeshArrays:
    """Vertices in mm; normals of unit length; colours are sRGB in [0, 1]; uv in [0, 1] with v upwards."""

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    normals: NDArray[np.float64] | None
    uv: NDArray[np.float64] | None
    colours: NDArray[np.float64] | None


def mesh_arrays(mesh: Mesh, *, normals: bool, colours: Tensor | None) -> MeshArrays:
    """The arrays of a mesh.

    Args:
        mesh: The mesh, on any device.
        normals: Whether to compute the normals of the vertices.
        colours: sRGB in [0, 1] of every vertex.

    Raises:
        ValueError: The mesh has no triangle, a value that is not finite, or an index or shape that does not fit.
    """
    require_shape("mesh.vertices", mesh.vertices, (None, 3))
    count = len(mesh.vertices)
    require_shape("mesh.triangles", mesh.triangles, (None, 3))
    require_finite("mesh.vertices", mesh.vertices)
    if mesh.triangles.numel() == 0:
        raise ValueError("mesh.triangles must hold at least one triangle; got none")
    low, high = (int(v) for v in mesh.triangles.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"mesh.triangles must index vertices 0..{count - 1}; got {low}..{high}")
    for name, values, width in (("mesh.uv", mesh.uv, 2), ("colours", colours, 3)):
        if values is not None:
            require_shape(name, values, (count, width))
            require_finite(name, values)
    return MeshArrays(
        _array(mesh.vertices),
        np.ascontiguousarray(mesh.triangles.detach().cpu().numpy().astype(np.int32)),
        _unit_normals(mesh) if normals else None,
        None if mesh.uv is None else _array(mesh.uv),
        None if colours is None else _array(colours.clamp(0, 1)),
    )


def suffixed_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """The path, if it ends in `suffix`. Raises ValueError otherwise."""
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ValueError(f"path must end in {suffix}; got {target}")
    return target


def _array(values: Tensor) -> NDArray[np.float64]:
    return np.ascontiguousarray(values.detach().double().cpu().numpy())


def _unit_normals(mesh: Mesh) -> NDArray[np.float64]:
    """Normals of unit length. A vertex without triangles gets the direction of the viewer."""
    normals = _array(vertex_normals(mesh.vertices.double(), mesh.triangles))
    normals[(normals == 0).all(axis=1)] = (0.0, 0.0, 1.0)
    return normals
