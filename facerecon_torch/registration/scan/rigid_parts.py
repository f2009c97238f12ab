"""Parts of a face mesh that hang on nothing, such as eyeballs: the skin next to them carries them along."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.registration.surface_parts import mesh_parts

__all__ = ["Passengers"]

_CLEARANCE = 1.02  # radii: skin that is further off than this on the mean face may come as near as this
_DEEPEST = 5.0  # mm that an eyeball gives way at most
_AROUND = 1.5  # radii of a part, measured on the mean face, within which skin must not sink into it


class _Part(NamedTuple):
    rows: Int[Tensor, "r"]
    leaders: Int[Tensor, "r"]  # the skin vertex nearest to each row
    guards: Int[Tensor, "g"]  # outer skin around
    apart: Float[Tensor, "g"]  # radii between each of them and the middle that must be kept


class Passengers:
    """The connected parts of a mesh outside its main one; `mean` is the mean face, `skin` its outer skin."""

    def __init__(self, mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], skin: Bool[Tensor, "V"]) -> None:
        parts = mesh_parts(mean, triangles)
        main = parts == parts[triangles.flatten()].mode().values
        carriers, outer = torch.nonzero(main).flatten(), torch.nonzero(skin).flatten()
        self._parts = []
        for number in parts[~main].unique().tolist():  # type: ignore[no-untyped-call]
            rows = torch.nonzero(parts == number).flatten()
            centre, radius = _ball(mean[rows])
            apart = torch.linalg.vector_norm(mean[outer] - centre, dim=-1) / radius
            near = apart < _AROUND
            leaders = carriers[torch.cdist(mean[rows], mean[carriers]).argmin(1)]
            self._parts.append(_Part(rows, leaders, outer[near], apart[near].clamp_max(_CLEARANCE)))

    def to(self, device: torch.device) -> "Passengers":
        """The same parts elsewhere."""
        moved = object.__new__(Passengers)
        moved._parts = [_Part(*(rows.to(device) for rows in part)) for part in self._parts]
        return moved

    def carry(
        self, posed: Float[Tensor, "b V 3"], shift: Float[Tensor, "b V 3"], front: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b V 3"]:
        """Displacements with those of the parts filled in: the mean of the skin next to a part, and as far back
        (`front` points out of the face) as its mean ball needs so that no skin around it sinks in. A part keeps its
        shape."""
        shift = shift.clone()
        for part in self._parts:
            along = shift[:, part.leaders].mean(1)
            centre, radius = _ball(posed[:, part.rows])
            arm = (posed + shift)[:, part.guards] - (centre + along)[:, None]
            back = _needed(arm, front, radius[:, None] * part.apart.to(radius))
            shift[:, part.rows] = (along - back[:, None] * front)[:, None]
        return shift


def _ball(points: Float[Tensor, "*b n 3"]) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b"]]:
    centre = points.mean(-2)
    return centre, torch.linalg.vector_norm(points - centre[..., None, :], dim=-1).mean(-1)


def _needed(arm: Float[Tensor, "b g 3"], front: Float[Tensor, "b 3"], keep: Float[Tensor, "b g"]) -> Float[Tensor, "b"]:
    """The least t >= 0 with |arm + t front| >= keep for every guard in front of the ball's middle."""
    ahead = (arm * front[:, None]).sum(-1)
    inside = keep.square() - arm.square().sum(-1)
    step = (ahead.square() + inside).clamp_min(0).sqrt() - ahead
    step = torch.where((inside > 0) & (ahead > 0), step, 0.0)
    return step.amax(1).clamp_max(_DEEPEST) if arm.shape[1] else torch.zeros_like(front[:, 0])
