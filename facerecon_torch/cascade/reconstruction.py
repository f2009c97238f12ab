"""The faces that a reconstruction gives: parameters, camera and landmarks, with shapes and weights on demand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.plausibility import Plausibility, measure_plausibility
from facerecon_torch.fitting.crop import camera_from_crop
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.landmarks.scheme import CONVENTIONS, interpupillary, is_present
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.named_weights import NamedExpressions
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, FaceParameters, Mesh, TensorRecord

__all__ = ["KnownSize", "Reconstruction", "at_size", "in_image"]


@dataclass(frozen=True)
class KnownSize:
    """A face's size that the user knows; an orthographic camera cannot see it. At most one of the two.

    Args:
        px_per_mm: scale of the image at the face.
        interpupillary_mm: distance between the pupils.

    Raises:
        ValueError: both are given, or one is not a positive finite number.

    Example:
        >>> faces = model.predict("photo.jpg", size=KnownSize(interpupillary_mm=63))
    """

    px_per_mm: float | int | None = None
    interpupillary_mm: float | int | None = None

    def __post_init__(self) -> None:
        if self.px_per_mm is not None and self.interpupillary_mm is not None:
            raise ValueError("size.px_per_mm and size.interpupillary_mm must not both be given")
        for name in ("px_per_mm", "interpupillary_mm"):
            value = getattr(self, name)
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 1e-6 < value < 1e6):  # this form refuses NaN and infinity too
                raise ValueError(f"size.{name} must be a positive number between 1e-6 and 1e6; got {value!r}")

    def factor(self, landmarks_3d: Float[Tensor, "*b 66 3"], camera: Camera) -> Float[Tensor, "*b"]:
        """Ratio of the face's size to the model's shape; 1 where nothing is known."""
        if self.px_per_mm is not None:
            return camera.scale / self.px_per_mm
        if self.interpupillary_mm is not None:
            return self.interpupillary_mm / interpupillary(landmarks_3d)
        return torch.ones_like(camera.scale)


@dataclass(frozen=True, kw_only=True)
class Reconstruction(TensorRecord):
    """A batch of reconstructed faces: `faces[k]` is one face, `faces.cpu()` the batch on the CPU.

    Attributes:
        parameters: weights of the face model (g = [alpha; beta]).
        camera: scaled orthographic camera, px. Of `FaceReconstructor.forward` in crop px, otherwise in image px.
        landmarks_3d: the 66 landmarks of the fitted face in mm, model frame, paper order.
        projected_2d: their projection in px of the camera's frame.
        size: factor by which shapes are larger than the model's; 1 unless the size was known.
        landmarks: the 66 landmarks that the face was fitted to, in px of the camera's frame; NaN where missing.
        boxes: (x0, y0, x1, y1) of the detections in px; the landmarks' extent where they were given.
        scores: of the detections; 1 where landmarks were given.
        disagreement: of the cascade with the landmark fit that it started from: root mean square distance of their
            inner landmarks in mm of the face model.
        face_model: of the shapes.
        naming: of the named expressions, for a cascade that knows its errors.
        convention: what the landmarks mean, one of `landmarks.scheme.CONVENTIONS`.

    Example:
        >>> faces = model.predict("group.jpg")[0]
        >>> faces[0].vertices.shape, faces[0].euler_degrees
    """

    parameters: FaceParameters
    camera: Camera
    landmarks_3d: Float[Tensor, "*b 66 3"]
    projected_2d: Float[Tensor, "*b 66 2"]
    size: Float[Tensor, "*b"]
    landmarks: Float[Tensor, "*b 66 2"]
    boxes: Float[Tensor, "*b 4"]
    scores: Float[Tensor, "*b"]
    disagreement: Float[Tensor, "*b"]
    face_model: FaceModel | None = field(default=None, repr=False, compare=False)
    naming: NamedExpressions | None = field(default=None, repr=False, compare=False)
    convention: str = CONVENTIONS[0]

    @classmethod
    def empty(
        cls, model: FaceModel, naming: NamedExpressions | None = None, convention: str = CONVENTIONS[0]
    ) -> "Reconstruction":
        """A batch without faces."""
        zeros = model.identity_mean.new_zeros
        camera = Camera(
            rotation=zeros(0, 3, 3),
            scale=zeros(0),
            translation=zeros(0, 2),
            degenerate=zeros(0, dtype=torch.bool),
        )
        return cls(
            parameters=FaceParameters(zeros(0, model.n_identity), zeros(0, model.n_expression)), camera=camera,
            landmarks_3d=zeros(0, 66, 3), projected_2d=zeros(0, 66, 2), size=zeros(0), landmarks=zeros(0, 66, 2),
            boxes=zeros(0, 4), scores=zeros(0), disagreement=zeros(0), face_model=model, naming=naming,
            convention=convention,
        )  # fmt: skip

    @cached_property
    @in_own_precision
    def vertices(self) -> Float[Tensor, "*b vertices 3"]:
        """All vertices in mm, model frame, computed on first use."""
        model, given = self._model(), self.parameters
        weights = given.to(model.device, model.dtype)
        shapes = model.vertices(weights.identity, weights.expression).to(given.identity)
        return shapes * self.size[..., None, None]

    @cached_property
    @in_own_precision
    def euler_degrees(self) -> Float[Tensor, "*b 3"]:
        """(yaw, pitch, roll) of the head in degrees; order and signs as in docs/conventions.md."""
        return torch.rad2deg(torch.stack(matrix_to_euler(self.camera.rotation), dim=-1))

    @cached_property
    @torch.no_grad()
    @in_own_precision
    def plausibility(self) -> Plausibility:
        """Measures that tell whether the landmarks are those of a face, computed on first use."""
        return measure_plausibility(
            self.parameters, self.camera, self.projected_2d, self.landmarks, self.size, self._model(),
            scores=self.scores, disagreement=self.disagreement, convention=self.convention,
        )  # fmt: skip

    @cached_property
    @in_own_precision
    def _named_weights(self) -> tuple[tuple[str, ...], Float[Tensor, "*b names"]]:
        model = self._model()
        weights = model.expression_weights(self.parameters.expression.to(model.device, model.dtype), self.naming)
        return model.expression_names, weights.to(self.parameters.expression)

    @property
    def expression_weights(self) -> dict[str, Float[Tensor, "*b"]]:
        """Weight in [0, 1] of every named expression, such as `jawOpen`; most are 0 (docs/expressions.md)."""
        names, weights = self._named_weights
        return dict(zip(names, weights.unbind(-1)))

    @cached_property
    def _surface(self) -> dict[str, Tensor]:
        return self._model().whole_topology("a mesh needs a whole face model").surface()

    @property
    def mesh(self) -> Mesh:
        """The mesh of one face. Raises ValueError for a batch: take `faces[k].mesh`."""
        if self.size.ndim:
            raise ValueError(f"mesh is that of one face; this is a batch of {len(self)}: take faces[k].mesh")
        tables = {name: table.to(self.vertices.device) for name, table in self._surface.items()}
        return Mesh(vertices=self.vertices, **tables)

    def with_vertices(self, vertices: Float[Tensor, "*b vertices 3"]) -> "Reconstruction":
        """The same faces with `vertices` (mm, model frame, at the faces' size) that were computed elsewhere."""
        faces = replace(self)
        faces.__dict__["vertices"] = vertices
        return faces

    def with_expression_weights(self, weights: Float[Tensor, "*b names"]) -> "Reconstruction":
        """The same faces with weights of the named expressions that were computed elsewhere, in the model's order."""
        faces = replace(self)
        faces.__dict__["_named_weights"] = (self._named_weights[0], weights)
        return faces

    def _model(self) -> FaceModel:
        if self.face_model is None:
            raise ValueError("these faces were made without their face model")
        return self.face_model

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Reconstruction":
        changed = super()._map(change)
        for name in ("vertices", "euler_degrees"):  # computed already: rows and moves of them are cheaper
            if name in self.__dict__:
                changed.__dict__[name] = change(self.__dict__[name])
        if "plausibility" in self.__dict__:
            changed.__dict__["plausibility"] = self.plausibility._map(change)
        if "_named_weights" in self.__dict__:
            names, weights = self._named_weights
            changed.__dict__["_named_weights"] = (names, change(weights))
        if "_surface" in self.__dict__:
            changed.__dict__["_surface"] = self._surface
        return changed

    @classmethod
    def cat(cls, records: Sequence["Reconstruction"]) -> "Reconstruction":
        """The batches joined, with the shapes and weights that all of them have computed already."""
        joined = super().cat(records)
        for name in ("vertices", "euler_degrees"):
            if all(name in record.__dict__ for record in records):
                joined.__dict__[name] = torch.cat([record.__dict__[name] for record in records])
        if all("plausibility" in record.__dict__ for record in records):
            joined.__dict__["plausibility"] = Plausibility.cat([record.plausibility for record in records])
        if all("_named_weights" in record.__dict__ for record in records):
            weights = torch.cat([record._named_weights[1] for record in records])
            joined.__dict__["_named_weights"] = (records[0]._named_weights[0], weights)
        return joined

    def __getstate__(self) -> dict[str, Any]:
        """The record with its shapes, weights and measures instead of its face model, which is many times as large."""
        if self.face_model is not None:
            _ = self.vertices, self.plausibility, self._named_weights, self._surface
        return {**self.__dict__, "face_model": None, "naming": None}


@in_own_precision
def in_image(
    faces: Reconstruction, to_crop: Float[Tensor, "n 2 3"], landmarks: Float[Tensor, "n 66 2"], size: KnownSize
) -> Reconstruction:
    """Faces in crop px as faces in px of their images, at their known size.

    Shape and camera trade size freely (p = s F R v + t), so that the projection does not change with the size.
    """
    moved = replace(faces, camera=camera_from_crop(faces.camera, to_crop), landmarks=landmarks, boxes=extent(landmarks))
    return at_size(moved, size)


def at_size(faces: Reconstruction, size: KnownSize) -> Reconstruction:
    """Faces of the model's size, with their camera, at their known size."""
    factor = size.factor(faces.landmarks_3d, faces.camera)
    camera = replace(faces.camera, scale=faces.camera.scale / factor)
    shape = faces.landmarks_3d * factor[..., None, None]
    return replace(faces, camera=camera, landmarks_3d=shape, projected_2d=project(shape, camera), size=factor)


def extent(landmarks: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b 4"]:
    """The box (x0, y0, x1, y1) around the points that are there, px; NaN where all are missing."""
    missing = ~is_present(landmarks)[..., None]
    low, high = landmarks.masked_fill(missing, torch.inf).amin(-2), landmarks.masked_fill(missing, -torch.inf).amax(-2)
    return torch.cat([low, high], dim=-1).masked_fill(missing.all(dim=-2), torch.nan)
