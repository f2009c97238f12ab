"""Eyes of a mesh that is bent onto a scan: goals for the edges of labelled or closed lids, and eyeballs that move
rigidly."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from facerecon_torch.landmarks.scheme import GROUPS_66
from facerecon_torch.registration.surface_parts import mesh_edges, mesh_parts

__all__ = ["EyelidGoals", "EyelidSpec", "Eyelids", "RigidParts", "lid_opening"]

EYES: tuple[int, ...] = GROUPS_66["eyes"]
"""The 12 eyelid points among the 66."""
# Of each eye's six points, in iBUG's order: both corners, and the upper lid's points above the lower lid's.
_CORNERS, _UPPER, _LOWER = (0, 3), (1, 2), (5, 4)
_RING = (0, 1, 2, 3, 4, 5)
_CLEARANCE = 1.02  # radii: skin that is further off than this on the mean face may come as near as this
_DEEPEST = 5.0  # mm: a part gives way by at most this much
_AROUND = 1.5  # radii of a part on the mean face: skin within them must not sink into the part


@dataclass(frozen=True, slots=True, kw_only=True)
class EyelidSpec:
    """Settings of the edges of the lids, which landmarks move.

    Raises:
        ValueError: a number outside its range.
    """

    noise: float | int = 4.0  # mm: error of a detector on closed eyes; a lid nearer to its landmarks does not move
    scale: float | int = 12.0  # mm: landmarks further off do not count (Tukey's weight reaches 0)
    weight: float | int = 10.0  # of the edges' goals; a full pair of vertex and scan has 1
    meet: float | int = 0.8  # share of the gap between lids of a closed eye that the upper lid closes
    closed: float | int = 0.15  # a fitted eye is closed if its opening is below this share of its width

    def __post_init__(self) -> None:
        if not (0 <= self.noise < float("inf") and 0 <= self.meet <= 1):
            raise ValueError(f"noise must not be negative, meet lie in [0, 1]; got {self.noise} and {self.meet}")
        if not (0 < self.scale < float("inf") and 0 <= self.weight < float("inf") and 0 <= self.closed < 1):
            raise ValueError(f"scale must be positive, weight not negative and closed in [0, 1); got {self}")


class EyelidGoals(NamedTuple):
    """Goal displacements along +y (mm, sensor's frame) of `rows` of the mesh, and their weights; x and z are free.
    `closed` marks the closed eyes, the one with the smaller x of the frontal face first."""

    rows: Int[Tensor, "n"]
    shift: Float[Tensor, "b n"]
    weight: Float[Tensor, "b n"]
    closed: Bool[Tensor, "b 2"]


class Eyelids:
    """The edges of the lids on a mesh: shortest paths along its edges between neighbouring eyelid landmarks. The
    displacement of a vertex is interpolated between those of its two landmarks."""

    def __init__(self, mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], landmarks: Int[Tensor, "66"]) -> None:
        marks = landmarks[list(EYES)].cpu()
        rows, shares = _lid_edges(mean.double().cpu(), triangles.cpu(), marks)
        self.marks = marks.to(landmarks.device)
        self.rows = rows.to(landmarks.device)
        self._shares = shares.to(landmarks.device)

    def goals(
        self,
        posed: Float[Tensor, "b V 3"],
        lifted: Float[Tensor, "b 66 3"],
        labelled: Float[Tensor, "b 66 3"],
        spec: EyelidSpec,
    ) -> EyelidGoals:
        """Vertical displacements of the posed mesh's lids: of eyes whose lids the data set labels, and of eyes that the
        fit has nearly closed.

        Labelled lids move to their points. Others move towards the detected landmarks by what exceeds the landmarks'
        noise, then together if they are still apart; if open, they have no goals: the scan shows the edges of their
        lids better than a detector does.
        """
        points, now = lifted[:, list(EYES), :2], posed[:, self.marks, :2]
        detected = torch.isfinite(points).all(-1)
        closed = _closed(now, spec.closed)
        gap = torch.where(detected, points[..., 1] - now[..., 1], 0.0)
        trust = detected * (1 - (gap / spec.scale).square()).clamp_min(0).square()
        _, above, below = _by_eye(gap)
        _, trust_above, trust_below = _by_eye(trust)
        up = _excess(above, trust_above, spec.noise)
        down = _excess(below, trust_below, spec.noise)
        _, upper, lower = _by_eye(now[..., 1])
        apart = (upper + up - lower - down).clamp_min(0)
        move = torch.zeros_like(gap).view(-1, 2, 6)
        move[..., list(_UPPER)] = up - spec.meet * apart
        move[..., list(_LOWER)] = down + (1 - spec.meet) * apart
        known = _has_lids(labelled)
        to_label = (labelled[:, list(EYES), 1] - now[..., 1]).view(-1, 2, 6).nan_to_num(0.0)
        move = torch.where(known[..., None], to_label, move)
        shares = self._shares.to(posed)
        weight = torch.zeros_like(move)
        weight[..., list(_UPPER + _LOWER)] = spec.weight  # falls to 0 at the corners, which the scan shows well
        weight, move = ((values * (closed | known)[..., None]).flatten(1, 2) for values in (weight, move))
        return EyelidGoals(self.rows, move @ shares.mT, weight @ shares.mT, closed)


def _has_lids(points: Float[Tensor, "b 66 3"]) -> Bool[Tensor, "b 2"]:
    """Whether all four lid points of each eye are among the landmarks."""
    _, upper, lower = _by_eye(torch.isfinite(points[:, list(EYES)]).all(-1))
    return torch.cat([upper, lower], -1).all(-1)


def lid_opening(points: Float[Tensor, "b 66 3"]) -> Float[Tensor, "b 2"]:
    """Mean vertical distance of each eye's upper lid points from the lower ones, mm; NaN where one is not known."""
    _, upper, lower = _by_eye(points[:, list(EYES), 1])
    opening: Tensor = (upper - lower).mean(-1)
    return opening


def _by_eye(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Corners, upper and lower points, [b, 2 eyes, 2, ...] each, of the 12 points."""
    eyes = values.reshape(-1, 2, 6, *values.shape[2:])
    return eyes[:, :, list(_CORNERS)], eyes[:, :, list(_UPPER)], eyes[:, :, list(_LOWER)]


def _closed(now: Float[Tensor, "b 12 2"], limit: float) -> Bool[Tensor, "b 2"]:
    """Whether the mean opening of each eye of the fitted mesh is below `limit` of its width."""
    corners, upper, lower = _by_eye(now)
    width = torch.linalg.vector_norm(corners[:, :, 0] - corners[:, :, 1], dim=-1)
    opening = (upper[..., 1] - lower[..., 1]).mean(-1)
    closed: Tensor = opening < limit * width
    return closed


def _excess(shift: Float[Tensor, "b 2 2"], trust: Float[Tensor, "b 2 2"], noise: float) -> Float[Tensor, "b 2 1"]:
    """The part of the mean displacement of a lid's two points that exceeds `noise`."""
    mean = (trust * shift).sum(-1, keepdim=True) / trust.sum(-1, keepdim=True).clamp_min(1e-6)
    return mean - mean.clamp(-noise, noise)


def _lid_edges(
    mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], marks: Int[Tensor, "12"]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 12"]]:
    """Vertices along both rings of landmarks, and the landmarks' weights in each, linear in the length of the path."""
    edges = torch.unique(mesh_edges(triangles), dim=0)
    lengths = (mean[edges[:, 0]] - mean[edges[:, 1]]).norm(dim=-1).numpy()
    graph = coo_matrix((lengths, edges.T.numpy()), shape=(len(mean), len(mean))).tocsr()
    distance, before = dijkstra(graph, directed=False, indices=marks.numpy(), return_predecessors=True)
    shares: dict[int, np.ndarray] = {}
    for eye in (0, 6):
        for k in _RING:
            first, second = eye + k, eye + (k + 1) % 6
            total, vertex = distance[first, marks[second]], int(marks[second])
            while vertex >= 0 and np.isfinite(total):
                fraction = distance[first, vertex] / total if total > 0 else 1.0
                row = shares.setdefault(vertex, np.zeros(len(marks)))
                row[:] = 0
                row[first] += 1 - fraction
                row[second] += fraction
                vertex = int(before[first, vertex])
    rows = torch.tensor(sorted(shares), dtype=torch.int64)
    table = np.array([shares[int(row)] for row in rows]).reshape(len(rows), len(marks))
    return rows, torch.from_numpy(table)


class _Part(NamedTuple):
    rows: Int[Tensor, "r"]
    carriers: Int[Tensor, "r"]  # the skin vertex nearest to each row
    guards: Int[Tensor, "g"]  # outer skin around the part
    clearance: Float[Tensor, "g"]  # radii between each guard and the part's middle that must remain


class RigidParts:
    """The connected parts of a mesh outside its main one, such as eyeballs, which move rigidly with the skin next to
    them; `mean` is the mean face, `skin` its outer skin."""

    def __init__(self, mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], skin: Bool[Tensor, "V"]) -> None:
        parts = mesh_parts(mean, triangles)
        main = parts == parts[triangles.flatten()].mode().values
        inside, outer = torch.nonzero(main).flatten(), torch.nonzero(skin).flatten()
        self._parts = []
        for number in parts[~main].unique().tolist():  # type: ignore[no-untyped-call]
            rows = torch.nonzero(parts == number).flatten()
            centre, radius = _ball(mean[rows])
            distance = torch.linalg.vector_norm(mean[outer] - centre, dim=-1) / radius
            near = distance < _AROUND
            carriers = inside[torch.cdist(mean[rows], mean[inside]).argmin(1)]
            self._parts.append(_Part(rows, carriers, outer[near], distance[near].clamp_max(_CLEARANCE)))

    def to(self, device: torch.device) -> "RigidParts":
        """The same parts on another device."""
        moved = object.__new__(RigidParts)
        moved._parts = [_Part(*(rows.to(device) for rows in part)) for part in self._parts]
        return moved

    def carry(
        self, posed: Float[Tensor, "b V 3"], shift: Float[Tensor, "b V 3"], front: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b V 3"]:
        """Displacements in which every part moves rigidly: by the mean displacement of the skin next to it, and as far
        back as its mean ball needs so that no skin around it sinks in. `front` points out of the face."""
        shift = shift.clone()
        for part in self._parts:
            along = shift[:, part.carriers].mean(1)
            centre, radius = _ball(posed[:, part.rows])
            arm = (posed + shift)[:, part.guards] - (centre + along)[:, None]
            back = _backward(arm, front, radius[:, None] * part.clearance.to(radius))
            shift[:, part.rows] = (along - back[:, None] * front)[:, None]
        return shift


def _ball(points: Float[Tensor, "*b n 3"]) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b"]]:
    """Centre and mean radius."""
    centre = points.mean(-2)
    return centre, torch.linalg.vector_norm(points - centre[..., None, :], dim=-1).mean(-1)


def _backward(
    arm: Float[Tensor, "b g 3"], front: Float[Tensor, "b 3"], clearance: Float[Tensor, "b g"]
) -> Float[Tensor, "b"]:
    """The least t >= 0 with |arm + t front| >= clearance for every guard in front of the ball's middle."""
    ahead = (arm * front[:, None]).sum(-1)
    inside = clearance.square() - arm.square().sum(-1)
    step = (ahead.square() + inside).clamp_min(0).sqrt() - ahead
    step = torch.where((inside > 0) & (ahead > 0), step, 0.0)
    return step.amax(1).clamp_max(_DEEPEST) if arm.shape[1] else torch.zeros_like(front[:, 0])
