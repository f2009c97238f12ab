"""Where the lids' edges go: the scan's surface does not say it, landmarks of the image do."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from facerecon_torch.landmarks.scheme import GROUPS_66
from facerecon_torch.registration.surface_parts import mesh_edges

__all__ = ["EyelidGoals", "EyelidSpec", "Eyelids"]

EYES: tuple[int, ...] = GROUPS_66["eyes"]
"""Rows of the 12 eyelid points among the 66."""
# Of each eye's six points, in iBUG's order: both corners, and the upper lid's points above the lower lid's.
_CORNERS, _UPPER, _LOWER = (0, 3), (1, 2), (5, 4)
_RING = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class EyelidSpec:
    """How landmarks move the edges of the lids."""

    trust: float | int = 0.25  # share of the way from the fitted mesh to the landmarks, which are noisy
    scale: float | int = 6.0  # mm: landmarks further off do not count (Tukey's weight reaches 0)
    weight: float | int = 4.0  # of the edges' goals; a full pair of vertex and scan has 1
    closed: float | int = 0.2  # an eye whose landmarks' opening is below this share of its width is closed

    def __post_init__(self) -> None:
        if not 0 <= self.trust <= 1:
            raise ValueError(f"trust must lie in [0, 1]; got {self.trust}")
        if not (0 < self.scale < float("inf") and 0 <= self.weight < float("inf") and 0 <= self.closed < 1):
            raise ValueError(f"scale must be positive, weight not negative and closed in [0, 1); got {self}")


class EyelidGoals(NamedTuple):
    """Displacements [b, n, 3] (mm, sensor's frame) wanted of `rows` of the mesh, and how much each counts; their z is
    not a goal. `closed` [b, 2]: eyes whose landmarks say so (smaller x of the frontal face first)."""

    rows: Int[Tensor, "n"]
    shift: Float[Tensor, "b n 2"]
    weight: Float[Tensor, "b n"]
    closed: Bool[Tensor, "b 2"]


class Eyelids:
    """The edges of the lids on a mesh: shortest paths along its edges between neighbouring eyelid landmarks. A vertex
    between two landmarks takes a share of each of their displacements."""

    def __init__(self, mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], landmarks: Int[Tensor, "66"]) -> None:
        marks = landmarks[list(EYES)].cpu()
        rows, shares = _lid_edges(mean.double().cpu(), triangles.cpu(), marks)
        self.marks = marks.to(landmarks.device)
        self.rows = rows.to(landmarks.device)
        self._shares = shares.to(landmarks.device)

    def goals(self, posed: Float[Tensor, "b V 3"], lifted: Float[Tensor, "b 66 3"], spec: EyelidSpec) -> EyelidGoals:
        """Displacements of the posed fitted mesh, in the image plane, towards its lifted landmarks; where the landmarks
        of an eye are closed, upper and lower lid are brought together on top of that."""
        points = lifted[:, list(EYES), :2]
        known = torch.isfinite(points).all(-1)
        now = posed[:, self.marks, :2]
        gap = torch.where(known[..., None], points - now, 0.0)
        weight = (1 - gap.square().sum(-1) / spec.scale**2).clamp_min(0).square() * known
        shift = spec.trust * gap * (weight > 0)[..., None]
        closed = _closed(points, known, spec.closed)
        meeting = _meeting(now + shift, closed)
        weight = torch.maximum(weight, (meeting != 0).any(-1).to(weight.dtype))
        shares = self._shares.to(posed)
        return EyelidGoals(self.rows, shares @ (shift + meeting), spec.weight * (weight @ shares.mT), closed)


def _by_eye(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Corners, upper and lower points [b, 2 eyes, 2, ...] of the 12 points."""
    eyes = values.unflatten(1, (2, 6))
    return eyes[:, :, list(_CORNERS)], eyes[:, :, list(_UPPER)], eyes[:, :, list(_LOWER)]


def _closed(points: Float[Tensor, "b 12 2"], known: Bool[Tensor, "b 12"], share: float) -> Bool[Tensor, "b 2"]:
    """Whether the mean opening of each eye is below `share` of its width; never where a point is not known."""
    corners, upper, lower = _by_eye(points)
    width = torch.linalg.vector_norm(corners[:, :, 0] - corners[:, :, 1], dim=-1)
    opening = (upper - lower).mean(2)[..., 1]
    return (opening < share * width) & known.unflatten(1, (2, 6)).all(-1)


def _meeting(now: Float[Tensor, "b 12 2"], closed: Bool[Tensor, "b 2"]) -> Float[Tensor, "b 12 2"]:
    """Half the way from every upper to its lower point and back, where they are apart and the eye is closed."""
    _, upper, lower = _by_eye(now)
    apart = (upper[..., 1] > lower[..., 1]) & closed[..., None]
    half = torch.where(apart[..., None], (lower - upper) / 2, 0.0)
    half = half * half.new_tensor([0.0, 1.0])  # lids move up and down
    move = torch.zeros_like(now).unflatten(1, (2, 6))
    move[:, :, list(_UPPER)] = half
    move[:, :, list(_LOWER)] = -half
    return move.flatten(1, 2)


def _lid_edges(
    mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], marks: Int[Tensor, "12"]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 12"]]:
    """Vertices along both rings of landmarks, and the landmarks' shares in each: linear in the length of the path."""
    edges = mesh_edges(triangles).unique(dim=0)
    lengths = (mean[edges[:, 0]] - mean[edges[:, 1]]).norm(dim=-1).numpy()
    graph = coo_matrix((lengths, edges.T.numpy()), shape=(len(mean), len(mean))).tocsr()
    distance, before = dijkstra(graph, directed=False, indices=marks.numpy(), return_predecessors=True)
    shares: dict[int, np.ndarray] = {}
    for eye in (0, 6):
        for k in _RING:
            first, second = eye + k, eye + (k + 1) % 6
            total, vertex = distance[first, marks[second]], int(marks[second])
            while vertex >= 0 and np.isfinite(total):
                share = distance[first, vertex] / total if total > 0 else 1.0
                row = shares.setdefault(vertex, np.zeros(len(marks)))
                row[:] = 0
                row[first] += 1 - share
                row[second] += share
                vertex = int(before[first, vertex])
    rows = torch.tensor(sorted(shares), dtype=torch.int64)
    table = np.array([shares[int(row)] for row in rows]).reshape(len(rows), len(marks))
    return rows, torch.from_numpy(table)
