"""Landmark displacement (LD, Eq. 8 and 9)."""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.landmarks.scheme import N_INNER

__all__ = ["CONTOUR_COMPONENTS", "displacement"]

CONTOUR_COMPONENTS = ("normal", "full")


def displacement(
    detected: Float[Tensor, "*b 66 2"],
    projected: Float[Tensor, "*b 66 2"],
    px_per_mm: Float[Tensor, "*b"],
    contour_component: str = "normal",
) -> Float[Tensor, "*b 66 2"]:
    """The displacements u_i = (l_i - p_i) / s in mm in the image plane (+x right, +y down). Differentiable.

    Args:
        detected: landmarks l in px, paper order.
        projected: landmarks p of the model, in px of the same image.
        px_per_mm: scale s of the camera in that image.
        contour_component: `normal` keeps only the component of the 17 contour landmarks across the contour, since the
            place of a landmark along a marching contour is arbitrary; `full` is Eq. 8 as printed.

    Raises:
        ValueError: another component.

    Example:
        >>> u = displacement(landmarks, project(points, camera), camera.scale)
    """
    if contour_component not in CONTOUR_COMPONENTS:
        raise ValueError(f"contour_component must be normal or full; got {contour_component!r}")
    moved = (detected - projected) / px_per_mm[..., None, None]
    if contour_component == "full":
        return moved
    tangent = _tangents(projected[..., N_INNER:, :])
    along = (moved[..., N_INNER:, :] * tangent).sum(-1, keepdim=True)
    return torch.cat([moved[..., :N_INNER, :], moved[..., N_INNER:, :] - along * tangent], dim=-2)


def _tangents(line: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
    """The unit tangents of an open polyline: from one neighbour of a point to the other, at the ends along the segment.
    Zero where neighbours coincide; such a point keeps its whole displacement."""
    ends = torch.cat([line[..., :1, :], line, line[..., -1:, :]], dim=-2)
    chord = ends[..., 2:, :] - ends[..., :-2, :]
    squared = chord.square().sum(-1, keepdim=True)
    return chord * squared.clamp_min(torch.finfo(chord.dtype).tiny).rsqrt()
