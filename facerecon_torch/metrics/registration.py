"""How well registered meshes agree with meshes that are known: across the surface, along it, and in pose."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.rotation import matrix_to_axis_angle

__all__ = ["Placement", "SurfaceErrors", "pose_error_degrees", "surface_errors"]


@dataclass(frozen=True)
class Placement:
    """Meshes [b, V, 3] in mm in the model frame, and the rigid motion of each into its scan: scan = R v + T."""

    meshes: Float[Tensor, "b V 3"]
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]

    @property
    def in_scan(self) -> Float[Tensor, "b V 3"]:
        """The meshes where the scan stands."""
        return self.meshes @ self.rotation.mT + self.translation[:, None]


@dataclass(frozen=True)
class SurfaceErrors:
    """mm per vertex, NaN where a vertex does not count: `across` is the distance along the true mesh's normal,
    `along` what is left of it (the slide), `straight` the whole distance."""

    across: Float[Tensor, "b V"]
    along: Float[Tensor, "b V"]
    straight: Float[Tensor, "b V"]


def surface_errors(
    estimate: Placement, truth: Placement, triangles: Int[Tensor, "T 3"], counted: Bool[Tensor, "b V"]
) -> SurfaceErrors:
    """Errors of corresponding vertices where the scan stands, so that an exchange between pose and shape does not
    count."""
    there = truth.in_scan.double()
    gap = estimate.in_scan.double() - there
    across = (gap * vertex_normals(there, triangles)).sum(-1).abs()
    straight = torch.linalg.vector_norm(gap, dim=-1)
    along = (straight.square() - across.square()).clamp_min(0).sqrt()
    return SurfaceErrors(*(torch.where(counted, error, torch.nan) for error in (across, along, straight)))


def pose_error_degrees(estimate: Float[Tensor, "*b 3 3"], truth: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle of the rotation between two rotations, in degrees."""
    return torch.rad2deg(torch.linalg.vector_norm(matrix_to_axis_angle(estimate.double() @ truth.double().mT), dim=-1))
