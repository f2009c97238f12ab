"""The default bilinear model: committed factors, and a core that is built on first use.

The tensor of 150 people x 47 expressions (neutral and 46) is projected on the committed U_id and U_exp. The vectors of
an HOSVD differ between machines in sign and in near-equal columns; with committed ones all machines build one model.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.errors import ModelFileError
from facerecon_torch.files import cache_folder, made_once
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.default_face.asset import ASSET_FOLDER, file_digests, read_tensors, write_tensors
from facerecon_torch.model.default_face.shapes import FaceSource, load_source, load_topology
from facerecon_torch.model.hosvd import hosvd
from facerecon_torch.model.io import load_model, save_model
from facerecon_torch.model.topology import FaceTopology

__all__ = [
    "CORE_STEP_MM",
    "build_default_face",
    "write_factors",
    "expression_names",
    "identity_blocks",
    "load_default_face",
    "model_of",
    "projected_core",
    "tensor_factors",
]

BUILD_VERSION = 2
"""Part of the cache's key; raised whenever the code changes the core or what a model file holds."""
N_BUILDING, IDENTITY_RANK, EXPRESSION_RANK = 150, 50, 25
BUILDING_SEED = 20140501
CORE_STEP_MM = 1.0 / 128.0
"""Rounding step of the core, which makes its SHA-256 equal on all machines: the entry nearest to a rounding boundary is
8e-10 mm away, and another order of summation moves an entry by 1e-11 mm. On a vertex the rounding has a standard
deviation of at most 0.0015 mm, small enough for `model.factored` to neglect it."""


def expression_names(source: FaceSource) -> tuple[str, ...]:
    """The names of the tensor's expressions and U_exp's rows: neutral, then the source's 46."""
    return ("neutral", *source.expression_names)


def identity_blocks(
    source: FaceSource, sliders: Float[Tensor, "n targets"], *, block: int = 10
) -> Iterator[Float[Tensor, "m exps v 3"]]:
    """The meshes of people with all 47 expressions on the model's vertices, mm, `block` people at a time."""
    for rows in torch.split(sliders, block):
        neutral = source.identity_vertices(rows)
        basis = source.expression_basis(neutral)[..., : source.n_face, :]
        face = neutral[:, None, : source.n_face]
        yield torch.cat([face, face + basis], 1)


def tensor_factors(source: FaceSource) -> dict[str, Tensor]:
    """The building people's sliders and the HOSVD factors of their tensor (30 s, 2 GB)."""
    people = source.sample(N_BUILDING, torch.Generator().manual_seed(BUILDING_SEED))
    blocks = [part.permute(2, 3, 0, 1).flatten(0, 1) for part in identity_blocks(source, people.sliders)]
    result = hosvd(torch.cat(blocks, 1), IDENTITY_RANK, EXPRESSION_RANK)
    return {
        "sliders": people.sliders.float(),
        "identity_rows": result.identity_rows.double(),
        "expression_rows": result.expression_rows.double(),
    }


def write_factors(source: FaceSource, folder: Path) -> None:
    """Write factors.safetensors."""
    write_tensors(folder / "factors.safetensors", {k: v.numpy() for k, v in tensor_factors(source).items()})


def projected_core(
    source: FaceSource,
    sliders: Float[Tensor, "n targets"],
    identity_rows: Float[Tensor, "n identities"],
    expression_rows: Float[Tensor, "exps expressions"],
) -> Float[Tensor, "v 3 identities expressions"]:
    """The core T x2 U_id' x3 U_exp', computed without the tensor T, mm.

    A face is N_n + A(N_n) d_e with A affine in the neutral mesh N_n (d = 0 for the neutral row): the sums over people
    and over expressions are taken first:
    core[., i, j] = c_j M_i + (linear(M_i) + s_i constant) D_j with M_i = sum_n U_id[n, i] N_n,
    s_i = sum_n U_id[n, i], D_j = sum_e U_exp[e, j] d_e, c_j = sum_e U_exp[e, j].
    """
    n_face = source.n_face
    neutral = source.identity_vertices(sliders)
    mixed = torch.einsum("nvk,ni->ivk", neutral, identity_rows)
    shares = identity_rows.sum(0)[:, None, None, None]
    maps = (source.transport.linear(mixed) + shares * source.transport.constant)[:, :n_face]
    moves = torch.einsum("evk,ej->jvk", source.expression_targets[:, :n_face], expression_rows[1:])
    still = torch.einsum("ivk,j->vkij", mixed[:, :n_face], expression_rows.sum(0))
    return still + torch.einsum("ivab,jvb->vaij", maps, moves)


def model_of(source: FaceSource, factors: Mapping[str, Tensor], topology: FaceTopology) -> BilinearModel:
    """The model of a float64 source, float32, core rounded to CORE_STEP_MM."""
    rows = factors["identity_rows"], factors["expression_rows"]
    core = projected_core(source, factors["sliders"].double(), *rows)
    return BilinearModel(
        ((core / CORE_STEP_MM).round() * CORE_STEP_MM).float(),
        rows[0].float(),
        rows[1].float(),
        topology,
        expression_names=expression_names(source),
    )


def build_default_face() -> BilinearModel:
    """The model built from the committed asset (a few seconds, 1.5 GB)."""
    arrays = read_tensors(ASSET_FOLDER / "factors.safetensors")
    factors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return model_of(load_source(torch.float64), factors, load_topology())


def load_default_face() -> BilinearModel:
    """The free default face: 3,960 vertices, 50 x 25, float32, on the CPU.

    It is built on the first call and kept in the cache folder by the hash of the asset. Processes that start together
    build it once (file lock); a damaged cache file is built again. Where the cache folder cannot be written, it is
    built on every call, with a warning.

    Example:
        >>> model = load_default_face()
        >>> model.vertices(model.identity_mean, model.expression_mean).shape
        torch.Size([3960, 3])
    """
    path = cache_folder() / f"default_face-{_cache_key()}.safetensors"
    return made_once(path, _read_cached, build_default_face, save_model, "the default face is built anew")


def _read_cached(path: Path) -> BilinearModel | None:
    if not path.is_file():
        return None
    try:
        model = load_model(path)
    except ModelFileError:
        return None
    return model if isinstance(model, BilinearModel) else None


def _cache_key() -> str:
    return hashlib.sha256(f"{BUILD_VERSION} {CORE_STEP_MM}".encode() + file_digests(ASSET_FOLDER)).hexdigest()[:16]
