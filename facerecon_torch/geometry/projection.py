"""Scaled orthographic projection (Eq. 4) of points in the model frame."""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera

__all__ = ["project", "project_with_depth", "rotate_to_view"]


@in_own_precision
def rotate_to_view(points: Float[Tensor, "*b n 3"], camera: Camera) -> Float[Tensor, "*b n 3"]:
    """The points R v in mm in the viewer's axes (+x right, +y up, +z towards the viewer)."""
    return points @ camera.rotation.mT


@in_own_precision
def project(points: Float[Tensor, "*b n 3"], camera: Camera) -> Float[Tensor, "*b n 2"]:
    """The image points p = s F (R v)_xy + t with F = diag(1, -1) (Eq. 4).

    Args:
        points: in mm in the model frame.
        camera: in px of the image.

    Returns:
        Points in px in the image frame (+y down).

    Example:
        >>> landmarks = project(points, camera)
    """
    right, up = camera.rotation[..., 0, :], camera.rotation[..., 1, :]
    flipped = points @ torch.stack([right, -up], dim=-1)
    return camera.scale[..., None, None] * flipped + camera.translation[..., None, :]


@in_own_precision
def project_with_depth(points: Float[Tensor, "*b n 3"], camera: Camera) -> Float[Tensor, "*b n 3"]:
    """The points (x, y, depth) in px: `project`, and the depth s (R v)_z towards the viewer."""
    depth = camera.scale[..., None, None] * rotate_to_view(points, camera)[..., 2:]
    return torch.cat([project(points, camera), depth], dim=-1)
