"""The true 66 landmarks of a known mesh, with the contour at the silhouette, where detectors put it."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.contour import ContourLines, ContourSpec, build_contour_lines, march_contour
from facerecon_torch.geometry.projection import project
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.structures import Camera

__all__ = ["contour_candidates", "true_landmarks"]


@lru_cache(maxsize=1)
def contour_candidates() -> tuple[Int[Tensor, "66"], ContourLines]:
    """The landmark vertices of the default face, and the lines along which its contour landmarks move."""
    source, topology = load_source(), load_topology()
    return topology.landmark_vertices, build_contour_lines(source.mean[: source.n_face], topology)


def true_landmarks(vertices: Float[Tensor, "v 3"], camera: Camera) -> tuple[Float[Tensor, "66 2"], Int[Tensor, "17"]]:
    """The landmarks in px of a mesh (mm, model frame) under `camera`, and the vertices of the 17 contour landmarks."""
    marks, lines = contour_candidates()
    slots = march_contour(vertices[lines.vertices], camera.rotation, lines, ContourSpec())
    contour = lines.vertices.gather(1, slots[:, None])[:, 0]
    rows = torch.cat([marks[:N_INNER], contour])
    return project(vertices[rows], camera), contour
