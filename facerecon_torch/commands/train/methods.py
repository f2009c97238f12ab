"""The methods that every report compares: cascades over chosen feature blocks, and the baselines without features."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.commands.train.evaluate import Truth
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression.cascade import CascadeSpec
from facerecon_torch.runtime.ranks import SINGLE, Ranks
from facerecon_torch.structures import FaceParameters

__all__ = [
    "CASCADES",
    "METHODS",
    "SELECTION_VERTICES",
    "block_spec",
    "bias_fit",
    "shape_error",
]

BLOCKS = ("hog", "ld")
CASCADES: dict[str, tuple[str, ...]] = {"ld_only": ("ld",), "hog_only": ("hog",), "cascade": ("hog", "ld")}
METHODS = ("mean_face", "landmark_fit", "landmark_fit_bias", *CASCADES)
_ERROR_VERTICES = 2**22  # whose distances stand in memory at once: 50 MB of float32
SELECTION_VERTICES = 200  # of the whole face, evenly spread over the list: enough to rank penalties


def bias_fit(
    start: Float[Tensor, "n parameters"], target: Float[Tensor, "n parameters"], ranks: Ranks = SINGLE
) -> Float[Tensor, "parameters"]:
    """The mean training residual of the landmark fit over all processes: the constant of `landmark_fit_bias`."""
    total = (target - start).sum(dim=0, dtype=torch.float64)
    both = ranks.add_(torch.cat([total, total.new_tensor([float(len(start))])]))
    return (both[:-1] / both[-1]).to(start.dtype)


def shape_error(
    model: FaceModel, truth: Truth, vertices: int | None = None, *, ranks: Ranks = SINGLE
) -> Callable[[Tensor], Tensor]:
    """x -> MAE in mm against M over the samples of all processes, no alignment (Eq. 15): whole face, or `vertices` of
    it, evenly spread."""
    topology = model.topology
    if topology is None:
        raise ValueError("choosing penalties needs a whole model; this one was restricted to some vertices")
    whole = topology.whole_vertices
    if vertices is not None and vertices < len(whole):
        whole = whole[
            torch.linspace(0, len(whole) - 1, vertices, dtype=torch.float32, device=whole.device).round().long()
        ]
    small = model.restrict(whole)
    size = max(1, _ERROR_VERTICES // len(whole))
    parts = [slice(k, min(k + size, len(truth))) for k in range(0, len(truth), size)]
    like = model.identity_mean
    # Few vertices are asked for again and again and are held; the whole face is read when it is asked for.
    held = [truth.true_meshes(part, like, whole) for part in parts] if vertices is not None else None

    def error(flat: Tensor) -> Tensor:
        parameters = FaceParameters.from_flat(flat, model.n_identity)
        total = torch.zeros(2, dtype=torch.float64, device=flat.device)
        for k, part in enumerate(parts):
            want = truth.true_meshes(part, like, whole) if held is None else held[k]
            gap = small.vertices(parameters.identity[part], parameters.expression[part]) - want
            total[0] += torch.linalg.vector_norm(gap, dim=-1).sum(dtype=torch.float64)
        total[1] = len(flat) * len(whole)
        ranks.add_(total)
        return total[0] / total[1]

    return error


def block_spec(spec: CascadeSpec, features: JointSpec) -> CascadeSpec:
    """`spec` for these feature blocks: relative weights are searched only where there are two of them."""
    grid = spec.ridge.block_weights_grid if len(features.blocks) > 1 else None
    return replace(spec, ridge=replace(spec.ridge, block_sizes=features.block_sizes, block_weights_grid=grid))
