"""The placement of meshes with the least sum of squared distances from points to their surfaces, in batches."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.geometry.align import Alignment, align_rigid, align_similarity
from facerecon_torch.geometry.mesh_types import ClosestPoint, MeshBackend, triangle_corners
from facerecon_torch.geometry.rotation import axis_angle_to_matrix

__all__ = ["SCAN_ALIGNMENTS", "SurfaceFit", "identity_alignment", "refined"]

SCAN_ALIGNMENTS = ("none", "rigid", "similarity")
_ROUNDS = 60


@dataclass(frozen=True)
class SurfaceFit:
    """Points, which of them count, and the meshes that are moved to them; float64.

    The iteration ends where the mean squared distance falls by less than its share `enough`.
    """

    points: Float[Tensor, "b n 3"]
    counted: Bool[Tensor, "b n"]
    vertices: Float[Tensor, "b V 3"]
    triangles: Int[Tensor, "T 3"]
    align: str
    backend: MeshBackend
    enough: float = 1e-9

    def rows(self, index: Int[Tensor, "m"]) -> "SurfaceFit":
        """Some of the meshes."""
        return replace(self, points=self.points[index], counted=self.counted[index], vertices=self.vertices[index])

    def closest(self, placed: Alignment) -> ClosestPoint:
        """The nearest points of the placed meshes."""
        return self.backend.closest_point(self.points, placed.apply(self.vertices), self.triangles)

    def cost(self, closest: ClosestPoint) -> Float[Tensor, "b"]:
        """Mean squared distance over the points that count."""
        squares = closest.distance.square().masked_fill(~self.counted, 0.0)
        return squares.sum(-1) / self.counted.sum(-1)


@dataclass
class _State:
    """The placement of every mesh, its nearest points and its cost."""

    placed: Alignment
    closest: ClosestPoint
    cost: Tensor

    def put(self, index: Tensor, other: "_State", rows: Tensor) -> None:
        """Take the rows `rows` of `other` as the own rows `index`."""
        for own, new in ((self.placed, other.placed), (self.closest, other.closest)):
            for name in vars(own):
                getattr(own, name)[index] = getattr(new, name)[rows]
        self.cost[index] = other.cost[rows]


def identity_alignment(batch: int, device: torch.device) -> Alignment:
    """The alignment that moves nothing, in float64."""
    one = torch.ones(batch, dtype=torch.float64, device=device)
    turn = torch.eye(3, dtype=torch.float64, device=device).expand(batch, 3, 3)
    return Alignment(one, turn, torch.zeros_like(turn[..., 0]))


def refined(fit: SurfaceFit, start: Alignment) -> tuple[Alignment, ClosestPoint]:
    """The best placements from a start, and the nearest points to them.

    Gauss-Newton on the distances. A step that does not lower a mesh's cost is replaced by the closed-form step, which
    never raises it. A mesh is done once neither lowers it; the others go on.
    """
    state = _evaluated(fit, _copied(start))
    active = torch.arange(len(fit.points), device=fit.points.device)
    for _ in range(_ROUNDS if fit.align != "none" else 0):
        part, now = fit.rows(active), _taken(state, active)
        trial = _evaluated(part, _newton_step(part, now))
        worse = torch.nonzero(~(trial.cost < now.cost)).flatten()
        if len(worse):
            few, before = part.rows(worse), _taken(now, worse)
            trial.put(worse, _evaluated(few, _closed_form_step(few, before)), torch.arange(len(worse)))
        better = trial.cost < now.cost
        rows = torch.nonzero(better).flatten()
        state.put(active[rows], trial, rows)
        active = active[better & (trial.cost <= now.cost * (1 - fit.enough))]
        if not len(active):
            break
    return state.placed, state.closest


def _copied(alignment: Alignment) -> Alignment:
    return Alignment(alignment.scale.clone(), alignment.rotation.clone(), alignment.translation.clone())


def _evaluated(fit: SurfaceFit, placed: Alignment) -> _State:
    closest = fit.closest(placed)
    return _State(placed, closest, fit.cost(closest))


def _taken(state: _State, rows: Tensor) -> _State:
    closest = ClosestPoint(**{name: value[rows] for name, value in vars(state.closest).items()})
    return _State(state.placed[rows], closest, state.cost[rows])


def _closed_form_step(fit: SurfaceFit, now: _State) -> Alignment:
    """The alignments after the best motion for the current pairs of points."""
    own = now.placed.inverse().apply(now.closest.point)
    solve = align_similarity if fit.align == "similarity" else align_rigid
    return solve(own, fit.points, fit.counted.to(own.dtype))


def _newton_step(fit: SurfaceFit, now: _State) -> Alignment:
    """The alignments after a Gauss-Newton step; a motion changes a distance by its component along that line."""
    scale, placed, point, distance = fit.align == "similarity", now.placed, now.closest.point, now.closest.distance
    gap = fit.points - point
    corners = triangle_corners(placed.apply(fit.vertices), fit.triangles, now.closest.triangle)
    sides = corners[..., 1:, :] - corners[..., :1, :]
    normals = normalize(torch.linalg.cross(sides[..., 0, :], sides[..., 1, :]), dim=-1)
    near = distance[..., None] < 1e-6
    along = torch.where(near, normals, gap / torch.where(near, 1.0, distance[..., None]))
    along = along.masked_fill(~fit.counted[..., None], 0.0)
    counts = fit.counted[..., None].to(point.dtype)
    centre = (point * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True)
    arm = point - centre
    columns = [torch.linalg.cross(arm, along), along]
    if scale:
        columns.append((arm * along).sum(-1, keepdim=True))
    design = torch.cat(columns, -1)
    normal = design.mT @ design
    damping = 1e-9 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)
    normal = normal + torch.diag_embed(damping[:, None].expand(-1, normal.shape[-1]))
    step = torch.linalg.solve(normal, design.mT @ (gap * along).sum(-1, keepdim=True))[..., 0]
    turn = axis_angle_to_matrix(step[:, :3])
    grow = 1 + step[:, 6] if scale else torch.ones_like(placed.scale)
    centre = centre[:, 0]
    moved = (turn @ (placed.translation - centre)[..., None])[..., 0]
    return Alignment(grow * placed.scale, turn @ placed.rotation, grow[:, None] * moved + centre + step[:, 3:6])
