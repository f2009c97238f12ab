"""Transfer of landmarks, contour lines and vertex sets from the registered default face to the mesh below it.

All points are in mm, in the frame of that mesh.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.surface_parts import Surface

__all__ = [
    "TransferredLine",
    "TransferredPoints",
    "joined_points",
    "transfer_apart",
    "transfer_line",
    "transfer_points",
    "transfer_set",
]

_TURN_MM = 4.0  # cost, as a distance, of a normal turned by 90 degrees when the nearest vertex is chosen
_FACING = 0.3  # cosine below which two surfaces do not face the same way
_SET_MM = 6.0  # largest distance of a vertex set's vertex from the registered face
_BESIDE_MM, _BESIDE = 3.0, 0.6  # largest distance of a line's vertex from it, mm or edge lengths
_STEP_MM, _STEP = 2.5, 0.8  # least distance of two vertices of a line, mm or edge lengths


@dataclass(frozen=True)
class TransferredPoints:
    """Nearest vertices, with the distance of the surface from the points and the cosine between the normals."""

    vertices: Int[Tensor, "n"]
    distances: Float[Tensor, "n"]  # mm from point to surface
    cosines: Float[Tensor, "n"]  # of the angle between both normals


@dataclass(frozen=True)
class TransferredLine:
    """Vertices along a line from its back to its front, and the share of the line with vertices near it."""

    vertices: Int[Tensor, "n"]
    coverage: float
    distance: float  # median distance of the covered line from the surface, mm


def transfer_points(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, allowed: Bool[Tensor, "v"]
) -> TransferredPoints:
    """The allowed vertex nearest to every point; differing normals count as additional distance."""
    candidates = torch.nonzero(allowed).flatten()
    cost = _cost(points, normals, target, candidates)
    return _transferred(points, normals, target, candidates[cost.argmin(dim=-1)])


def transfer_apart(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, allowed: Bool[Tensor, "v"]
) -> TransferredPoints:
    """Like `transfer_points`, with a different vertex for every point: the assignment with the least sum of costs. If
    there are fewer allowed vertices than points, every point gets the nearest."""
    candidates = torch.nonzero(allowed).flatten()
    cost = _cost(points, normals, target, candidates)
    if len(candidates) < len(points):
        return _transferred(points, normals, target, candidates[cost.argmin(dim=-1)])
    near = cost.topk(min(len(points), len(candidates)), largest=False).indices.unique()  # type: ignore[no-untyped-call]
    chosen = linear_sum_assignment(cost[:, near].numpy())[1]
    return _transferred(points, normals, target, candidates[near[torch.from_numpy(chosen)]])


def joined_points(parts: Sequence[TransferredPoints]) -> TransferredPoints:
    """All points in one table, in order."""
    names = [field.name for field in fields(TransferredPoints)]
    return TransferredPoints(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _cost(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, candidates: Int[Tensor, "m"]
) -> Float[Tensor, "n m"]:
    """Squared distances with the cost of differing normals, mm^2."""
    squared = torch.cdist(points, target.vertices[candidates]).square()
    turned = (1 - normals @ target.normals[candidates].mT) * _TURN_MM
    return squared + turned.square()


def _transferred(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, vertices: Int[Tensor, "n"]
) -> TransferredPoints:
    distances = target.nearest(points, normals, gate=math.inf).distances
    return TransferredPoints(vertices, distances, (normals * target.normals[vertices]).sum(-1))


def transfer_line(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], target: Surface, allowed: Bool[Tensor, "v"]
) -> TransferredLine:
    """Different vertices of the mesh along a polyline, in its order.

    The line is sampled four times per edge of the mesh. Of two vertices too close together along the line, the one
    nearer to it is taken.
    """
    samples, turned, along = _sampled(points, normals, target.edge_length / 4)
    nearest = transfer_points(samples, turned, target, allowed)
    offset = (target.vertices[nearest.vertices] - samples).norm(dim=-1)
    good = (nearest.cosines >= _FACING) & (offset <= 1.5 * target.edge_length + 1.0) & (nearest.distances <= _SET_MM)
    if not bool(good.any()):
        return TransferredLine(nearest.vertices[:0], 0.0, float("inf"))
    close = good & (offset <= max(_BESIDE_MM, _BESIDE * target.edge_length))
    chosen = _in_order(nearest.vertices[close], offset[close], along[close], max(_STEP_MM, _STEP * target.edge_length))
    return TransferredLine(chosen, float(good.double().mean()), float(nearest.distances[good].median()))


def _sampled(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], step: float
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3"], Float[Tensor, "m"]]:
    """Points and normals every `step` mm along a polyline, and their distance along it."""
    lengths = (points[1:] - points[:-1]).norm(dim=-1)
    corners = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    n = max(2, int(corners[-1] / step) + 1)
    along = torch.linspace(0, float(corners[-1]), n, dtype=points.dtype)
    before = (torch.searchsorted(corners, along, right=True) - 1).clamp(0, len(lengths) - 1)
    fraction = ((along - corners[before]) / lengths[before].clamp_min(1e-9)).clamp(0, 1)[:, None]
    between = [torch.lerp(table[before], table[before + 1], fraction) for table in (points, normals)]
    return between[0], torch.nn.functional.normalize(between[1], dim=-1), along


def _in_order(
    vertices: Int[Tensor, "m"], offsets: Float[Tensor, "m"], along: Float[Tensor, "m"], close: float
) -> Int[Tensor, "n"]:
    """Each vertex once, at its nearest sample, sorted along the line and thinned to a distance of `close`."""
    best: dict[int, tuple[float, float]] = {}
    for vertex, offset, place in zip(vertices.tolist(), offsets.tolist(), along.tolist()):
        if vertex not in best or offset < best[vertex][0]:
            best[vertex] = (offset, place)
    thinned: list[int] = []
    for vertex, (offset, place) in sorted(best.items(), key=lambda item: item[1][1]):
        if thinned and place - best[thinned[-1]][1] < close:
            if offset < best[thinned[-1]][0]:
                thinned[-1] = vertex
        else:
            thinned.append(vertex)
    return torch.tensor(thinned, dtype=torch.int64)


def transfer_set(
    members: Int[Tensor, "n"],
    placed: Surface,
    topology: FaceTopology,
    target: Surface,
    outside: Bool[Tensor, "v"],
) -> Int[Tensor, "m"]:
    """The `outside` vertices of the mesh whose nearest point on the registered face belongs to the set `members`.

    `placed` is the registered face without the insides of mouth and nose, but with its eyeballs, to which the eyeballs
    of the mesh are nearest. A point belongs to the set if members have at least half of its barycentric weight.
    """
    belongs = torch.zeros(topology.n_vertices, dtype=torch.float64)
    belongs[members] = 1.0
    rows = torch.nonzero(outside).flatten()
    nearest = placed.nearest(target.vertices[rows], target.normals[rows], gate=_SET_MM, cosine=_FACING)
    weight = (nearest.barycentric * belongs[placed.triangles[nearest.triangles]]).sum(-1)
    return rows[(nearest.weights > 0) & (weight >= 0.5)]
