"""The rows of a restricted model that are the 66 landmarks, with a fixed or a marching contour."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.contour import ContourLines, ContourSpec, build_contour_lines, choose_slots, sight_lines
from facerecon_torch.fitting.designs import take_rows
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.topology import N_CONTOUR

__all__ = ["CONTOURS", "LandmarkRows"]

CONTOURS = ("fixed", "marching")


class LandmarkRows:
    """The vertices that landmarks of `model` may lie on: the 49 inner ones, then the contour rows, each once.

    `vertices` are the vertices to restrict the model to. A contour landmark is given by its place among the contour
    rows. Raises ValueError for a model without topology.
    """

    def __init__(self, model: FaceModel, contour: str, spec: ContourSpec) -> None:
        if model.topology is None:
            raise ValueError("model must have a topology; restricted models have none")
        self._marching = contour == "marching"
        self._spec = spec
        landmarks = model.topology.landmark_vertices
        inner, fixed = landmarks[:N_INNER], landmarks[N_INNER:]
        mean_face = model.vertices(model.identity_mean, model.expression_mean).double()
        self._lines = build_contour_lines(mean_face, model.topology)
        if self._marching:
            contour_rows = self._lines.vertices.unique()  # type: ignore[no-untyped-call]
            self._candidates = torch.searchsorted(contour_rows, self._lines.vertices.contiguous())
        else:
            contour_rows = fixed
            self._candidates = torch.arange(N_CONTOUR, device=fixed.device)[:, None]
        self._contour_rows = contour_rows
        self.vertices = torch.cat([inner, contour_rows])

    def first(self, batch: tuple[int, ...]) -> Int[Tensor, "*b 17"]:
        """The places of the fixed vertices."""
        return self._candidates[:, 0].expand(*batch, N_CONTOUR)

    def march(self, points: Float[Tensor, "*b rows 3"], rotation: Float[Tensor, "*b 3 3"]) -> Int[Tensor, "*b 17"]:
        """The places of the contour under a camera of this rotation; `points` are the rows in mm (model frame)."""
        batch = points.shape[:-2]
        if not self._marching:
            return self.first(tuple(batch))
        contour = points[..., N_INNER:, :]
        lines = self._tables(contour)
        sight = sight_lines(rotation.to(contour.dtype), lines, self._spec)
        # The reach of each row in each direction is less to gather than the points of all candidates.
        reach = (sight.direction @ contour.mT).flatten(-2)
        lowest = len(self._contour_rows) * torch.arange(N_CONTOUR, device=reach.device)[:, None]
        reach = reach.index_select(-1, (self._candidates + lowest).flatten())
        slots = choose_slots(reach.reshape(*batch, *self._candidates.shape), sight, lines)
        places: Tensor = self._candidates.expand(*batch, -1, -1).gather(-1, slots[..., None])[..., 0]
        return places

    def take(self, values: Float[Tensor, "*b rows n"], places: Int[Tensor, "*b 17"]) -> Float[Tensor, "*b 66 n"]:
        """The rows of the 66 landmarks."""
        if not self._marching:
            return values
        return torch.cat([values[..., :N_INNER, :], take_rows(values[..., N_INNER:, :], places)], dim=-2)

    def contour_vertices(self, places: Int[Tensor, "*b 17"]) -> Int[Tensor, "*b 17"]:
        """The model's vertices at the places."""
        vertices: Tensor = self._contour_rows[places]
        return vertices

    def _tables(self, like: Tensor) -> ContourLines:
        lines = self._lines
        return lines._replace(path=lines.path.to(like.dtype), outward=lines.outward.to(like.dtype))
