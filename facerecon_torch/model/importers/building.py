"""A bilinear model from the faces of many people in the same expressions, or from the arrays of a file.

Every person is moved rigidly (without scale) so that the neutral face lies on the mean neutral face. One translation
moves the centroid of the mean face to 0, and an HOSVD reduces the tensor. The tensor is kept in a temporary file and
processed in chunks: 150 people x 47 expressions x 11510 vertices, 1 GB, need about 2 GB of memory.

The model of a file is assembled in mm, with outward triangles and a summary.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.formats.facewarehouse import EXPRESSION_NAMES
from facerecon_torch.geometry.align import Alignment, align_rigid
from facerecon_torch.model.hosvd import Hosvd, hosvd
from facerecon_torch.model.importers.imported import (
    LARGEST_FACE,
    SMALLEST_FACE,
    ImportedModel,
    as_model_errors,
    refused,
)
from facerecon_torch.model.importers.linear_parts import outward, turned_corners
from facerecon_torch.model.named_weights import NEUTRAL

__all__ = [
    "BuildSpec",
    "Built",
    "People",
    "align_people",
    "build_bilinear",
    "front_half",
    "scratch_array",
    "assemble_bilinear",
    "expression_names",
    "plausible_unit",
    "rows_with_moments",
]

_ROUNDS = 10
_SETTLED = 1e-4  # mm, movement of the mean face in one round
_POWERS = range(-4, 5)


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """Ranks of the core (limited by the data), folder of the temporary file (default: the system's), and the device
    that processes its chunks."""

    identity_rank: int = 50
    expression_rank: int = 25
    scratch: Path | None = None
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if min(self.identity_rank, self.expression_rank) < 1:
            raise ValueError(f"ranks must be at least 1; got {self.identity_rank}, {self.expression_rank}")


@dataclass(frozen=True, kw_only=True)
class People:
    """The input faces in mm: `read(k)` returns person k in every expression [E, V, 3], `read_neutral(k)` the first of
    them [V, 3]."""

    n_people: int
    n_expressions: int
    n_vertices: int
    read: Callable[[int], Tensor]
    read_neutral: Callable[[int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Built:
    """The factors of a BilinearModel in float32, and their summary."""

    factors: dict[str, Tensor]
    summary: dict[str, object]


def build_bilinear(people: People, spec: BuildSpec, face_vertices: Tensor | None = None) -> Built:
    """The factors of aligned and centred people.

    Args:
        people: The input faces.
        spec: Ranks, temporary folder and device.
        face_vertices: Vertices of the alignment; by default `front_half` of the mean neutral face.

    Raises:
        OSError: The disk has no room for the temporary file.
        ValueError: There are fewer than 3 face vertices, or one is not in the mesh.
    """
    if face_vertices is not None:
        _require_vertices(face_vertices, people.n_vertices)
    neutral = torch.stack([people.read_neutral(k) for k in range(people.n_people)]).to(torch.float64)
    face = front_half(neutral.mean(dim=0)) if face_vertices is None else face_vertices
    moves = align_people(neutral, face)
    shape = (people.n_people, people.n_expressions, 3 * people.n_vertices)
    with scratch_array(shape, spec.scratch) as array:
        tensor = torch.from_numpy(array)
        origin = _fill(tensor, people, moves)
        ranks = (min(spec.identity_rank, shape[0]), min(spec.expression_rank, shape[1]))
        answer = hosvd(tensor.permute(2, 0, 1), *ranks, device=spec.device)
        del tensor
    factors = {
        "core": answer.core.reshape(people.n_vertices, 3, *ranks),
        "identity_rows": answer.identity_rows,
        "expression_rows": answer.expression_rows,
    }
    aligned = moves.apply(neutral)
    spread = (aligned - aligned.mean(dim=0))[:, face].square().sum(dim=-1).mean().sqrt()
    return Built(factors=factors, summary=_summary(answer, people, origin, len(face), float(spread)))


def _require_vertices(vertices: Tensor, n_vertices: int) -> None:
    if vertices.dtype != torch.int64 or vertices.ndim != 1 or len(vertices) < 3:
        raise ValueError(f"face_vertices must be int64 [n], n >= 3; got {vertices.dtype} {tuple(vertices.shape)}")
    if int(vertices.min()) < 0 or int(vertices.max()) >= n_vertices:
        raise ValueError(f"face_vertices must lie in [0, {n_vertices}); got {vertices.min()} to {vertices.max()}")


def front_half(neutral: Float[Tensor, "vertices 3"]) -> Int[Tensor, "n"]:
    """The half of the vertices with the largest z: the face, because meshes are denser there than on the skull."""
    return torch.nonzero(neutral[:, 2] >= neutral[:, 2].median()).flatten()


def align_people(neutral: Float[Tensor, "people vertices 3"], face: Int[Tensor, "n"]) -> Alignment:
    """The rigid motion of every person onto the mean of all moved people, by alternating steps.

    The first mean is that of the given people, so the axes stay theirs.
    """
    reference = neutral[:, face].mean(dim=0)
    for _ in range(_ROUNDS):
        moves = align_rigid(neutral[:, face], reference.expand(len(neutral), -1, -1))
        mean = moves.apply(neutral[:, face]).mean(dim=0)
        settled = float((mean - reference).abs().max()) < _SETTLED
        reference = mean
        if settled:
            break
    return moves


@contextmanager
def scratch_array(shape: tuple[int, ...], folder: Path | None) -> Iterator[np.memmap]:
    """A float32 array in a temporary file, which is removed afterwards.

    The disk space is allocated first, because a full disk would crash the process while the array is written. Raises
    OSError if there is no space.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))
        yield np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _fill(tensor: Float[Tensor, "people faces rows"], people: People, moves: Alignment) -> Float[Tensor, "3"]:
    """The centroid of the mean face; `tensor` is filled with all moved faces minus this centroid."""
    total = torch.zeros(3, dtype=torch.float64)
    for k in range(people.n_people):
        faces = people.read(k).to(torch.float64)
        moved = faces @ moves.rotation[k].mT + moves.translation[k]
        tensor[k] = moved.flatten(1)
        total += moved.mean(dim=(0, 1))
    origin = total / people.n_people
    for rows in tensor:
        rows -= origin.to(rows).repeat(people.n_vertices)
    return origin


