"""Carries displacements from one mesh to another of the same topology by a smooth affine map per vertex."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Transport"]

ROUNDS = 24
RIDGE = 0.05
"""Share of the mean edge moment that pulls a map towards the identity where the surface is flat."""


class Transport:
    """Affine maps from a fixed rest mesh to other meshes.

    At vertex v with mesh edges e_j (rest) and e'_j (other) the map is the ridge solution of e'_j = A e_j:
    A = (S sum_j e'_j e_j' + r I) (S sum_j e_j e_j' + r I)^-1, where S averages over a neighbourhood of
    ROUNDS steps on the mesh. A is the identity when the meshes are equal, and linear in the other mesh.
    Vertices of parts after `n_surface_parts` take the map of the nearest surface vertex.
    """

    def __init__(
        self, rest: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], parts: Int[Tensor, "t"]
    ) -> None:
        self._edges = _edges(triangles)
        self._smooth = _averaging(self._edges, len(rest))
        self._source = _nearest_surface(rest, triangles, parts)
        self._rest_edges = rest[self._edges[1]] - rest[self._edges[0]]
        moment = self._moments(rest)
        size = torch.diagonal(moment, dim1=-2, dim2=-1).mean(-1)
        self._ridge = RIDGE * size[:, None, None] * torch.eye(3, dtype=rest.dtype)
        self._inverse = torch.linalg.inv((moment + self._ridge).double()).to(rest.dtype)

    def maps(self, meshes: Float[Tensor, "*n v 3"]) -> Float[Tensor, "*n v 3 3"]:
        """The maps that carry displacements of the rest mesh over to `meshes`."""
        return ((self._moments(meshes) + self._ridge) @ self._inverse)[..., self._source, :, :]

    def _moments(self, meshes: Float[Tensor, "*n v 3"]) -> Float[Tensor, "*n v 3 3"]:
        start, end = self._edges
        edges = meshes[..., end, :] - meshes[..., start, :]
        products = edges[..., :, None] * self._rest_edges[:, None, :]
        raw = torch.zeros(*meshes.shape, 3, dtype=meshes.dtype).index_add_(-3, start, products)
        flat = raw.movedim(-3, 0).flatten(1)
        for _ in range(ROUNDS):
            flat = self._smooth @ flat
        return flat.reshape(raw.shape[-3], *raw.shape[:-3], 3, 3).movedim(0, -3)


def _edges(triangles: Int[Tensor, "t 3"]) -> Int[Tensor, "2 edges"]:
    """Directed edges, each once per direction."""
    pairs = torch.cat([triangles[:, [i, j]] for i in range(3) for j in range(3) if i != j])
    return torch.unique(pairs, dim=0).T.contiguous()


def _averaging(edges: Int[Tensor, "2 edges"], n: int) -> Tensor:
    """Sparse [n, n]: half the vertex itself, half the mean of its neighbours."""
    degree = torch.bincount(edges[0], minlength=n).clamp(min=1)
    loops = torch.arange(n).expand(2, n)
    values = torch.cat([0.5 / degree[edges[0]], torch.full((n,), 0.5)])
    matrix = torch.sparse_coo_tensor(
        torch.cat([edges, loops], 1), values, (n, n), check_invariants=True
    )
    return matrix.coalesce()


def _nearest_surface(
    rest: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], parts: Int[Tensor, "t"]
) -> Int[Tensor, "v"]:
    """Each vertex itself where it lies on skin, mouth or eyes; else the nearest vertex that does."""
    surface = torch.unique(triangles[parts < 5])
    loose = torch.ones(len(rest), dtype=torch.bool)
    loose[surface] = False
    result = torch.arange(len(rest))
    result[loose] = surface[torch.cdist(rest[loose], rest[surface]).argmin(1)]
    return result
