"""Landmark displacement (LD, Eq. 8, 9) and the joint feature (Eq. 10): HOG, then LD, of every landmark."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog import HogField
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.landmarks.scheme import N_INNER, N_LANDMARKS, is_present

__all__ = ["CONTOUR_COMPONENTS", "JointSpec", "displacement", "joint_feature"]

CONTOUR_COMPONENTS = ("normal", "full")
N_BROWS = 10
"""Landmarks of the brows, the first in the paper's order."""


def displacement(
    detected: Float[Tensor, "*b 66 2"],
    projected: Float[Tensor, "*b 66 2"],
    px_per_mm: Float[Tensor, "*b"],
    contour_component: str = "normal",
) -> Float[Tensor, "*b 66 2"]:
    """The displacements u_i = (l_i - p_i) / s in mm in the image plane (+x right, +y down); 0 for missing landmarks.
    Differentiable.

    Args:
        detected: landmarks l in px, paper order; NaN where missing.
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
    apart = (detected - projected).masked_fill(~is_present(detected)[..., None], 0.0)
    moved = apart / px_per_mm[..., None, None]
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


@dataclass(frozen=True, kw_only=True)
class JointSpec:
    """The blocks of the joint feature. HOG stands before LD (Eq. 10), in whatever order they are named.

    Args:
        hog: geometry and variant of the HOG block.
        blocks: hog, ld or both.
        contour_component: of the contour's displacements, normal or full.
        brow_weight: factor of the HOG of the 10 brow landmarks; 0 leaves them out.
        contour_weight: factor of the HOG of the 17 contour landmarks.

    Raises:
        ValueError: an empty, repeated or unknown block, an unknown contour component, or a negative weight.

    Example:
        >>> JointSpec(blocks=("ld",)).length
        132
    """

    hog: HogSpec = field(default_factory=HogSpec)
    blocks: Sequence[str] = ("hog", "ld")
    contour_component: str = "normal"
    brow_weight: float | int = 1.0
    contour_weight: float | int = 1.0

    def __post_init__(self) -> None:
        blocks = tuple(self.blocks)
        object.__setattr__(self, "blocks", tuple(sorted(blocks, key=str)))  # relative block weights follow this order
        if not blocks or len(set(blocks)) < len(blocks) or not set(blocks) <= {"hog", "ld"}:
            raise ValueError(f"JointSpec.blocks must name hog, ld or both, each once; got {blocks}")
        if self.contour_component not in CONTOUR_COMPONENTS:
            raise ValueError(f"JointSpec.contour_component must be normal or full; got {self.contour_component!r}")
        if min(self.brow_weight, self.contour_weight) < 0:
            raise ValueError(
                f"JointSpec.brow_weight and contour_weight must not be negative; got {self.brow_weight} and "
                f"{self.contour_weight}"
            )

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """The columns of every block, in the order of `blocks`. The regressor learns one scale for each block."""
        sizes = {"hog": N_LANDMARKS * self.hog.length, "ld": 2 * N_LANDMARKS}
        return tuple(sizes[block] for block in self.blocks)

    @property
    def length(self) -> int:
        """The number D of columns."""
        return sum(self.block_sizes)


def joint_feature(
    hog: HogField | None,
    detected: Float[Tensor, "*b 66 2"],
    projected: Float[Tensor, "*b 66 2"],
    px_per_mm: Float[Tensor, "*b"],
    spec: JointSpec,
) -> Float[Tensor, "*b columns"]:
    """The joint feature phi = [HOG at p_1 ... p_66; u_1 ... u_66] (Eq. 10), landmark by landmark.

    Args:
        hog: field of the crops; None where `spec` has no HOG block.
        detected: landmarks in crop px; NaN where missing.
        projected: landmarks of the model in crop px.
        px_per_mm: scale of the camera in the crops.
        spec: blocks and their order.

    Returns:
        One row per face: HOG without unit, displacements in mm.

    Raises:
        ValueError: `spec` has a HOG block, and there is no field of its HOG spec.

    Example:
        >>> phi = joint_feature(hog_field(crops, spec.hog), landmarks, projected, camera.scale, spec)
    """
    parts = []
    for block in spec.blocks:
        if block == "ld":
            parts.append(displacement(detected, projected, px_per_mm, spec.contour_component).flatten(-2))
            continue
        if hog is None or hog.spec != spec.hog:
            raise ValueError(f"the joint feature needs a field of {spec.hog}; got {hog and hog.spec}")
        parts.append(_weighted(hog(projected), spec).flatten(-2))
    return torch.cat(parts, dim=-1)


def _weighted(described: Float[Tensor, "*b 66 length"], spec: JointSpec) -> Float[Tensor, "*b 66 length"]:
    """Descriptors times the weights of their landmarks; themselves where all weights are 1."""
    if spec.brow_weight == spec.contour_weight == 1:
        return described
    weights = described.new_ones(N_LANDMARKS, 1)
    weights[:N_BROWS] = spec.brow_weight
    weights[N_INNER:] = spec.contour_weight
    return described * weights