def _summary(
    answer: Hosvd, people: People, origin: Float[Tensor, "3"], n_face: int, spread: float
) -> dict[str, object]:
    return {
        "vertices": people.n_vertices,
        "people": people.n_people,
        "expressions": people.n_expressions,
        "identity_rank": answer.identity_rows.shape[1],
        "expression_rank": answer.expression_rows.shape[1],
        "variance_kept": answer.variance_kept,
        "rmse_mm": 3**0.5 * answer.residual_rms,  # root mean square distance of a vertex, over all faces
        "alignment_vertices": n_face,
        "neutral_spread_mm": spread,  # of the aligned neutral faces about their mean, on those vertices
        "origin_mm": origin.tolist(),
    }


def assemble_bilinear(
    file: Path,
    factors: dict[str, Tensor],
    triangles: Tensor,
    uv: Tensor | None,
    *,
    names: Sequence[str],
    topology_name: str,
    mm_per_unit: float | None,
    summary: dict[str, object],
    tables: dict[str, Tensor] | None = None,
    corner_uv: Tensor | None = None,
) -> ImportedModel:
    """The model with its core in mm.

    Args:
        file: The file, for errors.
        factors: core, identity_rows and expression_rows.
        triangles: The triangles of the mesh.
        uv: Texture coordinates of the vertices.
        names: Names of the rows of U_exp.
        topology_name: Name of the mesh in the lists of landmark vertices.
        mm_per_unit: The unit; by default the power of ten that makes the mean face 80 to 600 mm long.
        summary: Further entries of the summary.
        tables: Tables of a FaceTopology that the file has.
        corner_uv: Texture coordinates of the triangles' corners, of a mesh with seams.

    Raises:
        ModelFileError: No unit gives a plausible face, or ImportedModel refuses the arrays.
    """
    with as_model_errors(file):
        mean = _mean_face(factors)
        unit = plausible_unit(file, mean) if mm_per_unit is None else float(mm_per_unit)
        core = factors["core"] if unit == 1 else factors["core"] * unit
        triangles, turned = outward(file, unit * mean, triangles)
        counts: dict[str, object] = {
            "vertices": len(core),
            "triangles": len(triangles),
            "triangles_turned": turned,
            "identity_rank": core.shape[2],
            "expression_rank": core.shape[3],
            "mm_per_unit": unit,
            "unit_from": "the size of the mean face" if mm_per_unit is None else "the format",
        }
        return ImportedModel(
            kind="bilinear",
            factors={**factors, "core": core},
            triangles=triangles,
            uv=None if uv is None else uv.to(core.dtype),
            corner_uv=turned_corners(None if corner_uv is None else corner_uv.to(core.dtype), turned),
            expression_names=tuple(names),
            topology_name=topology_name,
            summary={**counts, **summary},
            tables=tables or {},
        )


def expression_names(count: int) -> tuple[str, ...]:
    """The names of the rows of U_exp, the neutral face first: FaceWarehouse's for 47 rows, else numbers."""
    if count == len(EXPRESSION_NAMES):
        return (NEUTRAL, *EXPRESSION_NAMES[1:])
    return (NEUTRAL, *(f"expression_{k}" for k in range(1, count)))


def rows_with_moments(mean: Float[Tensor, "n"], variance: Float[Tensor, "n"]) -> Float[Tensor, "rows n"]:
    """2 n uncorrelated rows with this mean and (population) variance: mean +- sqrt(n variance_k) e_k.

    They replace the rows of U_id if a file has only their statistics.
    """
    steps = torch.diag((len(mean) * variance).sqrt())
    return torch.cat([mean + steps, mean - steps])


def _mean_face(factors: dict[str, Tensor]) -> Float[Tensor, "vertices 3"]:
    people, faces = (factors[name].mean(dim=0) for name in ("identity_rows", "expression_rows"))
    return ((factors["core"] @ faces) @ people).to(torch.float64)


def plausible_unit(file: Path, mean: Float[Tensor, "vertices 3"]) -> float:
    """mm per unit: the power of ten that makes the mean face 80 to 600 mm long. Raises ModelFileError."""
    longest = float((mean.amax(dim=0) - mean.amin(dim=0)).max())
    fitting = [10.0**power for power in _POWERS if SMALLEST_FACE <= longest * 10.0**power <= LARGEST_FACE]
    if not fitting:
        expected = f"{SMALLEST_FACE:g} to {LARGEST_FACE:g} mm for some power of ten as the unit (give mm_per_unit)"
        raise refused(file, "length of the mean face", expected, f"{longest:.6g} units")
    return fitting[0]
