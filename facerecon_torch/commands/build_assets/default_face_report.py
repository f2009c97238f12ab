"""Errors of the default model against its source, in millimetres.

    python -m facerecon_torch.commands.build_assets.default_face_report

prints one JSON object: the model's errors on the 150 building people and 30 others, the errors of a linear model of
equal size (50 + 25), and the share of the tensor's variance that is interaction of identity and expression.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.default_face.asset import ASSET_FOLDER, read_tensors
from facerecon_torch.model.default_face.build import identity_blocks, load_default_face
from facerecon_torch.model.default_face.shapes import FaceSource, load_source

__all__ = [
    "ModelError",
    "building_sliders",
    "figures",
    "held_out_error",
    "held_out_sliders",
    "interaction_share",
    "linear_error",
    "model_error",
]

HELD_OUT_SEED, N_HELD_OUT = 20170301, 30
HISTOGRAM_MM, BINS = 20.0, 20000
IDENTITY_RANK, EXPRESSION_RANK = 50, 25  # of the linear model: those of the default model


@dataclass(frozen=True, kw_only=True)
class ModelError:
    """Distances between model and source vertices over all people and expressions, mm."""

    rmse_mm: float
    p99_mm: float
    landmark_rmse_mm: float
    neutral_rmse_mm: float


def building_sliders() -> Float[Tensor, "n targets"]:
    """The committed sliders of the people that the core is built from."""
    return torch.from_numpy(read_tensors(ASSET_FOLDER / "factors.safetensors")["sliders"])


def held_out_sliders(source: FaceSource) -> Float[Tensor, "n targets"]:
    """The sliders of other people of the same distribution."""
    return source.sample(N_HELD_OUT, torch.Generator().manual_seed(HELD_OUT_SEED)).sliders


def _accumulate(
    pairs: Iterable[tuple[Float[Tensor, "m exps v 3"], Float[Tensor, "m exps v 3"]]],
    landmarks: Int[Tensor, "66"],
) -> ModelError:
    """The errors of (model, source) pairs; the 99th percentile comes from a histogram of 0.001 mm."""
    total = torch.zeros(3, dtype=torch.float64)
    count = torch.zeros(3, dtype=torch.float64)
    histogram = torch.zeros(BINS, dtype=torch.float64)
    for model, truth in pairs:
        square = (model - truth).square().sum(-1)
        for k, part in enumerate((square, square[..., landmarks], square[:, 0])):
            total[k] += part.sum()
            count[k] += part.numel()
        histogram += torch.histc(square.sqrt().clamp(max=HISTOGRAM_MM), BINS, 0.0, HISTOGRAM_MM)
    rank = torch.searchsorted(histogram.cumsum(0), 0.99 * histogram.sum())
    everything, marks, neutral = (total / count).sqrt().tolist()
    return ModelError(
        rmse_mm=everything,
        p99_mm=float(rank + 1) * HISTOGRAM_MM / BINS,
        landmark_rmse_mm=marks,
        neutral_rmse_mm=neutral,
    )


def model_error(
    model: BilinearModel,
    source: FaceSource,
    sliders: Float[Tensor, "n targets"],
    identity: Float[Tensor, "n identities"],
    landmarks: Int[Tensor, "66"],
) -> ModelError:
    """The errors of the model with one alpha per person and the rows of U_exp for the expressions."""
    rows = model.expression_rows
    meshes = identity_blocks(source, sliders)
    estimates = (model.vertices(alpha[:, None], rows) for alpha in torch.split(identity, 10))
    return _accumulate(zip(estimates, meshes), landmarks)


def held_out_error(
    model: BilinearModel,
    source: FaceSource,
    sliders: Float[Tensor, "n targets"],
    landmarks: Int[Tensor, "66"],
) -> ModelError:
    """The errors of the model with each person's least-squares alpha over all expressions."""
    design = torch.einsum("vkij,ej->evki", model.core, model.expression_rows).flatten(0, 2)
    gram = design.mT @ design
    sides = [part.flatten(1) @ design for part in identity_blocks(source, sliders)]
    identity = torch.linalg.solve(gram, torch.cat(sides).mT).mT
    return model_error(model, source, sliders, identity, landmarks)


def _means(
    source: FaceSource, sliders: Float[Tensor, "n targets"]
) -> tuple[Float[Tensor, "n v3"], Float[Tensor, "exps v3"], float]:
    """The means over expressions, the means over people, and the sum of squares of the tensor's entries."""
    per_person, total, squares = [], torch.zeros((), dtype=source.dtype), 0.0
    for part in identity_blocks(source, sliders):
        flat = part.flatten(2)
        per_person.append(flat.mean(1))
        total = total + flat.sum(0)
        squares += float(flat.square().sum())
    return torch.cat(per_person), total / len(sliders), squares


def interaction_share(source: FaceSource, sliders: Float[Tensor, "n targets"]) -> float:
    """The share of the tensor's variance that the means of people and of expressions do not explain."""
    people, faces, squares = _means(source, sliders)
    mean = people.mean(0)
    n, m = len(people), len(faces)
    total = squares - n * m * float(mean.square().sum())
    main = m * float((people - mean).square().sum()) + n * float((faces - mean).square().sum())
    return (total - main) / total


def linear_error(
    source: FaceSource,
    building: Float[Tensor, "n targets"],
    others: Float[Tensor, "k targets"],
    landmarks: Int[Tensor, "66"],
) -> ModelError:
    """The errors on `others` of a linear model: mean + principal components of people's and of expressions' means."""
    people, faces, _ = _means(source, building)
    mean = people.mean(0)
    identity = torch.linalg.svd(people - mean, full_matrices=False).Vh[:IDENTITY_RANK]
    expression = torch.linalg.svd(faces - mean, full_matrices=False).Vh[:EXPRESSION_RANK]
    moves = (faces - mean) @ expression.mT @ expression

    def estimate(part: Float[Tensor, "m exps v 3"]) -> Float[Tensor, "m exps v 3"]:
        own = (part.flatten(2) - moves).mean(1) - mean
        neutral = mean + own @ identity.mT @ identity
        shapes: Tensor = neutral[:, None] + moves
        return shapes.reshape(part.shape)

    return _accumulate(((estimate(part), part) for part in identity_blocks(source, others)), landmarks)


def figures() -> dict[str, object]:
    """The printed figures."""
    source = load_source(torch.float64)
    model = load_default_face().double()
    topology = model.topology
    if topology is None:
        raise ValueError("the default model must have a topology; it has none")
    building, others = building_sliders().double(), held_out_sliders(source).double()
    marks = topology.landmark_vertices
    return {
        "building": asdict(model_error(model, source, building, model.identity_rows, marks)),
        "held_out": asdict(held_out_error(model, source, others, marks)),
        "linear_of_equal_size_held_out": asdict(linear_error(source, building, others, marks)),
        "interaction_share_of_variance": interaction_share(source, building),
        "sha256": model.sha256,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(figures(), indent=1) + "\n")
