"""The factors of a bilinear model from the faces of many people in the same expressions.

Every person is moved rigidly (without scale) so that the neutral face lies on the mean neutral face. One translation
moves the centroid of the mean face to 0, and an HOSVD reduces the tensor. The tensor is kept in a temporary file and
processed in chunks: 150 people x 47 expressions x 11510 vertices, 1 GB, need about 2 GB of memory.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.geometry.align import Alignment, align_rigid
from facerecon_torch.model.hosvd import Hosvd, hosvd

__all__ = ["BuildSpec", "Built", "People", "align_people", "build_bilinear", "front_half", "scratch_array"]

_ROUNDS = 10
_SETTLED = 1e-4  # mm, movement of the mean face in one round


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
