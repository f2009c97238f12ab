"""The part of a face model that is fitted to scans, and the state of a fit."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.model.base import FaceModel

__all__ = ["FitState", "FittedFace"]


class FitState(NamedTuple):
    """Weights of both factors, and the rigid motion scan = R v + T in float64 (mm)."""

    identity: Float[Tensor, "b identities"]
    expression: Float[Tensor, "b expressions"]
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]

    def pose(self, vertices: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Vertices moved from the model frame to the sensor's frame, in their own dtype."""
        rotation, translation = self.rotation.to(vertices), self.translation.to(vertices)
        return vertices @ rotation.mT + translation[:, None]


_MARGIN_SAMPLES = 500  # vertices of the face that the distance to it is measured from


class FittedFace:
    """A model restricted to the fitted vertices, the landmarks and the vertices around, which the normals need.

    The fitted vertices are the topology's whole set and every other vertex within `margin` mm of it on the mean face:
    temples, forehead and jaw separate turns of the head from expressions. They are thinned out to at most `most`.
    Raises ValueError for a model without topology.
    """

    def __init__(self, model: FaceModel, most: int, margin: float, like: Tensor) -> None:
        topology = model.topology
        if topology is None:
            raise ValueError("model must have a topology (a restricted model has none)")
        face_set = topology.whole_vertices
        face = _thinned(torch.cat([face_set, _margin(model, face_set, margin)[::2]]), most)
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
        """The model of the fitted vertices, followed by the 66 landmarks."""
        self.marks = model.restrict(marks).to(like)
        """The model of the 66 landmarks."""
        mean = model.vertices(model.identity_mean, model.expression_mean)
        self.mark_normals: Float[Tensor, "66 3"] = vertex_normals(mean, topology.triangles)[marks].to(like)
        """Unit normals of the landmarks on the mean face, in the model frame."""

    def surface(self, state: FitState) -> tuple[Float[Tensor, "b face 3"], Float[Tensor, "b face 3"]]:
        """Posed vertices of the face and their unit normals, in the sensor's frame."""
        vertices = self._around.vertices(state.identity, state.expression)
        normals = vertex_normals(vertices, self._triangles)[:, : self.n_face]
        return state.pose(vertices[:, : self.n_face]), normals @ state.rotation.to(normals).mT

    def start(self, n: int) -> FitState:
        """n times the mean face in the model frame."""
        model = self.model
        eye = torch.eye(3, dtype=torch.float64, device=model.device).expand(n, 3, 3)
        still = torch.zeros(n, 3, dtype=torch.float64, device=model.device)
        return FitState(model.identity_mean.expand(n, -1), model.expression_mean.expand(n, -1), eye, still)


def _thinned(rows: Int[Tensor, "n"], most: int) -> Int[Tensor, "m"]:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()]


def _margin(model: FaceModel, face_set: Int[Tensor, "w"], width: float) -> Int[Tensor, "n"]:
    """Vertices outside `face_set` and at most about `width` mm away from it."""
    mean = model.vertices(model.identity_mean, model.expression_mean)
    outside = torch.ones(len(mean), dtype=torch.bool, device=mean.device)
    outside[face_set] = False
    rows = torch.nonzero(outside)[:, 0]
    face = mean[_thinned(face_set, _MARGIN_SAMPLES)]
    return rows[torch.cdist(mean[rows], face).amin(1) <= width]
