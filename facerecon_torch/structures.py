"""Records of tensors handed between the stages of the chain.

Frames and units are those of docs/conventions.md: model frame in mm (+x image right, +y up, +z to the viewer), image
frame in px ((0, 0) is the centre of the first pixel, +y down).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Camera", "Crop", "Detection", "FaceParameters", "LandmarkFit", "Mesh", "TensorRecord"]

_Moved = TypeVar("_Moved", bound="_Movable")
_Record = TypeVar("_Record", bound="TensorRecord")


class _Movable:
    """Base of frozen dataclasses that hold tensors, or other movable records; other fields are carried along."""

    def to(self: _Moved, *args: Any, **kwargs: Any) -> _Moved:
        """The record with every tensor moved as by `Tensor.to`; a dtype applies to floating-point tensors only."""
        return self._map(lambda value: _moved(value, *args, **kwargs))

    def cpu(self: _Moved) -> _Moved:
        """The record on the CPU."""
        return self.to("cpu")

    def _map(self: _Moved, change: Callable[[Tensor], Tensor]) -> _Moved:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        changed = {
            name: value._map(change) if isinstance(value, _Movable) else change(value)
            for name, value in values.items()
            if isinstance(value, (Tensor, _Movable))
        }
        return replace(self, **changed)  # type: ignore[type-var]


class TensorRecord(_Movable):
    """Base of frozen dataclasses whose fields are tensors with the same leading batch axes, or records of such."""

    def __getitem__(self: _Record, index: Any) -> _Record:
        """The rows `index` of every tensor: a number, slice, mask or tensor of row numbers."""
        return self._map(lambda value: value[_index_on(index, value.device)])

    def __len__(self) -> int:
        """The length of the first batch axis."""
        values = [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]
        return len(next(value for value in values if isinstance(value, (Tensor, TensorRecord))))

    @classmethod
    def cat(cls: type[_Record], records: Sequence[_Record]) -> _Record:
        """The records joined along the first batch axis. Raises ValueError where there are none."""
        return _joined(records, torch.cat)

    @classmethod
    def stack(cls: type[_Record], records: Sequence[_Record]) -> _Record:
        """The records joined along a new first axis. Raises ValueError where there are none."""
        return _joined(records, torch.stack)


def _joined(records: Sequence[_Record], join: Callable[[list[Tensor]], Tensor]) -> _Record:
    if not records:
        raise ValueError("records must hold at least one record; got none")
    first = records[0]
    joined: dict[str, Any] = {}
    for name in (f.name for f in fields(first)):  # type: ignore[arg-type]
        values = [getattr(record, name) for record in records]
        if isinstance(values[0], TensorRecord):
            joined[name] = _joined(values, join)
        elif isinstance(values[0], Tensor):
            joined[name] = join(values)
    return replace(first, **joined)  # type: ignore[type-var]


def _moved(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if value.is_floating_point():
        return value.to(*args, **kwargs)
    return value.to(
        *(a for a in args if not isinstance(a, torch.dtype)), **{k: v for k, v in kwargs.items() if k != "dtype"}
    )


def _index_on(index: Any, device: torch.device) -> Any:
    return index.to(device) if isinstance(index, Tensor) else index


@dataclass(frozen=True, kw_only=True)
class Camera(TensorRecord):
    """Scaled orthographic camera (Eq. 4): p = s F (R v)_xy + t with F = diag(1, -1).

    Attributes:
        rotation: R, model frame -> camera frame.
        scale: s in px/mm.
        translation: t in px.
        degenerate: rows whose points could not fix a pose; they hold the identity rotation, never NaN.

    Example:
        >>> camera = faces.camera[0]
        >>> project(mesh.vertices, camera)  # px
    """

    rotation: Float[Tensor, "*b 3 3"]
    scale: Float[Tensor, "*b"]
    translation: Float[Tensor, "*b 2"]
    degenerate: Bool[Tensor, "*b"]


@dataclass(frozen=True)
class FaceParameters(TensorRecord):
    """g = [alpha; beta], the weights of a face model, without unit.

    Attributes:
        identity: alpha.
        expression: beta.

    Example:
        >>> model.vertices(parameters.identity, parameters.expression)  # mm
    """

    identity: Float[Tensor, "*b identities"]
    expression: Float[Tensor, "*b expressions"]

    @property
    def flat(self) -> Float[Tensor, "*b parameters"]:
        return torch.cat([self.identity, self.expression], dim=-1)

    @classmethod
    def from_flat(cls, flat: Float[Tensor, "*b parameters"], n_identity: int) -> "FaceParameters":
        return cls(flat[..., :n_identity], flat[..., n_identity:])


@dataclass(frozen=True, kw_only=True)
class LandmarkFit(TensorRecord):
    """Answer of Eq. 7: parameters, camera (in the frame of the landmarks), the vertex behind every contour landmark,
    and the root mean square residuals of inner and contour landmarks in mm in the image plane."""

    parameters: FaceParameters
    camera: Camera
    contour_vertices: Int[Tensor, "*b 17"]
    inner_residual: Float[Tensor, "*b"]
    contour_residual: Float[Tensor, "*b"]


@dataclass(frozen=True, kw_only=True)
class Mesh(_Movable):
    """A triangle mesh.

    Attributes:
        vertices: mm, model frame.
        triangles: vertex numbers, counter-clockwise seen from outside.
        uv: texture coordinates of the vertices.
        corner_uv: texture coordinates of the triangles' corners, of a mesh whose vertices have several at seams.

    Example:
        >>> save_obj(faces[0].mesh, "face.obj")
    """

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "vertices 2"] | None = None
    corner_uv: Float[Tensor, "triangles 3 2"] | None = None


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One face that a detector found in an image.

    Attributes:
        box: x0, y0, x1, y1 in px.
        score: of the detector.
        points: the 68 iBUG points in px; (0, 0) is the centre of the first pixel. NaN, both coordinates, where the
            detector has no such point: fit, camera and features ignore it.
        point_scores: of the detector, of each point; None where it gives none.

    Example:
        >>> detector.detect([image])[0][0].points
    """

    box: tuple[float, float, float, float]
    score: float
    points: Float[Tensor, "68 2"]
    point_scores: Float[Tensor, "68"] | None = None


@dataclass(frozen=True, kw_only=True)
class Crop(TensorRecord):
    """Canonical crops: `image` in [0, 1] and the exact affine map p_crop = A [p_image; 1] (px to px)."""

    image: Float[Tensor, "*b channels height width"]
    to_crop: Float[Tensor, "*b 2 3"]
