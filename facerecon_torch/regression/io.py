"""A cascade as named tensors and a plain dictionary, and back."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.errors import ModelFileError
from facerecon_torch.regression.cascade import Cascade
from facerecon_torch.regression.ridge import Ridge
from facerecon_torch.regression.stage import Stage

__all__ = ["cascade_from_tensors", "cascade_meta", "cascade_to_tensors"]

PARTS = ("weight", "weight_scale", "bias", "block_scales")


def cascade_to_tensors(cascade: Cascade, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The named tensors of all stages.

    Args:
        cascade: to be stored.
        dtype: of the weights (None: as they are). float16 has 11 bits but a narrow range, so weights are stored over
            the largest of the same target: they are off by at most 2^-11 of it.

    Returns:
        `stages.K.weight`, `.weight_scale`, `.bias` and `.block_scales`, with weight = stored weight x weight_scale.

    Example:
        >>> again = cascade_from_tensors(cascade_to_tensors(cascade), cascade_meta(cascade))
    """
    tensors: dict[str, Tensor] = {}
    for k, stage in enumerate(cascade.stages):
        stored, scale = _normalised(stage.ridge.weight, dtype)
        parts = (stored, scale, stage.ridge.bias, stage.block_scales)
        tensors |= {f"stages.{k}.{name}": part.contiguous() for name, part in zip(PARTS, parts, strict=True)}
    return tensors


def _normalised(
    weight: Float[Tensor, "d t"], dtype: torch.dtype | None
) -> tuple[Float[Tensor, "d t"], Float[Tensor, "t"]]:
    if dtype is None or dtype == weight.dtype:
        return weight, torch.ones_like(weight[0])
    largest = weight.abs().amax(0)
    scale = torch.where(largest > 0, largest, 1.0)
    return (weight / scale).to(dtype), scale


def cascade_meta(cascade: Cascade) -> dict[str, Any]:
    """Block sizes, penalty (None: infinite) and form of each stage, as plain JSON values.

    Example:
        >>> json.dumps(cascade_meta(cascade))
    """
    return {
        "stages": [
            {
                "block_sizes": list(stage.block_sizes),
                "penalty": stage.ridge.penalty if math.isfinite(stage.ridge.penalty) else None,
                "form": stage.ridge.form,
            }
            for stage in cascade.stages
        ]
    }


def cascade_from_tensors(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Cascade:
    """The float32 cascade of `cascade_to_tensors` and `cascade_meta`.

    Args:
        tensors: by name; those without the prefix `stages.` are ignored.
        meta: of the stages.

    Raises:
        ModelFileError: naming the entry that is missing, has the wrong shape or is not finite.

    Example:
        >>> cascade_from_tensors(load_file("cascade.safetensors"), meta)
    """
    entries = meta.get("stages")
    if not isinstance(entries, list):
        raise ModelFileError(f"meta must hold a list under 'stages'; got {type(entries).__name__}")
    described = {f"stages.{k}.{name}" for k in range(len(entries)) for name in PARTS}
    extra = sorted(name for name in tensors if name.startswith("stages.") and name not in described)
    if extra:
        raise ModelFileError(f"meta describes {len(entries)} stages, which do not include the tensors {extra}")
    return Cascade(tuple(_read_stage(tensors, entry, k) for k, entry in enumerate(entries)))


def _read_stage(tensors: Mapping[str, Tensor], entry: Mapping[str, Any], k: int) -> Stage:
    missing = {"block_sizes", "penalty", "form"} - set(entry)
    if missing or entry["form"] not in ("primal", "dual"):
        raise ModelFileError(f"stage {k} of meta must hold block_sizes, penalty and form (primal or dual); got {entry}")
    sizes = tuple(int(size) for size in entry["block_sizes"])
    weight = _read(tensors, f"stages.{k}.weight", (sum(sizes), None))
    targets = weight.shape[1]
    scale = _read(tensors, f"stages.{k}.weight_scale", (targets,))
    bias = _read(tensors, f"stages.{k}.bias", (targets,))
    block_scales = _read(tensors, f"stages.{k}.block_scales", (len(sizes),))
    penalty = math.inf if entry["penalty"] is None else float(entry["penalty"])
    ridge = Ridge(weight.float() * scale.float(), bias.float(), penalty, entry["form"])
    return Stage(ridge, sizes, block_scales.float())


def _read(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    if name not in tensors:
        raise ModelFileError(f"tensor {name} is missing; got {sorted(tensors)}")
    value = tensors[name]
    fits = value.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, value.shape))
    if not fits or not value.is_floating_point():
        raise ModelFileError(f"{name} must be floating point of shape {shape}; got {value.dtype} {tuple(value.shape)}")
    if not bool(torch.isfinite(value).all()):
        raise ModelFileError(f"{name} must be finite; got NaN or infinity")
    return value
