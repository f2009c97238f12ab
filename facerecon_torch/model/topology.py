"""What a face mesh knows beside its vertices: triangles, texture coordinates, landmarks, contour lines,
vertex sets."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.checks import require_finite

__all__ = ["N_CONTOUR", "N_LANDMARKS", "FaceTopology"]

N_LANDMARKS = 66  # of the paper: the inner landmarks, then the contour
N_CONTOUR = 17


@dataclass(frozen=True, eq=False)
class FaceTopology:
    """Index tables of one face mesh; every index counts vertices, from 0.

    Raises TypeError for a table that is not an int64 tensor (uv: floating point), ValueError for a wrong
    shape or an index outside the mesh.
    """

    triangles: Tensor  # [T, 3], counter-clockwise seen from outside
    uv: Tensor  # [V, 2], texture coordinates in [0, 1], v upwards
    landmark_vertices: Tensor  # [66], paper order: 49 inner, then 17 contour
    contour_lines: Tensor  # [17, L], one line per contour landmark, from the back to the front, padded with -1
    centre_vertices: Tensor  # [C], vertices of the "centre" error
    whole_vertices: Tensor  # [W], vertices of the "whole" error

    def __post_init__(self) -> None:
        _require_table("uv", self.uv, (None, 2), integer=False)
        require_finite("topology.uv", self.uv)
        _require_table("triangles", self.triangles, (None, 3))
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
        """The same topology with `change` (a move of device or of dtype) applied to every table."""
        return FaceTopology(**{name: change(table) for name, table in self.tables().items()})

    def to(self, device: torch.device | str) -> "FaceTopology":
        """The same topology on another device."""
        return self.map(lambda table: table.to(device))

    def tables(self) -> dict[str, Tensor]:
        """Every table by name, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


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
