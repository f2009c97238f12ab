"""The part of a model that is fitted to scans, and where a fit stands."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.model.protocol import FaceModel

__all__ = ["FitState", "FittedFace"]


class FitState(NamedTuple):
    """Weights, and the rigid motion scan = R v + T in float64 (mm)."""

    identity: Float[Tensor, "b identities"]
    expression: Float[Tensor, "b expressions"]
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]

    def pose(self, vertices: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Model frame -> sensor's frame; in the dtype of the vertices."""
        rotation, translation = self.rotation.to(vertices), self.translation.to(vertices)
        return vertices @ rotation.mT + translation[:, None]


class FittedFace:
    """The face's vertices (the topology's whole set, thinned out to at most `most`), its landmarks, and what their
    normals need. Raises ValueError for a model without topology."""

    def __init__(self, model: FaceModel, most: int, like: Tensor) -> None:
        topology = model.topology
        if topology is None:
            raise ValueError("model must have a topology (a restricted model has none)")
        face = topology.whole_vertices
        if len(face) > most:
            face = face[torch.linspace(0, len(face) - 1, most, device=face.device).round().long()]
        self.n_face = len(face)
        used = torch.zeros(model.n_vertices, dtype=torch.bool, device=face.device)
        used[face] = True
        triangles = topology.triangles[used[topology.triangles].any(1)]
        around = torch.unique(triangles)
        rows = torch.cat([face, around[~used[around]]])
        place = torch.zeros(model.n_vertices, dtype=torch.int64, device=face.device)
        place[rows] = torch.arange(len(rows), device=face.device)
        self._triangles: Int[Tensor, "t 3"] = place[triangles]
        self._around = model.restrict(rows).to(like)
        marks = topology.landmark_vertices
        self.model = model.restrict(torch.cat([face, marks])).to(like)
        """The face's vertices, then the 66 landmarks."""

    def surface(self, state: FitState) -> tuple[Float[Tensor, "b face 3"], Float[Tensor, "b face 3"]]:
        """Posed vertices of the face and their unit normals, in the sensor's frame."""
        vertices = self._around.vertices(state.identity, state.expression)
        normals = vertex_normals(vertices, self._triangles)[:, : self.n_face]
        return state.pose(vertices[:, : self.n_face]), normals @ state.rotation.to(normals).mT

    def start(self, n: int) -> FitState:
        """The mean face, not moved, n times."""
        model = self.model
        eye = torch.eye(3, dtype=torch.float64, device=model.device).expand(n, 3, 3)
        still = torch.zeros(n, 3, dtype=torch.float64, device=model.device)
        return FitState(model.identity_mean.expand(n, -1), model.expression_mean.expand(n, -1), eye, still)
