"""The tables of a face mesh: triangles, texture coordinates, landmarks, contour lines and vertex sets.

The vertices of iBUG landmarks on published topologies are lists with source and licence.
"""

import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.checks import require_finite

__all__ = ["N_CONTOUR", "N_LANDMARKS", "FaceTopology", "LandmarkList", "known_landmarks", "landmark_lists"]

N_LANDMARKS = 66
"""Landmarks of the paper: 49 inner points, then 17 contour points (`landmarks.scheme` has names and order)."""
N_CONTOUR = 17
_ASSET = Path(__file__).resolve().parents[1] / "assets" / "landmark_vertices.json"


@dataclass(frozen=True, eq=False)
class FaceTopology:
    """The index tables of one face mesh; every index counts vertices, from 0.

    Raises:
        TypeError: A table is not an int64 tensor (uv and corner_uv: a floating-point tensor).
        ValueError: A table has a wrong shape or an index outside the mesh.
    """

    triangles: Tensor  # [T, 3], counter-clockwise seen from outside
    uv: Tensor  # [V, 2], texture coordinates in [0, 1], v upwards; at a seam one of the vertex's several
    landmark_vertices: Tensor  # [66], paper order: 49 inner, then 17 contour
    contour_lines: Tensor  # [17, L], one line per contour landmark, from the back to the front, padded with -1
    centre_vertices: Tensor  # [C], vertices of the "centre" error
    whole_vertices: Tensor  # [W], vertices of the "whole" error
    corner_uv: Tensor | None = None  # [T, 3, 2], texture coordinates of the triangles' corners, of a mesh with seams

    def __post_init__(self) -> None:
        _require_table("uv", self.uv, (None, 2), integer=False)
        require_finite("topology.uv", self.uv)
        _require_table("triangles", self.triangles, (None, 3))
        if self.corner_uv is not None:
            _require_table("corner_uv", self.corner_uv, (len(self.triangles), 3, 2), integer=False)
            require_finite("topology.corner_uv", self.corner_uv)
        _require_table("landmark_vertices", self.landmark_vertices, (N_LANDMARKS,))
        _require_table("contour_lines", self.contour_lines, (N_CONTOUR, None))
        for name in ("centre_vertices", "whole_vertices"):
            _require_table(name, getattr(self, name), (None,))
            if getattr(self, name).unique().numel() != getattr(self, name).numel():
                raise ValueError(f"topology.{name} must hold every vertex once; some occur twice")
        for name in ("triangles", "landmark_vertices", "centre_vertices", "whole_vertices"):
            _require_indices(name, getattr(self, name), lowest=0, n_vertices=self.n_vertices)
        _require_indices("contour_lines", self.contour_lines, lowest=-1, n_vertices=self.n_vertices)
        self._require_lines()

    def _require_lines(self) -> None:
        used = self.contour_lines >= 0
        if not bool(used[:, 0].all()):
            empty = torch.nonzero(~used[:, 0]).flatten().tolist()
            raise ValueError(f"topology.contour_lines must each start with a vertex; lines {empty} start with -1")
        if bool((used[:, 1:] & ~used[:, :-1]).any()):
            raise ValueError("topology.contour_lines must hold -1 only as padding at the end; found -1 before a vertex")

    @property
    def n_vertices(self) -> int:
        return self.uv.shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> "FaceTopology":
        """The topology with every table moved by `change` to another device or dtype, without checking it again.

        A check would read the tables back from the device.
        """
        moved = copy(self)
        for name, table in self.tables().items():
            object.__setattr__(moved, name, change(table))
        return moved

    def to(self, device: torch.device | str) -> "FaceTopology":
        """The topology on another device."""
        return self.map(lambda table: table.to(device))

    def surface(self) -> dict[str, Tensor]:
        """The tables of a Mesh: `triangles`, `uv` and, of a mesh that has it, `corner_uv`."""
        return {name: table for name, table in self.tables().items() if name in ("triangles", "uv", "corner_uv")}

    def tables(self) -> dict[str, Tensor]:
        """All tables by name, in the order of the fields; `corner_uv` only of a mesh that has it."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: table for name, table in named.items() if table is not None}


def _require_table(name: str, table: Any, shape: tuple[int | None, ...], integer: bool = True) -> None:
    if not isinstance(table, Tensor):
        raise TypeError(f"topology.{name} must be a torch.Tensor; got {type(table).__name__}")
    if integer and table.dtype != torch.int64:
        raise TypeError(f"topology.{name} must be int64; got {table.dtype}")
    if not integer and not table.is_floating_point():
        raise TypeError(f"topology.{name} must be floating point; got {table.dtype}")
    matches = table.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, table.shape))
    if not matches or table.numel() == 0:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"topology.{name} must have shape ({wanted}) and not be empty; got {tuple(table.shape)}")


def _require_indices(name: str, table: Tensor, lowest: int, n_vertices: int) -> None:
    low, high = (int(value) for value in table.aminmax())
    if low < lowest or high >= n_vertices:
        raise ValueError(f"topology.{name} must lie in [{lowest}, {n_vertices}); got {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class LandmarkList:
    """One list: iBUG point (0..67) -> vertex (from 0).

    `verified` says how the list was checked; `n_vertices` is the size of the mesh that it belongs to.
    """

    topology: str
    name: str
    n_vertices: int
    source: str
    licence: str
    verified: str
    vertices: dict[int, int]


@lru_cache(maxsize=1)
def _all_lists() -> tuple[LandmarkList, ...]:
    lists = []
    for entry in json.loads(_ASSET.read_text(encoding="utf-8"))["lists"]:
        vertices = dict(zip(entry.pop("ibug"), entry.pop("vertices"), strict=True))
        lists.append(LandmarkList(**entry, vertices=vertices))
    return tuple(lists)


def landmark_lists(topology: str | None = None) -> tuple[LandmarkList, ...]:
    """The lists of one topology, the preferred list first; all lists if `topology` is None."""
    return tuple(entry for entry in _all_lists() if topology in (None, entry.topology))


def known_landmarks(topology: str, n_vertices: int) -> dict[int, int]:
    """iBUG point -> vertex, from the lists of `topology`; empty for a topology without lists.

    The preferred list takes precedence over the others. Some models are published with only the first vertices of
    their topology: points on missing vertices are left out.

    Args:
        topology: Name of the topology.
        n_vertices: Number of vertices of the mesh.

    Raises:
        ValueError: The mesh has more vertices than the lists expect.
    """
    lists = landmark_lists(topology)
    merged: dict[int, int] = {}
    for entry in reversed(lists):
        if n_vertices > entry.n_vertices:
            raise ValueError(
                f"landmark list {topology}/{entry.name} requires a mesh of at most {entry.n_vertices} vertices; "
                f"got {n_vertices}"
            )
        merged |= {point: vertex for point, vertex in entry.vertices.items() if vertex < n_vertices}
    return dict(sorted(merged.items()))
