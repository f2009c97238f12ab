"""Seconds from stored parameters to metrics.json: random faces of the default model, as many as Bosphorus has.

python -m benchmarks.stored_evaluation [METHODS] [DEVICE]
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.evaluation.output import write_metrics
from facerecon_torch.evaluation.study import Study, TestedFaces
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import FaceParameters

IMAGES, SUBJECTS = 4666, 105


def draw(model: FaceModel, generator: torch.Generator) -> FaceParameters:
    """Random parameters of IMAGES faces."""
    columns = (model.identity_mean, model.identity_variance), (model.expression_mean, model.expression_variance)
    drawn = [
        mean.cpu() + var.cpu().sqrt() * torch.randn(IMAGES, len(mean), generator=generator) for mean, var in columns
    ]
    return FaceParameters(*model.to("cpu").fix_gauge(*drawn))


def main(arguments: Sequence[str]) -> int:
    """Print the seconds and the peak memory; returns the exit status."""
    methods, device = int(arguments[0]) if arguments else 1, torch.device(arguments[1] if len(arguments) > 1 else "cpu")
    generator, model = torch.Generator().manual_seed(0), load_default_face()
    truth = draw(model, generator)
    meshes = torch.cat(
        [model.vertices(part.identity, part.expression) for part in (truth[k : k + 256] for k in range(0, IMAGES, 256))]
    )
    faces = FaceSet(
        name="random",
        images=tuple(Path(f"{k}.jpg") for k in range(IMAGES)),
        subjects=torch.arange(IMAGES) % SUBJECTS,
        landmarks=torch.zeros(IMAGES, 66, 2),
        meshes=meshes,
        covered=torch.rand(meshes.shape[:2], generator=generator) < 0.75,
        kinds=tuple(("N_N", "E_HAPPY", "YR_R10")[k % 3] for k in range(IMAGES)),
    )
    tested = TestedFaces(faces=faces, parameters=truth.to(device), folds=torch.zeros(IMAGES, dtype=torch.long))
    estimates = {name: draw(model, generator) for name in ["ours", *(f"other{k}" for k in range(1, methods))]}
    model = model.to(device)
    began, used = time.perf_counter(), time.process_time()
    study = Study.measured(
        model=model, tested=tested, estimates=estimates, name="full", protocol="none", stages={}, training=[],
        reference="ours",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_metrics(Path(folder), {"full": study}, {}, generator)
        size = (Path(folder) / "metrics.json").stat().st_size
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    sys.stdout.write(
        f"{IMAGES} images x {model.n_vertices} vertices, {methods} methods, {device}, "
        f"{torch.get_num_threads()} threads: "
        f"{seconds:.1f} s ({processor:.1f} s of processor), metrics.json of {size} bytes, "
        f"{psutil.Process().memory_info().rss / 2**20:.0f} MB resident\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
