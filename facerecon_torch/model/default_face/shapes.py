"""Meshes of the free default face: neutral people, and expressions that fit each of them.

The source's targets add up. A bilinear model needs expressions that depend on who makes them, so each
expression displacement is carried from the mean face to a person by that vertex's affine map.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.model.default_face.asset import (
    ASSET_FOLDER,
    MASKS,
    PARTS,
    STEP_MM,
    SourceAsset,
    read_asset,
)
from facerecon_torch.model.default_face.sliders import (
    Family,
    Identities,
    expected_sliders,
    sample_identities,
)
from facerecon_torch.model.default_face.transport import Transport

__all__ = ["EXPRESSION_NAMES", "FaceSource", "load_source"]

MERGED = ("mouthUpperUp", "mouthLowerDown", "noseSneer", "mouthPress", "cheekSquint")
"""Units whose left and right are one expression."""
DROPPED = ("tongueOut",)


def _expression_table(units: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Expression name -> the units that are added up for it."""
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
    """The additive source of the free default face; model frame, mm, mean face centred on the origin.

    The first `n_face` of the `n_head` vertices are the model's. Computation runs in `dtype`.
    """

    def __init__(self, asset: SourceAsset, *, dtype: torch.dtype = torch.float32) -> None:
        self.n_face, self.n_head = asset.n_face, len(asset.base)
        self.triangles: Int[Tensor, "t 3"] = torch.from_numpy(asset.triangles)
        self.triangle_parts: Int[Tensor, "t"] = torch.from_numpy(asset.triangle_parts)
        self.part_names = PARTS
        self.uv: Float[Tensor, "v 2"] = torch.from_numpy(asset.uv)
        self.corner_uv: Float[Tensor, "t 3 2"] = torch.from_numpy(asset.corner_uv)
        self.masks: dict[str, Float[Tensor, "v"]] = dict(zip(MASKS, torch.from_numpy(asset.masks)))
        self.face_triangles = self.triangles[(self.triangles < self.n_face).all(1)]
        self.identity_names = tuple(n for n in asset.target_names if not n.startswith("face/"))
        units = tuple(n.removeprefix("face/") for n in asset.target_names if n.startswith("face/"))
        table = _expression_table(units)
        self.expression_names = tuple(table)
        dense = _dense_targets(asset, dtype)
        self._identity = dense[[i for i, n in enumerate(asset.target_names) if not n.startswith("face/")]]
        unit_rows = {n.removeprefix("face/"): i for i, n in enumerate(asset.target_names)}
        self._expression = torch.stack([sum_rows(dense, [unit_rows[u] for u in us]) for us in table.values()])
        self.mean_sliders = expected_sliders(self.identity_names).to(dtype)
        base = torch.from_numpy(asset.base).to(dtype)
        mean = base + torch.tensordot(self.mean_sliders, self._identity, 1)
        self._base = base - mean[: self.n_face].mean(0)
        self.mean: Float[Tensor, "v 3"] = mean - mean[: self.n_face].mean(0)
        self._transport = Transport(self.mean, self.triangles, self.triangle_parts)

    @property
    def dtype(self) -> torch.dtype:
        return self._base.dtype

    def sample(self, n: int, generator: torch.Generator, *, family: Family = "core") -> Identities:
        """Draw n people; see `sample_identities`."""
        return sample_identities(n, generator, self.identity_names, family=family)

    def identity_vertices(self, sliders: Float[Tensor, "*n targets"]) -> Float[Tensor, "*n head 3"]:
        """Neutral meshes, moved rigidly (no scale) so that their face vertices lie best on the mean face's."""
        shape = self._base + torch.tensordot(sliders.to(self.dtype), self._identity, 1)
        return _align(shape, self.mean, self.n_face)

    def expression_basis(self, neutral: Float[Tensor, "*n head 3"]) -> Float[Tensor, "*n exps head 3"]:
        """What each expression at weight 1 adds to the `neutral` meshes (from `identity_vertices`), mm."""
        maps = self._transport.maps(neutral)
        return torch.einsum("...vab,evb->...eva", maps, self._expression)

    def expression_vertices(
        self, sliders: Float[Tensor, "*n targets"], weights: Float[Tensor, "*n exps"]
    ) -> Float[Tensor, "*n head 3"]:
        """Meshes of people who make expressions, one weight row per person; mm.

        The weighted displacement is summed before it is carried over, so no basis is built.
        """
        neutral = self.identity_vertices(sliders)
        summed = torch.tensordot(weights.to(self.dtype), self._expression, 1)
        return neutral + torch.einsum("...vab,...vb->...va", self._transport.maps(neutral), summed)


def sum_rows(dense: Float[Tensor, "targets v 3"], rows: list[int]) -> Float[Tensor, "v 3"]:
    """The sum of some rows of `dense`."""
    return dense[rows].sum(0)


def _dense_targets(asset: SourceAsset, dtype: torch.dtype) -> Float[Tensor, "targets v 3"]:
    counts = np.diff(asset.target_offsets)
    flat = np.repeat(np.arange(len(counts)), counts) * len(asset.base) + asset.target_vertices
    dense = torch.zeros(len(counts) * len(asset.base), 3, dtype=dtype)
    dense[torch.from_numpy(flat)] = torch.from_numpy(asset.target_steps).to(dtype) * STEP_MM
    return dense.view(len(counts), -1, 3)


def _align(
    shape: Float[Tensor, "*n v 3"], target: Float[Tensor, "v 3"], n_fit: int
) -> Float[Tensor, "*n v 3"]:
    """Kabsch: the rotation and translation that bring the first n_fit points nearest to the target's."""
    source, goal = shape[..., :n_fit, :].double(), target[:n_fit].double()
    centre, goal_centre = source.mean(-2, keepdim=True), goal.mean(0)
    left, _, right = torch.linalg.svd((source - centre).mT @ (goal - goal_centre))
    sign = torch.ones_like(left[..., 0])
    sign[..., 2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = left * sign[..., None, :] @ right
    return ((shape.double() - centre) @ rotation + goal_centre).to(shape.dtype)


@lru_cache(maxsize=2)
def load_source(dtype: torch.dtype = torch.float32) -> FaceSource:
    """The free default face's source, from the committed asset."""
    return FaceSource(read_asset(ASSET_FOLDER), dtype=dtype)
