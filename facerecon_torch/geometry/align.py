"""Closed-form alignment of corresponding points: translation, rigid motion, similarity.

Minimises sum_i w_i |s R a_i + t - b_i|^2 over the named group (Umeyama 1991), in float64 whatever the input's
dtype. A reflection is never returned. Where the source has no extent, scale is 1; where the points do not fix a
rotation, one of the optimal rotations is returned.

Each function takes `source` and `target` points, row by row in correspondence, and non-negative `weights` (None: 1),
and returns the map from source to target in the dtype of the source.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import TensorRecord

__all__ = ["Alignment", "align_rigid", "align_similarity", "align_translation"]


@dataclass(frozen=True)
class Alignment(TensorRecord):
    """The map b = scale * rotation a + translation, translation in the unit of the target.

    Example:
        >>> moved = align_rigid(source, target).apply(source)
    """

    scale: Float[Tensor, "*b"]
    rotation: Float[Tensor, "*b 3 3"]
    translation: Float[Tensor, "*b 3"]

    @in_own_precision
    def apply(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """The points moved into the frame of the target."""
        turned = points @ self.rotation.mT
        return self.scale[..., None, None] * turned + self.translation[..., None, :]

    def inverse(self) -> "Alignment":
        """The alignment that undoes this one."""
        scale, rotation = 1 / self.scale, self.rotation.mT
        back = (rotation @ self.translation[..., None]).squeeze(-1)
        return Alignment(scale, rotation, -scale[..., None] * back)


@in_own_precision
def align_translation(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weights: Float[Tensor, "*b n"] | None = None,
) -> Alignment:
    """The translation that brings the weighted centroids together."""
    fractions = _fractions(source, weights)
    shift = _centroid(target.double(), fractions) - _centroid(source.double(), fractions)
    scale = torch.ones(source.shape[:-2], dtype=torch.float64, device=source.device)
    rotation = torch.eye(3, dtype=torch.float64, device=source.device).expand(*scale.shape, 3, 3)
    return Alignment(scale, rotation, shift).to(source.dtype)


@in_own_precision
def align_rigid(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weights: Float[Tensor, "*b n"] | None = None,
) -> Alignment:
    """The best rotation and translation, at scale 1."""
    return _align(source, target, weights, with_scale=False)


@in_own_precision
def align_similarity(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weights: Float[Tensor, "*b n"] | None = None,
) -> Alignment:
    """The best scale, rotation and translation."""
    return _align(source, target, weights, with_scale=True)


def _align(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    weights: Float[Tensor, "*b n"] | None,
    *,
    with_scale: bool,
) -> Alignment:
    fractions = _fractions(source, weights)
    a, b = source.double(), target.double()
    centre_a, centre_b = _centroid(a, fractions), _centroid(b, fractions)
    a, b = a - centre_a[..., None, :], b - centre_b[..., None, :]
    u, singular, vt = torch.linalg.svd((fractions[..., None] * b).mT @ a)
    # The sign of the last axis makes det(R) = +1: the best proper rotation, not the best reflection.
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.sign(torch.linalg.det(u @ vt))
    rotation = u @ (sign[..., None] * vt)
    scale = torch.ones_like(singular[..., 0])
    if with_scale:
        spread = (fractions * a.square().sum(-1)).sum(-1)
        extended = spread > 0
        scale = torch.where(extended, (singular * sign).sum(-1) / torch.where(extended, spread, 1.0), 1.0)
    shift = centre_b - scale[..., None] * (rotation @ centre_a[..., None]).squeeze(-1)
    return Alignment(scale, rotation, shift).to(source.dtype)


def _fractions(source: Float[Tensor, "*b n 3"], weights: Float[Tensor, "*b n"] | None) -> Float[Tensor, "*b n"]:
    if weights is None:
        weights = torch.ones(source.shape[:-1], dtype=torch.float64, device=source.device)
    total = weights.double().sum(-1, keepdim=True)
    return weights.double() / torch.where(total > 0, total, 1.0)


def _centroid(points: Float[Tensor, "*b n 3"], fractions: Float[Tensor, "*b n"]) -> Float[Tensor, "*b 3"]:
    return (fractions[..., None] * points).sum(-2)
