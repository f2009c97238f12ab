"""A cascade as a .pt2 file that torch alone can run, compared with the package before it gets its name."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.cascade.export import MOST_FACES, CascadeProgram, export_program, probe
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.errors import FaceReconError
from facerecon_torch.files import replacing
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER

__all__ = ["DOCUMENT", "FORMAT", "VERSION", "ProgramDiffersError", "largest_gap", "save_program"]

FORMAT = "facerecon-program"
VERSION = 1
DOCUMENT = "facerecon.json"  # the name of the description inside the file
_BATCHES = (1, 2, 5)
# Of an output's largest number: sums of thousands of features in another order.
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-10}

Answers = dict[str, Tensor]


class ProgramDiffersError(FaceReconError, RuntimeError):
    """A program that was written does not answer as the package does."""


def save_program(
    model: FaceReconstructor, path: str | Path, *, cascade_sha256: str | None = None, vertices: bool = False
) -> dict[str, Any]:
    """Export `model`, on its device and in its dtype, to `path` (.pt2); returns the description that the file holds.

    The file is written aside, read back, and compared with the package on chance inputs before it is renamed. Raises
    ValueError for another suffix and ProgramDiffersError, leaving no file, where the answers differ by more than
    rounding.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"a program's file must end in .pt2; got {path}")
    program = CascadeProgram(model, vertices=vertices)
    recorded = export_program(program)
    about = _describe(model, program, cascade_sha256)
    with replacing(path) as part:
        with part.open("wb") as file:
            torch.export.save(recorded, file, extra_files={DOCUMENT: json.dumps(about)})
        with part.open("rb") as file:
            written = torch.export.load(file).module()
        _require_equal(program, written, model.dtype)
    return about


@torch.no_grad()
def largest_gap(program: CascadeProgram, other: Callable[[Tensor, Tensor], Answers], faces: int) -> dict[str, float]:
    """For every output the largest difference between the two, in parts of the output's largest number, on chance
    inputs for `faces` faces."""
    inputs = probe(program.reconstructor, faces, seed=faces)
    ours, theirs = program(*inputs), other(*inputs)
    if list(ours) != list(theirs):
        raise ProgramDiffersError(f"expected the outputs {list(ours)}; got {list(theirs)}")
    return {name: _gap(ours[name].double(), theirs[name].double()) for name in ours}


def _gap(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    largest = ours.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((ours - theirs).abs().max() / largest)


def _require_equal(program: CascadeProgram, written: Callable[[Tensor, Tensor], Answers], dtype: torch.dtype) -> None:
    for faces in _BATCHES:
        for name, gap in largest_gap(program, written, faces).items():
            if not gap <= _ROUNDING[dtype]:  # this form refuses NaN too
                raise ProgramDiffersError(
                    f"the written program must answer as the package does, to {_ROUNDING[dtype]:g} of the largest "
                    f"number of each output; {name} of {faces} faces differs by {gap:g}"
                )


def _describe(model: FaceReconstructor, program: CascadeProgram, cascade_sha256: str | None) -> dict[str, Any]:
    crop, cropper = model.spec.crop, model.solvers.cropper
    with torch.no_grad():
        answers = program(*probe(program.reconstructor, 1))
    tell = {name: ["b", *answer.shape[1:]] for name, answer in answers.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_with": {"facerecon-torch": _version("facerecon-torch"), "torch": torch.__version__},
        "model_sha256": model.face_model.sha256,
        "cascade_sha256": cascade_sha256,
        "convention": model.spec.convention,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch": [1, MOST_FACES],
        "crop": {"size": crop.size, "px_per_mm": crop.px_per_mm, "derotate": crop.derotate, "outside": crop.outside},
        "inputs": {
            "crops": {"shape": ["b", 3, crop.size, crop.size], "unit": "RGB in [0, 1]"},
            "landmarks": {
                "shape": ["b", 66, 2],
                "unit": "px of the crop, (0, 0) the first pixel's centre; NaN: missing",
            },
        },
        "outputs": {name: {"shape": shape, "unit": _UNITS[name]} for name, shape in tell.items()},
        "landmark_order": list(IBUG_OF_PAPER),
        "mean_landmarks": cropper.landmarks.tolist(),
        "crop_centre": cropper.centre.tolist(),
    }


_UNITS = {
    "identity": "weights",
    "expression": "weights",
    "rotation": "p = scale F (rotation v)_xy + translation with F = diag(1, -1)",
    "scale": "px of the crop per mm",
    "translation": "px of the crop",
    "degenerate": "true where the landmarks fix no camera",
    "landmarks_3d": "mm, model frame: +x image right, +y up, +z towards the viewer",
    "projected_2d": "px of the crop",
    "vertices": "mm, model frame",
}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
