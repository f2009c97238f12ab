"""A face model by somebody else, made from another person of the default face's source: its own triangles, vertex
order, size and place, no eyeballs, no inside of the mouth; the true places of landmarks, lines and sets are known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.surface_parts import mesh_edges, outer_skin

SIZE, PLACE = 1.09, (4.0, -30.0, 25.0)
NOISE_MM = 0.05


@dataclass(frozen=True)
class ForeignFace:
    vertices: Tensor  # [V, 3] mm, float64
    triangles: Tensor
    truth: Tensor  # [3960, 3] the default face's vertices on it
    topology: FaceTopology  # of the default face

    def known(self, points) -> dict[int, int]:
        """The nearest vertices to the true places of some iBUG points."""
        rows = self.topology.landmark_vertices[[IBUG_OF_PAPER.index(point) for point in points]]
        return dict(zip(points, torch.cdist(self.truth[rows], self.vertices).argmin(1).tolist()))


def make_foreign_face(*, seed: int = 3) -> ForeignFace:
    """Every triangle is divided in four, every vertex is moved along the surface, the order is drawn by lot."""
    draw = torch.Generator().manual_seed(seed)
    source, topology = load_source(), load_topology()
    person = source.identity_vertices(source.sample(1, draw).sliders)[0, : source.n_face].double()
    truth = SIZE * person + torch.tensor(PLACE, dtype=torch.float64)
    skin = torch.zeros(len(truth), dtype=torch.bool)
    skin[outer_skin(truth, topology.triangles)] = True
    triangles = topology.triangles[skin[topology.triangles].all(-1)]
    vertices, triangles = _divided(truth, triangles)
    vertices = _slid(vertices, triangles, draw)
    vertices = vertices + NOISE_MM * torch.randn(vertices.shape, generator=draw, dtype=torch.float64)
    vertices, triangles = _shuffled(vertices, triangles, draw)
    return ForeignFace(vertices, triangles, truth, topology)


def _divided(vertices: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    edges, inverse = mesh_edges(triangles).unique(dim=0, return_inverse=True)
    ab, bc, ca = inverse.reshape(3, -1) + len(vertices)
    a, b, c = triangles.mT
    four = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    return torch.cat([vertices, vertices[edges].mean(1)]), torch.cat([torch.stack(x, 1) for x in four])


def _slid(vertices: Tensor, triangles: Tensor, draw: torch.Generator) -> Tensor:
    """Every vertex a fifth of the way, on average, towards one of its neighbours."""
    edges = mesh_edges(triangles)
    edges = torch.cat([edges, edges.flip(1)])[torch.randperm(2 * len(edges), generator=draw)]
    # the last of a vertex's neighbours, told outright: which of several writes to one place stays depends on threads
    last = torch.zeros(len(vertices), dtype=torch.int64)
    last.scatter_reduce_(0, edges[:, 0], torch.arange(len(edges)), "amax")
    other = edges[last, 1].where(torch.isin(torch.arange(len(vertices)), edges[:, 0]), torch.arange(len(vertices)))
    share = 0.4 * torch.rand(len(vertices), 1, generator=draw, dtype=torch.float64)
    return torch.lerp(vertices, vertices[other], share)


def _shuffled(vertices: Tensor, triangles: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    used = triangles.unique()
    order = used[torch.randperm(len(used), generator=draw)]
    place = torch.full((len(vertices),), -1)
    place[order] = torch.arange(len(order))
    return vertices[order], place[triangles]
