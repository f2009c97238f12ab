"""Errors of a cascade on people of another face model, photographed by the product and found by a real detector.

    python -m benchmarks.accuracy.other_people model=ict.safetensors output=people.json

`cascade=FILE` and `cascade_model=FILE` take a cascade other than the shipped one and its face model; `pictures=FOLDER`
keeps the photographs. Errors are mean distances in mm from the true mesh to the answer within the mask of the NoW
protocol, after a similarity. Intervals resample people; differences from the cascade are paired.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.files import write_json
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.metrics.bootstrap import Interval, paired_bootstrap, subject_interval
from facerecon_torch.metrics.scan import scan_to_mesh
from facerecon_torch.model.load import ModelSpec, load_face_model
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.people.model_people import load_model_people, people_digest
from facerecon_torch.synthetic.spec import SyntheticSpec

from ..keys import read_keys
from .baselines import SEVEN_ROWS, shapes
from .detection import own_faces
from .rendered import reconstructed

__all__ = ["main"]

_DEFAULTS = {"model": "", "people": "60", "images": "4", "seed": "8101", "landmarks": "mediapipe", "cascade": "",
             "cascade_model": "", "pictures": "", "workers": "2", "output": ""}  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Print the errors of mean face, landmark fit and cascade, and write them.

    Raises:
        ValueError: an unknown key, or no model.
        DetectorError: the detector cannot run.
    """
    keys = _DEFAULTS | read_keys(words, _DEFAULTS)
    if not keys["model"]:
        raise ValueError("model must be the native file of a face model; got nothing")
    face = FaceReconstructor.from_pretrained(
        keys["cascade"] or None, face_model=keys["cascade_model"] or None, detector=keys["landmarks"]
    )
    with TemporaryDirectory() as folder:
        rendered = _photographed(keys, Path(keys["pictures"] or folder))
        truth = load_face_model(ModelSpec(path=keys["model"])).topology
        if truth is None:
            raise ValueError(f"model must have triangles and landmarks; {keys['model']} has none")
        errors, kept = _errors(face, rendered, truth.landmark_vertices[SEVEN_ROWS], keys["landmarks"])
    report = _summary(errors, rendered.subjects[kept]) | {"images": [len(kept), len(rendered)]}
    sys.stdout.write("\n".join(f"{name:<28}{json.dumps(values)}" for name, values in report.items()) + "\n")
    if keys["output"]:
        write_json(Path(keys["output"]), report)
    return 0


def _photographed(keys: dict[str, str], folder: Path) -> SyntheticSet:
    model = Path(keys["model"])
    spec = SyntheticSpec(
        subjects=int(keys["people"]),
        images_per_subject=int(keys["images"]),
        seed=int(keys["seed"]),
        family="test",
        model=people_digest(load_model_people(model).model),
    )
    return render_set(spec, folder, model=model, workers=int(keys["workers"]))


def _errors(
    face: FaceReconstructor, rendered: SyntheticSet, seven: Int[Tensor, "7"], landmarks: str
) -> tuple[dict[str, Float[Tensor, "found"]], Int[Tensor, "found"]]:
    """By method the error of every image on which the detector finds the face, and the rows of these images."""
    pictures = [read_pixels(file) for file in rendered.images]
    points = own_faces(build_detector(landmarks), pictures, rendered.landmarks)
    found = torch.isfinite(points).flatten(1).all(1)
    cascade = torch.cat([one.vertices for one in reconstructed(face, pictures, points, found)])
    meshes_by_method = {**shapes(face, points[found]), "cascade": cascade}
    kept = torch.nonzero(found)[:, 0]
    topology = face.face_model.topology
    if topology is None:
        raise ValueError("the cascade's face model must be whole; this one was restricted to some vertices")
    own_seven = topology.landmark_vertices[SEVEN_ROWS]
    errors: dict[str, list[float]] = {name: [] for name in meshes_by_method}
    for name, meshes in meshes_by_method.items():
        for scan, mesh in zip(rendered.vertices[kept], meshes, strict=True):
            errors[name].append(scan_to_mesh(scan, scan[seven], mesh, topology.triangles, mesh[own_seven]).mean)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in errors.items()}, kept


def _summary(errors: dict[str, Tensor], people: Int[Tensor, "found"]) -> dict[str, list[float | None]]:
    def listed(interval: Interval) -> list[float | None]:
        return [None if v is None else round(v, 4) for v in (interval.mean, interval.low, interval.high)]

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    report = {name: listed(subject_interval(values, people, seeded())) for name, values in errors.items()}
    for name, values in errors.items():
        if name != "cascade":
            ratio = paired_bootstrap(errors["cascade"], values, people, seeded(), statistic="ratio")
            report[f"cascade / {name}"] = listed(ratio)
    return report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
