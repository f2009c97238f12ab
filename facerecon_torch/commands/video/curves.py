"""Expression weights and pose of a track as a CSV file and as curves in a PNG."""

import csv
import importlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.errors import MissingExtraError
from facerecon_torch.files import replacing, write_bytes
from facerecon_torch.model.named_weights import NEUTRAL

__all__ = ["draw_curves", "write_curves"]

_POSE = ("yaw", "pitch", "roll")
_DRAWN = 8  # names with the largest ranges
_DIGITS = 5


def write_curves(path: Path, faces: Reconstruction, frames: Sequence[int], seconds: Float[Tensor, "frames"]) -> None:
    """Write one row per frame with the face: its number from 0, its time, weights in [0, 1] and degrees."""
    weights = faces.expression_weights
    names = [name for name in weights if name != NEUTRAL]
    columns = torch.cat([torch.stack([weights[name] for name in names], -1), faces.euler_degrees], dim=-1).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame", "seconds", *names, *_POSE])
    for frame, time, row in zip(frames, seconds.tolist(), columns):
        writer.writerow([frame, round(time, _DIGITS), *(round(value, _DIGITS) for value in row)])
    write_bytes(path, text.getvalue().encode())


def draw_curves(path: Path, faces: Reconstruction, seconds: Float[Tensor, "frames"]) -> None:
    """Draw the weights that change most, and the pose, over the seconds.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(10, 6), layout="constrained")
    except ImportError as error:
        raise MissingExtraError("curves", "matplotlib", "video") from error
    above, below = figure.subplots(2, 1, sharex=True)
    weights = {name: values for name, values in faces.expression_weights.items() if name != NEUTRAL}
    moving = sorted(weights, key=lambda name: float(weights[name].amin() - weights[name].amax()))[:_DRAWN]
    times = seconds.tolist()
    for name in moving:
        above.plot(times, weights[name].tolist(), label=name)
    for name, angles in zip(_POSE, faces.euler_degrees.unbind(-1)):
        below.plot(times, angles.tolist(), label=name)
    above.set_ylabel("weight")
    above.set_ylim(-0.02, 1.02)
    below.set_ylabel("degrees")
    below.set_xlabel("seconds")
    for plot in (above, below):
        plot.grid(True, alpha=0.3)
        plot.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    with replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=100, metadata={"Software": "facerecon_torch"})
