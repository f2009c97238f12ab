"""The 17 contour landmarks: the mesh vertex behind each of them under a given pose.

Seen from the front, contour landmark i is a fixed vertex. On the side of a head that turns away, the visible jaw line
moves over the cheek: each landmark there moves along its own line of the mesh to the vertex that reaches farthest
outward in the image. On the side that turns towards the viewer it keeps its fixed vertex.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.model.topology import N_CONTOUR, FaceTopology

__all__ = [
    "ContourLines",
    "ContourSpec",
    "Sight",
    "build_contour_lines",
    "choose_slots",
    "contour_normals",
    "in_plane_rotation",
    "march_contour",
    "sight_lines",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourSpec:
    """Settings of the contour landmarks, which follow the silhouette."""

    full_turn_degrees: float = 15.0  # a side turned away by more lies exactly on the silhouette

    def __post_init__(self) -> None:
        if not 0 < self.full_turn_degrees <= 90:
            raise ValueError(f"full_turn_degrees must lie in (0, 90]; got {self.full_turn_degrees}")


class ContourLines(NamedTuple):
    """The candidate vertices of every contour landmark. Slot 0 is its fixed vertex, the other slots are the vertices of
    its line in front of that vertex."""

    vertices: Int[Tensor, "17 slots"]  # padded by the fixed vertex
    allowed: Bool[Tensor, "17 slots"]
    path: Float[Tensor, "17 slots"]  # mm along the line from the fixed vertex, on the mean face
    outward: Float[Tensor, "17 2"]  # unit, model frame: away from the face, seen from the front


def build_contour_lines(mean_face: Float[Tensor, "vertices 3"], topology: FaceTopology) -> ContourLines:
    """The candidate vertices on a face model's contour lines.

    Only vertices in front of the fixed vertex are candidates: behind it lie ear and neck, which reach farther out than
    the jaw without being part of it. A fixed vertex that is not on its line is inserted beside the nearest line vertex.

    Args:
        mean_face: in mm (model frame).
        topology: with landmark vertices and contour lines.

    Example:
        >>> lines = build_contour_lines(mean_face, model.topology)
    """
    fixed = topology.landmark_vertices[-N_CONTOUR:]
    lines = topology.contour_lines
    valid = lines >= 0
    vertices = torch.where(valid, lines, fixed[:, None])
    points = mean_face[vertices]
    distance = (points - mean_face[fixed][:, None]).norm(dim=-1)
    start = torch.where(valid, distance, torch.inf).argmin(dim=-1, keepdim=True)
    steps = (points[:, 1:] - points[:, :-1]).norm(dim=-1)
    # On the CPU: some versions of torch have no cumsum on CUDA that they call deterministic.
    sums = steps.cpu().cumsum(dim=-1).to(steps.device)
    along = torch.cat([torch.zeros_like(steps[:, :1]), sums], dim=-1)
    path = along - along.gather(-1, start)
    slot = torch.arange(lines.shape[1], device=lines.device)
    allowed = valid & (slot > start)
    return ContourLines(
        torch.cat([fixed[:, None], torch.where(allowed, vertices, fixed[:, None])], dim=-1),
        torch.cat([torch.ones_like(allowed[:, :1]), allowed], dim=-1),
        torch.cat([torch.zeros_like(path[:, :1]), torch.where(allowed, path, 0.0)], dim=-1),
        contour_normals(mean_face[fixed][:, :2]),
    )


def contour_normals(points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
    """The unit normals of an open polyline, to the right of its direction; zero where neighbours coincide.

    The tangent is the difference of both neighbours (one-sided at the ends). Contour landmarks run from the image left
    over the chin to the image right, so that in the model frame (+y up) the normals point outside; in the image frame
    (+y down) they have the opposite sign.
    """
    before = torch.cat([points[..., :1, :], points[..., :-1, :]], dim=-2)
    after = torch.cat([points[..., 1:, :], points[..., -1:, :]], dim=-2)
    tangent = after - before
    normal = torch.stack([tangent[..., 1], -tangent[..., 0]], dim=-1)
    square = normal.square().sum(-1, keepdim=True)
    return torch.where(square > 0, normal / torch.where(square > 0, square, 1.0).sqrt(), 0.0)


class Sight(NamedTuple):
    """The criterion by which each contour landmark chooses among its candidates under one rotation."""

    direction: Float[Tensor, "*b 17 3"]  # unit or shorter, model frame: the reach of v is direction' v, in mm
    reluctance: Float[Tensor, "*b 17"]  # k: mm of reach that a mm along the line must bring
    turned: Bool[Tensor, "*b 17"]  # the landmark's side turns away


@torch.no_grad()
def march_contour(
    points: Float[Tensor, "*b 17 slots 3"],
    rotation: Float[Tensor, "*b 3 3"],
    lines: ContourLines,
    spec: ContourSpec,
) -> Int[Tensor, "*b 17"]:
    """The slot of every contour landmark (`choose_slots`) for candidate `points` in mm (model frame)."""
    sight = sight_lines(rotation, lines, spec)
    return choose_slots((points @ sight.direction[..., None])[..., 0], sight, lines)


@torch.no_grad()
def sight_lines(rotation: Float[Tensor, "*b 3 3"], lines: ContourLines, spec: ContourSpec) -> Sight:
    """Directions and reluctances of all contour landmarks under `rotation`.

    With o the outward direction of a landmark, a = -(R o)_z is the sine of the angle by which its side turns away. The
    direction is R_xy' d, where d is o after the in-plane part of R: one vector per landmark instead of one turned point
    per candidate. The reluctance k falls from 1 at a <= 0, where no step along the line pays, to 0 at
    a = sin(full_turn_degrees), where the silhouette alone decides.
    """
    away = -(lines.outward @ rotation[..., 2, :2, None])[..., 0]
    full = math.sin(math.radians(spec.full_turn_degrees))
    reluctance = (1 - away / full).clamp(0, 1).square()
    turn = in_plane_rotation(rotation).mT @ rotation[..., :2, :]
    return Sight(lines.outward @ turn, reluctance, away > 0)


@torch.no_grad()
def choose_slots(reach: Float[Tensor, "*b 17 slots"], sight: Sight, lines: ContourLines) -> Int[Tensor, "*b 17"]:
    """The slot with the largest  d'(R v)_xy - k path  where the side turns away, and slot 0 (the fixed vertex)
    elsewhere. Not differentiable."""
    score = reach - sight.reluctance[..., None] * lines.path
    chosen = score.masked_fill(~lines.allowed, -torch.inf).argmax(dim=-1)
    return chosen * sight.turned


def in_plane_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 2 2"]:
    """The twist of R about the viewing axis, as a 2x2 rotation; the identity where R turns the face by 180 degrees."""
    cosine = rotation[..., 0, 0] + rotation[..., 1, 1]
    sine = rotation[..., 1, 0] - rotation[..., 0, 1]
    length = torch.hypot(cosine, sine)
    defined = length > 0
    cosine = torch.where(defined, cosine, 1.0) / torch.where(defined, length, 1.0)
    sine = torch.where(defined, sine, 0.0) / torch.where(defined, length, 1.0)
    return torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
