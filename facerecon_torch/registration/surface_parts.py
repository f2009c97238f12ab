"""Parts of face meshes: outer skin, connected parts, rims, and the nearest surface points with equal orientation."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.geometry.align import Alignment
from facerecon_torch.geometry.mesh_queries import get_backend, visible_vertices
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.rotation import euler_to_matrix

__all__ = [
    "NearestPoints",
    "Surface",
    "make_surface",
    "mesh_edges",
    "mesh_parts",
    "outer_skin",
    "outside_vertices",
    "welded",
]

_VIEWS_DEGREES = ((0, 0), (40, 0), (-40, 0), (75, 0), (-75, 0), (0, 25), (0, -25), (0, 50))  # yaw, pitch
_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class NearestPoints:
    """Nearest surface points (mm), with weights that are 0 beyond the gates and on the rim."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    distances: Float[Tensor, "n"]
    weights: Float[Tensor, "n"]
    triangles: Int[Tensor, "n"]
    barycentric: Float[Tensor, "n 3"]


@dataclass(frozen=True)
class Surface:
    """A mesh in float64 for nearest-point searches; `triangles` may leave out parts of the mesh.

    `rim` marks the vertices on an edge of one triangle only. `make_surface` computes it.
    """

    vertices: Float[Tensor, "v 3"]
    triangles: Int[Tensor, "t 3"]
    rim: Bool[Tensor, "v"]

    @cached_property
    def normals(self) -> Float[Tensor, "v 3"]:
        """Unit vertex normals."""
        return vertex_normals(self.vertices, self.triangles)

    @cached_property
    def edge_length(self) -> float:
        """Median length of an edge, mm."""
        a, b = mesh_edges(self.triangles).mT
        return float((self.vertices[a] - self.vertices[b]).norm(dim=-1).median())

    def moved(self, alignment: Alignment) -> "Surface":
        """The surface after a similarity."""
        return replace(self, vertices=alignment.apply(self.vertices))

    def nearest(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], *, gate: float, cosine: float = 0.5
    ) -> NearestPoints:
        """The nearest surface point of every point with a unit normal.

        The weight falls from 1 at distance 0 to 0 at `gate` mm (Tukey's biweight). It is 0 where the cosine between the
        normals is below `cosine`, and where the nearest point lies on the rim, since the surface ends there.
        """
        hit = get_backend().closest_point(points.float()[None], self.vertices.float()[None], self.triangles)
        triangles, barycentric = hit.triangle[0], hit.barycentric[0].double()
        corners = self.triangles[triangles]
        nearest = (barycentric[..., None] * self.vertices[corners]).sum(-2)
        nearest_normals = normalize((barycentric[..., None] * self.normals[corners]).sum(-2), dim=-1)
        distances = (nearest - points).norm(dim=-1)
        on_rim = ((barycentric < 1e-4) | self.rim[corners]).all(-1) & self.rim[corners].any(-1)
        weights = (1 - (distances / gate).square()).clamp_min(0).square()
        agree = (nearest_normals * normals).sum(-1) >= cosine
        weights = torch.where(agree & ~on_rim, weights, 0.0)
        return NearestPoints(nearest, nearest_normals, distances, weights, triangles, barycentric)


def make_surface(vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]) -> Surface:
    """The surface of these triangles. Vertices at one place count as one, so that seams of a texture are no rim."""
    same = welded(vertices)
    a, b = mesh_edges(same[triangles]).mT
    edges, counts = (a * len(vertices) + b).unique(return_counts=True)
    once = edges[counts == 1]
    rim = torch.zeros(len(vertices), dtype=torch.bool)
    rim[once // len(vertices)] = True
    rim[once % len(vertices)] = True
    return Surface(vertices, triangles, rim[same])


def mesh_edges(triangles: Int[Tensor, "t 3"]) -> Int[Tensor, "edges 2"]:
    """The three edges of every triangle as (lower, higher) vertex; an edge of two triangles is there twice."""
    pairs = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return pairs.sort(dim=-1).values


def welded(vertices: Float[Tensor, "v 3"]) -> Int[Tensor, "v"]:
    """For every vertex the first vertex at its place: meshes are often cut open along the seams of their texture."""
    steps = ((vertices.double() - vertices.double().amin(0)) / _SAME_PLACE_MM).round().long()
    keys = (steps[:, 0] << 42) + (steps[:, 1] << 21) + steps[:, 2]  # 21 bits hold 2 m
    _, place = keys.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    first = torch.full((int(place.max()) + 1,), len(vertices))
    first = first.scatter_reduce(0, place, torch.arange(len(vertices)), "amin")
    return first[place]


def mesh_parts(vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]) -> Int[Tensor, "v"]:
    """The number of every vertex's connected part; vertices at the same place are connected."""
    same, n = welded(vertices), len(vertices)
    links = torch.cat([mesh_edges(triangles), torch.stack([torch.arange(n), same], -1)])
    a, b = links.numpy().T
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(n, n))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))


def outside_vertices(vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]) -> Bool[Tensor, "v"]:
    """Whether each vertex is visible from one of eight sides around the front; the inside of the mouth is not."""
    yaw, pitch = (torch.deg2rad(torch.tensor(a, dtype=torch.float32)) for a in zip(*_VIEWS_DEGREES))
    turned = vertices.float() @ euler_to_matrix(yaw, pitch, torch.zeros_like(yaw)).mT
    return visible_vertices(turned, triangles).any(0)


def outer_skin(vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]) -> Int[Tensor, "skin"]:
    """The outside vertices of the largest connected part; of a face, its skin without eyeballs."""
    parts = mesh_parts(vertices, triangles)
    largest = parts == parts[triangles.flatten()].mode().values
    return torch.nonzero(largest & outside_vertices(vertices, triangles)).flatten()
