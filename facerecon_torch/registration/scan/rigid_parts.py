"""Unconnected parts of a face mesh, such as eyeballs, which move rigidly with the skin next to them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.registration.surface_parts import mesh_parts

__all__ = ["RigidParts"]

_CLEARANCE = 1.02  # radii: skin that is further off than this on the mean face may come as near as this
_DEEPEST = 5.0  # mm: a part gives way by at most this much
_AROUND = 1.5  # radii of a part on the mean face: skin within them must not sink into the part


class _Part(NamedTuple):
    rows: Int[Tensor, "r"]
    carriers: Int[Tensor, "r"]  # the skin vertex nearest to each row
    guards: Int[Tensor, "g"]  # outer skin around the part
    clearance: Float[Tensor, "g"]  # radii between each guard and the part's middle that must remain


class RigidParts:
    """The connected parts of a mesh outside its main one; `mean` is the mean face, `skin` its outer skin."""

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
