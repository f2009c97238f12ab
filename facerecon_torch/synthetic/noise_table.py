"""Landmark detector errors as a table over yaw and pitch, and random errors drawn from it.

Frame of an error: mm in the image plane, +x image right, +y up, rotated back by the roll of the head. The table holds
yaw >= 0; an error at negative yaw is the mirror image of one at positive yaw. At each yaw node the error is
mean + pitch * slope + sum_k deviation_k z_k component_k + remainder * z, with independent standard normal z. The first
two terms are the detector's convention, what it means by each landmark; the others are its scatter.
"""

import json
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from facerecon_torch.checks import require_file, require_finite, require_shape
from facerecon_torch.errors import ModelFileError
from facerecon_torch.landmarks.scheme import MIRROR_66, N_LANDMARKS, check_convention

__all__ = ["NoiseTable", "load_noise_table", "mirror_errors", "noise_file", "sample_landmark_noise", "turn_errors"]

_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "synthetic"
_FORMAT = "facerecon_torch.landmark_noise/2"
_STEEPEST = 0.44  # rad of pitch (25 degrees): beyond it, the slope was not seen


@dataclass(frozen=True)
class NoiseTable:
    """Moments of the errors at yaw nodes (rad, ascending from 0), in mm. Raises ValueError where shapes disagree."""

    yaw: Float[Tensor, "nodes"]
    mean: Float[Tensor, "nodes 66 2"]  # at pitch 0
    slope: Float[Tensor, "nodes 66 2"]  # of the mean over pitch, mm per rad
    components: Float[Tensor, "components 66 2"]  # unit length
    deviation: Float[Tensor, "nodes components"]
    remainder: Float[Tensor, "nodes 66 2"]

    def __post_init__(self) -> None:
        nodes, components = len(self.yaw), len(self.components)
        require_shape("mean", self.mean, (nodes, N_LANDMARKS, 2))
        require_shape("slope", self.slope, (nodes, N_LANDMARKS, 2))
        require_shape("components", self.components, (components, N_LANDMARKS, 2))
        require_shape("deviation", self.deviation, (nodes, components))
        require_shape("remainder", self.remainder, (nodes, N_LANDMARKS, 2))
        for field in fields(self):
            require_finite(field.name, getattr(self, field.name))

    def at(self, yaw: Float[Tensor, "n"], pitch: Float[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [n, 66, 2], deviations [n, components] and remainder [n, 66, 2] at |yaw|, linear between nodes."""
        bend = pitch.clamp(-_STEEPEST, _STEEPEST)[:, None, None]
        position = torch.searchsorted(self.yaw, yaw.abs().contiguous()).clamp(1, len(self.yaw) - 1)
        low, high = self.yaw[position - 1], self.yaw[position]
        share = ((yaw.abs() - low) / (high - low)).clamp(0, 1)
        return (
            self.mean[position - 1].lerp(self.mean[position], share[:, None, None])
            + bend * self.slope[position - 1].lerp(self.slope[position], share[:, None, None]),
            self.deviation[position - 1].lerp(self.deviation[position], share[:, None]),
            self.remainder[position - 1].lerp(self.remainder[position], share[:, None, None]),
        )

    def save(self, path: Path, provenance: dict[str, object]) -> None:
        """Write the table, and `provenance` as JSON beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save({f.name: getattr(self, f.name).float().contiguous() for f in fields(self)}))
        path.with_suffix(".json").write_text(json.dumps({"format": _FORMAT, **provenance}, indent=1) + "\n")


def noise_file(convention: str) -> Path:
    """The committed table of the detectors of a convention. Raises ValueError for a name that is none."""
    check_convention(convention)
    return _FOLDER / f"landmark_noise_{convention}.safetensors"


@lru_cache(maxsize=4)
def load_noise_table(path: Path) -> NoiseTable:
    """The table of a file. Raises FileNotFoundError where it is missing, ModelFileError for another format."""
    require_file("the landmark noise table", path)
    require_file("the landmark noise table's description", path.with_suffix(".json"))
    form = json.loads(path.with_suffix(".json").read_text()).get("format")
    if form != _FORMAT:
        raise ModelFileError(f"{path.with_suffix('.json')} must have format {_FORMAT}; got {form!r}")
    tensors = load_file(path)
    names = {f.name for f in fields(NoiseTable)}
    if set(tensors) != names:
        raise ModelFileError(f"{path} must hold {sorted(names)}; got {sorted(tensors)}")
    return NoiseTable(**tensors)


def mirror_errors(errors: Float[Tensor, "n 66 2"]) -> Float[Tensor, "n 66 2"]:
    """The errors in the mirrored image."""
    return errors[:, list(MIRROR_66)] * errors.new_tensor([-1.0, 1.0])


def turn_errors(errors: Float[Tensor, "n 66 2"], angle: Float[Tensor, "n"]) -> Float[Tensor, "n 66 2"]:
    """The errors (+y up) rotated counter-clockwise by `angle` rad."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return errors @ turn


def sample_landmark_noise(
    angles: Float[Tensor, "n 3"], px_per_mm: Float[Tensor, "n"], table: NoiseTable, generator: torch.Generator
) -> Float[Tensor, "n 66 2"]:
    """Random landmark errors in px of the image (+y down), on the device and in the dtype of `angles`.

    Args:
        angles: yaw, pitch and roll in rad; beyond the table's last node its last row is used.
        px_per_mm: scale of the face in the image.
        table: of the detector.
        generator: of the CPU, where the numbers are drawn.
    """
    yaw, pitch, _ = angles.detach().cpu().to(table.mean.dtype).unbind(-1)
    mean, deviation, remainder = table.at(yaw, pitch)
    common = torch.randn(deviation.shape, generator=generator) * deviation
    errors = mean + torch.einsum("nk,kpc->npc", common, table.components)
    errors = errors + remainder * torch.randn(remainder.shape, generator=generator)
    errors = torch.where((yaw < 0)[:, None, None], mirror_errors(errors), errors).to(angles)
    flip = angles.new_tensor([1.0, -1.0])
    return turn_errors(errors, angles[:, 2]) * flip * px_per_mm[:, None, None]
