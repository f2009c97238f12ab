"""Meshes of the free default face: neutral people, and their expressions.

The source's targets are additive. A bilinear model needs expressions that depend on the person, so each expression
displacement is transported from the mean face to a person by an affine map per vertex.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.model.default_face.asset import (
    ASSET_FOLDER,
    MASKS,
    PARTS,
    STEP_MM,
    SourceAsset,
    read_asset,
    read_tensors,
)
from facerecon_torch.model.default_face.sliders import (
    Family,
    Identities,
    expected_sliders,
    sample_identities,
)
from facerecon_torch.model.topology import FaceTopology

__all__ = ["Transport", "FaceSource", "load_source", "load_topology"]

ROUNDS = 24
"""Steps of the neighbourhood over which a transport averages."""
RIDGE = 0.05
"""Ridge as a share of the mean edge moment; it draws a map towards the identity where the surface is flat."""
MERGED = ("mouthUpperUp", "mouthLowerDown", "noseSneer", "mouthPress", "cheekSquint")
"""Units whose left and right sides form one expression."""
DROPPED = ("tongueOut",)
SURFACE = ("skin", "lips", "mouth", "left_eye", "right_eye")
"""Parts with their own maps; hair, lashes and cloth take the map of the nearest vertex on these."""


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


def _expression_table(units: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Expression name -> the units whose sum it is."""
    table: dict[str, tuple[str, ...]] = {}
    for unit in units:
        stem = unit.removesuffix("Left").removesuffix("Right")
        if stem in MERGED:
            table[stem] = (f"{stem}Left", f"{stem}Right")
        elif unit == "mouthClose":  # the unit brings the lips together over an open jaw
            table[unit] = ("jawOpen", "mouthClose")
        elif unit not in DROPPED:
            table[unit] = (unit,)
    return table


class FaceSource:
    """Additive source of the free default face; model frame, mm, mean face centred on the origin.

    The first `n_face` of the `n_head` vertices are the model's. Computation runs on the CPU in `dtype`.
    `triangle_parts` indexes `part_names`; `masks` are soft regions in [0, 1] per vertex. `expression_names` names the
    46 entries of a weight vector; the neutral face has zero weights. `anatomy` are the vertices of the 68 anatomical
    marks, `spreads` the standard deviations of local sliders and smooth fields.
    """

    def __init__(self, asset: SourceAsset, *, dtype: torch.dtype = torch.float32) -> None:
        self.n_face, self.n_head = asset.n_face, len(asset.base)
        self.triangles: Int[Tensor, "t 3"] = torch.from_numpy(asset.triangles)
        self.triangle_parts: Int[Tensor, "t"] = torch.from_numpy(asset.triangle_parts)
        self.part_names = PARTS
        self.masks: dict[str, Float[Tensor, "v"]] = dict(zip(MASKS, torch.from_numpy(asset.masks)))
        self.anatomy: Int[Tensor, "68"] = torch.from_numpy(asset.anatomy)
        self.spreads = asset.spreads
        rows = {name: i for i, name in enumerate(asset.target_names)}
        self.identity_names = tuple(name for name in rows if not name.startswith("face/"))
        table = _expression_table(tuple(n.removeprefix("face/") for n in rows if n.startswith("face/")))
        self.expression_names = tuple(table)
        dense = _dense_targets(asset, dtype)
        self.identity_targets: Float[Tensor, "targets v 3"] = dense[[rows[n] for n in self.identity_names]]
        self.expression_targets: Float[Tensor, "exps v 3"] = torch.stack(
            [dense[[rows[f"face/{unit}"] for unit in units]].sum(0) for units in table.values()]
        )
        self.mean_sliders: Float[Tensor, "targets"] = expected_sliders(self.identity_names, self.spreads).to(dtype)
        base = torch.from_numpy(asset.base).to(dtype)
        mean = base + torch.tensordot(self.mean_sliders, self.identity_targets, 1)
        self._base: Tensor = base - mean[: self.n_face].mean(0)
        self.mean: Float[Tensor, "v 3"] = mean - mean[: self.n_face].mean(0)
        on_surface = torch.isin(self.triangle_parts, torch.tensor([PARTS.index(p) for p in SURFACE]))
        self.transport = Transport(self.mean, self.triangles, on_surface)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all meshes."""
        return self._base.dtype

    def sample(self, n: int, generator: torch.Generator, *, family: Family = "core") -> Identities:
        """Random people; see `sample_identities`."""
        return sample_identities(n, generator, self.identity_names, self.spreads, family=family)

    def identity_vertices(self, sliders: Float[Tensor, "*n targets"]) -> Float[Tensor, "*n head 3"]:
        """Neutral meshes, rigidly aligned (no scale) to the mean face on the face vertices."""
        shape = self._base + torch.tensordot(sliders.to(self.dtype), self.identity_targets, 1)
        goal = self.mean[: self.n_face].expand(*shape.shape[:-2], -1, -1)
        return align_rigid(shape[..., : self.n_face, :], goal).apply(shape)

    def expression_basis(self, neutral: Float[Tensor, "*n head 3"]) -> Float[Tensor, "*n exps head 3"]:
        """The displacements, mm, of each expression at weight 1 on `neutral` meshes from `identity_vertices`."""
        maps = self.transport.maps(neutral)
        return torch.einsum("...vab,evb->...eva", maps, self.expression_targets)

    def expression_vertices(
        self, sliders: Float[Tensor, "*n targets"], weights: Float[Tensor, "*n exps"]
    ) -> Float[Tensor, "*n head 3"]:
        """Meshes of people with expressions, one row of weights per row of sliders; mm.

        The weighted displacements are summed before their transport, so no basis is built.
        """
        neutral = self.identity_vertices(sliders)
        summed = torch.tensordot(weights.to(self.dtype), self.expression_targets, 1)
        return neutral + torch.einsum("...vab,...vb->...va", self.transport.maps(neutral), summed)


def _dense_targets(asset: SourceAsset, dtype: torch.dtype) -> Float[Tensor, "targets v 3"]:
    """The displacements of all targets on all vertices."""
    counts = np.diff(asset.target_offsets)
    flat = np.repeat(np.arange(len(counts)), counts) * len(asset.base) + asset.target_vertices
    dense = torch.zeros(len(counts) * len(asset.base), 3, dtype=dtype)
    dense[torch.from_numpy(flat)] = torch.from_numpy(asset.target_steps).to(dtype) * STEP_MM
    return dense.view(len(counts), -1, 3)


@lru_cache(maxsize=2)
def load_source(dtype: torch.dtype = torch.float32) -> FaceSource:
    """The source of the free default face, one shared object per dtype."""
    return FaceSource(read_asset(ASSET_FOLDER), dtype=dtype)


def load_topology() -> FaceTopology:
    """The index tables of the free default face."""
    asset = read_asset(ASSET_FOLDER)
    tables = read_tensors(ASSET_FOLDER / "tables.safetensors")
    return FaceTopology(
        triangles=torch.from_numpy(asset.triangles[: asset.n_face_triangles]),
        uv=torch.from_numpy(asset.uv[: asset.n_face].copy()),
        corner_uv=torch.from_numpy(asset.corner_uv[: asset.n_face_triangles].astype(np.float32)),
        **{name: torch.from_numpy(table.astype(np.int64)) for name, table in tables.items()},
    )
