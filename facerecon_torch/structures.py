"""Frozen dataclasses handed between the stages of the chain.

Frames and units are those of docs/conventions.md: model frame in mm (+x image right, +y up, +z to the viewer), image
frame in px ((0, 0) is the centre of the first pixel, +y down).
"""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Camera", "Crop", "Detection", "FaceParameters", "LandmarkFit", "Mesh"]

_Struct = TypeVar("_Struct", bound="_Batched")


class _Batched:
    """Moves and indexes every tensor field at once."""

    def to(self: _Struct, *args: Any, **kwargs: Any) -> _Struct:
        return replace(self, **{f.name: _moved(getattr(self, f.name), *args, **kwargs) for f in fields(self)})  # type: ignore[type-var,arg-type]

    def __getitem__(self: _Struct, index: Any) -> _Struct:
        return replace(self, **{f.name: _indexed(getattr(self, f.name), index) for f in fields(self)})  # type: ignore[type-var,arg-type]


def _moved(value: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(value, _Batched):
        return value.to(*args, **kwargs)
    if isinstance(value, Tensor) and not value.is_floating_point():
        return value.to(
            *(a for a in args if not isinstance(a, torch.dtype)),
            **{k: v for k, v in kwargs.items() if k != "dtype"},
        )
    return value.to(*args, **kwargs) if isinstance(value, Tensor) else value


def _indexed(value: Any, index: Any) -> Any:
    return value[index] if isinstance(value, (Tensor, _Batched)) else value


@dataclass(frozen=True)
class Camera(_Batched):
    """Scaled orthographic camera (Eq. 4): p = s F (R v)_xy + t with F = diag(1, -1).

    `scale` in px/mm, `translation` in px. `degenerate` marks rows whose points could not fix a pose; they hold the
    identity rotation, never NaN.
    """

    rotation: Float[Tensor, "*b 3 3"]
    scale: Float[Tensor, "*b"]
    translation: Float[Tensor, "*b 2"]
    degenerate: Bool[Tensor, "*b"]


@dataclass(frozen=True)
class FaceParameters(_Batched):
    """g = [alpha; beta]: weights of the identity and of the expression factor, without unit."""

    identity: Float[Tensor, "*b identities"]
    expression: Float[Tensor, "*b expressions"]

    @property
    def flat(self) -> Float[Tensor, "*b parameters"]:
        return torch.cat([self.identity, self.expression], dim=-1)

    @classmethod
    def from_flat(cls, flat: Float[Tensor, "*b parameters"], n_identity: int) -> "FaceParameters":
        return cls(flat[..., :n_identity], flat[..., n_identity:])


@dataclass(frozen=True)
class LandmarkFit(_Batched):
    """Answer of Eq. 7: parameters, camera (in the frame of the landmarks), the vertex behind every contour landmark,
    and the root mean square residuals of inner and contour landmarks in mm in the image plane."""

    parameters: FaceParameters
    camera: Camera
    contour_vertices: Int[Tensor, "*b 17"]
    inner_residual: Float[Tensor, "*b"]
    contour_residual: Float[Tensor, "*b"]


@dataclass(frozen=True)
class Mesh(_Batched):
    """One triangle mesh: vertices in mm, triangles counter-clockwise seen from outside."""

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "vertices 2"] | None = None


@dataclass(frozen=True)
class Detection:
    """One face in one picture: box (x0, y0, x1, y1) in px, detector score, 68 iBUG points in px."""

    box: tuple[float, float, float, float]
    score: float
    points: Float[Tensor, "68 2"]


@dataclass(frozen=True)
class Crop(_Batched):
    """Canonical crops: `image` in [0, 1] and the exact affine map p_crop = A [p_image; 1] (px to px)."""

    image: Float[Tensor, "*b channels height width"]
    to_crop: Float[Tensor, "*b 2 3"]
