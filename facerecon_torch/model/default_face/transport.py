"""Transport of displacements between meshes of one topology by a smooth affine map per vertex."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Transport"]

ROUNDS = 24
RIDGE = 0.05
"""Ridge as a share of the mean edge moment; it draws a map towards the identity where the surface is flat."""


class Transport:
    """Affine maps from a fixed rest mesh to other meshes.

    At vertex v with mesh edges e_j (rest) and e'_j (other) the map is the ridge solution of e'_j = A e_j:
    A = (S sum_j e'_j e_j' + r I) (S sum_j e_j e_j' + r I)^-1, where S averages over a neighbourhood of
    ROUNDS steps on the mesh. A is the identity when the meshes are equal; it is affine in the other mesh,
    A = linear(other) + constant. Vertices off the `surface` (hair, garment) take the map of the nearest
    vertex on it.
    """

    def __init__(
        self, rest: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], on_surface: Bool[Tensor, "t"]
    ) -> None:
        self._edges = _edges(triangles)
        self._smooth = _averaging(self._edges, len(rest), rest.dtype)
        self._rest_edges: Tensor = rest[self._edges[1]] - rest[self._edges[0]]
        self._source = _nearest_on_surface(rest, torch.unique(triangles[on_surface]))
        moments = self._moments(rest)
        size = torch.diagonal(moments, dim1=-2, dim2=-1).mean(-1)
        ridge = RIDGE * size[:, None, None] * torch.eye(3, dtype=rest.dtype)
        self._inverse = torch.linalg.inv((moments + ridge).double()).to(rest.dtype)
        self.constant: Float[Tensor, "v 3 3"] = (ridge @ self._inverse)[self._source]

    def maps(self, meshes: Float[Tensor, "*n v 3"]) -> Float[Tensor, "*n v 3 3"]:
        """The maps of displacements from the rest mesh to `meshes`."""
        return self.linear(meshes) + self.constant

    def linear(self, meshes: Float[Tensor, "*n v 3"]) -> Float[Tensor, "*n v 3 3"]:
        """The part of the maps that is linear in the meshes' vertices."""
        maps: Tensor = self._moments(meshes) @ self._inverse
        return maps[..., self._source, :, :]

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
    unique: Tensor = torch.unique(pairs, dim=0)
    return unique.T.contiguous()


def _averaging(edges: Int[Tensor, "2 edges"], n: int, dtype: torch.dtype) -> Tensor:
    """Sparse [n, n]: half the vertex itself, half the mean of its neighbours."""
    degree = torch.bincount(edges[0], minlength=n).clamp(min=1).to(dtype)
    entries = torch.cat([edges, torch.arange(n).expand(2, n)], 1)
    values = torch.cat([0.5 / degree[edges[0]], torch.full((n,), 0.5, dtype=dtype)])
    matrix: Tensor = torch.sparse_coo_tensor(entries, values, (n, n), check_invariants=True)
    return matrix.coalesce()


def _nearest_on_surface(rest: Float[Tensor, "v 3"], surface: Int[Tensor, "s"]) -> Int[Tensor, "v"]:
    """The nearest vertex of `surface` to each vertex, itself where it is one of them."""
    loose = torch.ones(len(rest), dtype=torch.bool)
    loose[surface] = False
    result = torch.arange(len(rest))
    result[loose] = surface[torch.cdist(rest[loose], rest[surface]).argmin(1)]
    return result
