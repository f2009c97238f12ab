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
    """u_i = (l_i - p_i) / s: detected minus projected landmark, mm in the image plane (+x right, +y down).

    Both point sets in px of the same image, in the paper's order; s is that image's camera scale. With `normal` the 17
    contour landmarks keep only the component across the contour: with marching contours, where along the contour a
    landmark lies is arbitrary. `full` is Eq. 8 as printed. Differentiable. Raises ValueError for another component.
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
    """Unit tangents of an open polyline: between the two neighbours of a point, at the ends along the only segment.

    Zero where the neighbours coincide; such a point keeps its whole displacement.
    """
    ends = torch.cat([line[..., :1, :], line, line[..., -1:, :]], dim=-2)
    chord = ends[..., 2:, :] - ends[..., :-2, :]
    squared = chord.square().sum(-1, keepdim=True)
    return chord * squared.clamp_min(torch.finfo(chord.dtype).tiny).rsqrt()
