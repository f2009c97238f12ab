"""Reconstruction from real detections on renders: each detector with the shipped cascade of its landmarks.

    python -m benchmarks.accuracy.real_detections landmarks=mediapipe,dlib sets=test,shifted output=results.json
    python -m benchmarks.accuracy.real_detections landmarks=mediapipe cascade=shipped,RUN/cascade.safetensors

Errors are mean vertex distances to the true meshes in mm over the whole face, after a similarity, on the images where
every detector finds the face. Intervals resample people; differences are paired, from the first cascade. The mean face
and each cascade's landmark fit stand beside the cascades.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.files import write_json
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.metrics.bootstrap import Interval, paired_bootstrap, subject_interval
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.synthetic.dataset import SyntheticSet

from ..keys import read_keys
from .baselines import shapes
from .detection import own_faces, renders
from .rendered import reconstructed

__all__ = ["main"]

_DEFAULTS = {"landmarks": "mediapipe,dlib", "sets": "test,shifted", "cascade": "shipped", "output": ""}


def main(words: Sequence[str]) -> int:
    """Print the table of every set, and write it.

    Raises:
        ValueError: an unknown key.
        DetectorError: a detector cannot run.
    """
    keys = _DEFAULTS | read_keys(words, _DEFAULTS)
    detectors, cascades = keys["landmarks"].split(","), keys["cascade"].split(",")
    report = {}
    for family in keys["sets"].split(","):
        rendered = renders(family)
        errors, found = _errors(rendered, detectors, cascades)
        report[family] = _summary(errors, rendered.subjects, found)
        _say(family, report[family])
    if keys["output"]:
        write_json(Path(keys["output"]), report)
    return 0


def _errors(
    rendered: SyntheticSet, detectors: Sequence[str], cascades: Sequence[str]
) -> tuple[dict[str, Tensor], Bool[Tensor, "n"]]:
    """By method the error of every image, and where all detectors found the face."""
    errors, found = dict[str, Tensor](), torch.ones(len(rendered), dtype=torch.bool)
    pictures = [read_pixels(file) for file in rendered.images]
    for name in detectors:
        points = own_faces(build_detector(name), pictures, rendered.landmarks)
        seen = torch.isfinite(points).flatten(1).all(1)
        found &= seen
        for cascade in cascades:
            model = FaceReconstructor.from_pretrained(None if cascade == "shipped" else cascade, detector=name)
            title = name if cascade == "shipped" else f"{name}, {cascade}"
            rows, standing = model.face_model.topology.whole_vertices, shapes(model, points.nan_to_num(0.0))
            cascaded = torch.zeros_like(standing["mean face"])
            cascaded[seen] = torch.cat([face.vertices for face in reconstructed(model, pictures, points, seen)])
            meshes = {
                "mean face": standing["mean face"],
                f"landmark fit, {title}": standing["landmark fit"],
                f"cascade, {title}": cascaded,
            }
            for method, vertices in meshes.items():
                errors[method] = vertex_errors(vertices, rendered.vertices, "similarity", rows=rows).mae
    return errors, found


def _summary(
    errors: Mapping[str, Tensor], subjects: Tensor, found: Bool[Tensor, "n"]
) -> dict[str, dict[str, list[float | None]]]:
    """Mean and interval of every method, and of the differences from the first cascade."""
    people = subjects[found]

    def listed(interval: Interval) -> list[float | None]:
        return [None if v is None else round(v, 4) for v in (interval.mean, interval.low, interval.high)]

    first = next(name for name in errors if name.startswith("cascade"))

    def difference(values: Tensor) -> list[float | None]:
        generator = torch.Generator().manual_seed(0)
        return listed(paired_bootstrap(values[found], errors[first][found], people, generator))

    return {
        "images": {"found by all, all": [int(found.sum()), len(found)]},
        "error_mm": {
            name: listed(subject_interval(values[found], people, torch.Generator().manual_seed(0)))
            for name, values in errors.items()
        },
        f"minus {first}": {name: difference(values) for name, values in errors.items() if name != first},
    }


def _say(family: str, table: Mapping[str, Mapping[str, Sequence[float | None]]]) -> None:
    for title, rows in table.items():
        sys.stdout.write(f"{family}, {title}\n")
        for name, values in rows.items():
            sys.stdout.write(f"  {name:<32}" + "".join(f"{json.dumps(v):>10}" for v in values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
