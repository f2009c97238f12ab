"""Which rows of a restricted model are the 66 landmarks, with a fixed or a marching contour."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.contour import ContourLines, ContourSpec, build_contour_lines, march_contour
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.protocol import FaceModel
from facerecon_torch.model.topology import N_CONTOUR, N_LANDMARKS
from facerecon_torch.structures import Camera

__all__ = ["CONTOURS", "LandmarkRows"]

CONTOURS = ("fixed", "marching")


class LandmarkRows:
    """The vertices that landmarks of `model` may lie on, and the way from a contour slot to a vertex.

    `vertices` are the model's vertices to restrict it to; every `points` and `values` below has its rows in
    that order. A slot is the place of a contour landmark among its candidates; slot 0 is its fixed vertex.
    Raises ValueError for a model without topology.
    """

    def __init__(self, model: FaceModel, contour: str, spec: ContourSpec) -> None:
        if model.topology is None:
            raise ValueError("model must have a topology; restricted models have none")
        self._marching = contour == "marching"
        self._spec = spec
        mean_face = model.vertices(model.identity_mean, model.expression_mean)
        self._lines = build_contour_lines(mean_face.double(), model.topology)
        landmarks = model.topology.landmark_vertices
        if self._marching:
            inner, lines = landmarks[:N_INNER], self._lines.vertices
            self.vertices = torch.cat([inner, lines.flatten()]).unique()  # type: ignore[no-untyped-call]
            self._inner = torch.searchsorted(self.vertices, inner)
            self._candidates = torch.searchsorted(self.vertices, lines.contiguous())
        else:
            self.vertices = landmarks

    def first_slots(self, batch: tuple[int, ...]) -> Int[Tensor, "*b 17"]:
        """The fixed vertices."""
        return torch.zeros(*batch, N_CONTOUR, dtype=torch.int64, device=self.vertices.device)

    def march(self, points: Float[Tensor, "*b rows 3"], camera: Camera) -> Int[Tensor, "*b 17"]:
        """Slots of the contour that `camera` sees on the face `points` (mm, model frame)."""
        if not self._marching:
            return self.first_slots(tuple(points.shape[:-2]))
        rotation = camera.rotation.to(points.dtype)
        return march_contour(points[..., self._candidates, :], rotation, self._tables(points), self._spec)

    def take(self, values: Tensor, slots: Int[Tensor, "*b 17"]) -> Tensor:
        """The rows of the 66 landmarks: values [*b, rows, ...] -> [*b, 66, ...]."""
        if not self._marching:
            return values
        contour = self._candidates.expand(*slots.shape, -1).gather(-1, slots[..., None])[..., 0]
        rows = torch.cat([self._inner.expand(*slots.shape[:-1], -1), contour], dim=-1)
        # Whole rows by their place in the flattened batch: several times faster than a gather of single numbers.
        batch, n_rows = values.shape[: slots.ndim - 1], values.shape[slots.ndim - 1]
        first = n_rows * torch.arange(batch.numel(), device=rows.device)
        places = rows.reshape(-1, N_LANDMARKS) + first[:, None]
        flat = values.flatten(0, slots.ndim - 1) if batch else values
        return flat.index_select(0, places.flatten()).reshape(*batch, N_LANDMARKS, *flat.shape[1:])

    def contour_vertices(self, slots: Int[Tensor, "*b 17"]) -> Int[Tensor, "*b 17"]:
        """The model's vertices in those slots."""
        vertices = self._lines.vertices
        return vertices.expand(*slots.shape, -1).gather(-1, slots[..., None])[..., 0]

    def _tables(self, like: Tensor) -> ContourLines:
        lines = self._lines
        return lines._replace(path=lines.path.to(like.dtype), outward=lines.outward.to(like.dtype))
