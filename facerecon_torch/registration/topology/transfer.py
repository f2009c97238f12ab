"""What a registered default face passes on to the mesh beneath it: landmarks, contour lines, vertex sets.

All points in mm, in the frame of the mesh that receives.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.surface_parts import Surface

__all__ = ["TransferredLine", "TransferredPoints", "transfer_apart", "transfer_line", "transfer_points", "transfer_set"]

_TURN_MM = 4.0  # what a normal turned by 90 degrees costs when the nearest vertex is chosen
_FACING = 0.3  # cosine below which two surfaces do not face the same way
_SET_MM = 6.0  # farther from the registered face, nothing belongs to one of its vertex sets
_BESIDE_MM, _BESIDE = 3.0, 0.6  # a vertex of a line stands off it by so much at most, or this share of an edge length
_STEP_MM, _STEP = 2.5, 0.8  # between two vertices of a line lies at least so much, and this share of an edge length


@dataclass(frozen=True)
class TransferredPoints:
    """Nearest vertices, and how far the surface is from the points: along the normal, and in direction."""

    vertices: Int[Tensor, "n"]
    distances: Float[Tensor, "n"]  # mm from point to surface
    cosines: Float[Tensor, "n"]  # of the angle between both normals


@dataclass(frozen=True)
class TransferredLine:
    """Vertices along a line from its back to its front, and what share of it found some."""

    vertices: Int[Tensor, "n"]
    coverage: float
    distance: float  # median distance of the covered line from the surface, mm


def transfer_points(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, allowed: Bool[Tensor, "v"]
) -> TransferredPoints:
    """The allowed vertex nearest to every point, where a surface that faces elsewhere counts as farther away."""
    candidates = torch.nonzero(allowed).flatten()
    cost = _cost(points, normals, target, candidates)
    return _transferred(points, normals, target, candidates[cost.argmin(dim=-1)])


def transfer_apart(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, allowed: Bool[Tensor, "v"]
) -> TransferredPoints:
    """Like `transfer_points`, with another vertex for every point: the assignment of the least sum of costs. Where
    fewer vertices are allowed than there are points, all get the nearest."""
    candidates = torch.nonzero(allowed).flatten()
    cost = _cost(points, normals, target, candidates)
    if len(candidates) < len(points):
        return _transferred(points, normals, target, candidates[cost.argmin(dim=-1)])
    near = cost.topk(min(len(points), len(candidates)), largest=False).indices.unique()  # type: ignore[no-untyped-call]
    chosen = linear_sum_assignment(cost[:, near].numpy())[1]
    return _transferred(points, normals, target, candidates[near[torch.from_numpy(chosen)]])


def _cost(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, candidates: Int[Tensor, "m"]
) -> Float[Tensor, "n m"]:
    """mm^2."""
    squared = torch.cdist(points, target.vertices[candidates]).square()
    turned = (1 - normals @ target.normals[candidates].mT) * _TURN_MM
    return squared + turned.square()


def _transferred(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, vertices: Int[Tensor, "n"]
) -> TransferredPoints:
    offset = target.vertices[vertices] - points
    across = (offset * target.normals[vertices]).sum(-1).abs()
    beyond = (offset.norm(dim=-1) - target.edge_length).clamp_min(0)  # no vertex near: the mesh has ended
    cosines = (normals * target.normals[vertices]).sum(-1)
    return TransferredPoints(vertices, torch.maximum(across, beyond), cosines)


def transfer_line(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, allowed: Bool[Tensor, "v"]
) -> TransferredLine:
    """Different vertices of the mesh along a polyline, in its order.

    The line is sampled four times per edge of the mesh. Of vertices that lie too close together along it, the one
    nearer to the line is kept.
    """
    samples, turned, along = _sampled(points, normals, target.edge_length / 4)
    found = transfer_points(samples, turned, target, allowed)
    offset = (target.vertices[found.vertices] - samples).norm(dim=-1)
    good = (found.cosines >= _FACING) & (offset <= 1.5 * target.edge_length + 1.0) & (found.distances <= _SET_MM)
    if not bool(good.any()):
        return TransferredLine(found.vertices[:0], 0.0, float("inf"))
    kept = good & (offset <= max(_BESIDE_MM, _BESIDE * target.edge_length))
    chosen = _in_order(found.vertices[kept], offset[kept], along[kept], max(_STEP_MM, _STEP * target.edge_length))
    return TransferredLine(chosen, float(good.double().mean()), float(found.distances[good].median()))


def _sampled(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], step: float
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3"], Float[Tensor, "m"]]:
    """Points and normals every `step` mm along a polyline, and their distance along it."""
    lengths = (points[1:] - points[:-1]).norm(dim=-1)
    corners = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    n = max(2, int(corners[-1] / step) + 1)
    along = torch.linspace(0, float(corners[-1]), n, dtype=points.dtype)
    before = (torch.searchsorted(corners, along, right=True) - 1).clamp(0, len(lengths) - 1)
    share = ((along - corners[before]) / lengths[before].clamp_min(1e-9)).clamp(0, 1)[:, None]
    between = [torch.lerp(table[before], table[before + 1], share) for table in (points, normals)]
    return between[0], torch.nn.functional.normalize(between[1], dim=-1), along


def _in_order(
    vertices: Int[Tensor, "m"], offsets: Float[Tensor, "m"], along: Float[Tensor, "m"], close: float
) -> Int[Tensor, "n"]:
    """Each vertex once, at the sample it is nearest to, sorted along the line and thinned."""
    best: dict[int, tuple[float, float]] = {}
    for vertex, offset, place in zip(vertices.tolist(), offsets.tolist(), along.tolist()):
        if vertex not in best or offset < best[vertex][0]:
            best[vertex] = (offset, place)
    kept: list[int] = []
    for vertex, (offset, place) in sorted(best.items(), key=lambda item: item[1][1]):
        if kept and place - best[kept[-1]][1] < close:
            if offset < best[kept[-1]][0]:
                kept[-1] = vertex
        else:
            kept.append(vertex)
    return torch.tensor(kept, dtype=torch.int64)


def transfer_set(
    members: Int[Tensor, "n"],
    placed: Surface,
    topology: FaceTopology,
    target: Surface,
    seen: Bool[Tensor, "v"],
) -> Int[Tensor, "m"]:
    """The seen vertices of the mesh whose nearest point on the registered face belongs to the set `members`.

    `placed` is the registered face without the insides of mouth and nose, but with its eyeballs, so that eyeballs of
    the mesh find theirs and stay out. A point belongs to the set where members hold at least half of its weight.
    """
    belongs = torch.zeros(topology.n_vertices, dtype=torch.float64)
    belongs[members] = 1.0
    rows = torch.nonzero(seen).flatten()
    found = placed.nearest(target.vertices[rows], target.normals[rows], gate=_SET_MM, cosine=_FACING)
    inside = (found.barycentric * belongs[placed.triangles[found.triangles]]).sum(-1)
    return rows[(found.weights > 0) & (inside >= 0.5)]
