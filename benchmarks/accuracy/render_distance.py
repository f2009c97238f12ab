"""How far photographs are from renders in the features of the regressor.

    python -m benchmarks.accuracy.render_distance photos=portrait.jpg,other.jpg scan=FOLDER people=60 images=2

Pictures: `photos`, the textured scan in `scan` seen from the front, and scikit-image's astronaut. HOG is what the first
stage of the shipped cascade reads: around the projected landmark fit of mediapipe's points, in the canonical crop. Each
feature is standardised by mean and deviation over renders of the training family; a distance is the root mean square
of the standardised features, of one picture or of the mean over several. Renders of the test family, as many as there
are pictures, have the distance that no difference in kind explains: the floor. Faces turned further than
`degrees` (25) are left out. Sets are rendered in the cache folder; `reference=FOLDER` and `held_out=FOLDER` are
rendered sets that are taken instead.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.train.sets import synthetic_folder
from facerecon_torch.features.hog import hog_field
from facerecon_torch.fitting.crop import apply_affine
from facerecon_torch.geometry.projection import project
from facerecon_torch.images.convert import as_pixels
from facerecon_torch.images.read import Pixels, read_pixels
from facerecon_torch.landmarks.detector import choose_faces
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.synthetic.dataset import SyntheticSet, load_set, render_set
from facerecon_torch.synthetic.spec import SyntheticSpec

from ..keys import read_keys
from .detection import detected, example_picture, lies_among
from .scan_photo import photograph, read_scan

__all__ = ["Distances", "main", "measure_distances"]

_KEYS = ("photos", "scan", "people", "images", "degrees", "reference", "held_out")
_BATCH = 32
_LEAST = 0.1  # of the median deviation
_DRAWS = 200  # groups of held-out renders


@dataclass(frozen=True)
class Distances:
    """Root mean squares of standardised features.

    Attributes:
        pictures: of every picture.
        mean: of the mean over the pictures.
        renders: of every held-out render.
        floor: of the means over as many held-out renders as there are pictures, root mean square over random groups.
    """

    pictures: Float[Tensor, "n"]
    mean: float
    renders: Float[Tensor, "m"]
    floor: float

    @property
    def excess(self) -> float:
        """The part of `mean` that the floor does not explain: squares of independent parts add up."""
        return max(0.0, self.mean**2 - self.floor**2) ** 0.5


def measure_distances(
    pictures: Float[Tensor, "n d"],
    reference: Float[Tensor, "r d"],
    held_out: Float[Tensor, "m d"],
    generator: torch.Generator,
) -> Distances:
    """The distances of pictures and held-out renders from reference renders. Deviations count as a tenth of their
    median at least: a feature that hardly varies over few renders would outweigh all others.

    Raises:
        ValueError: fewer than two reference renders, or fewer held-out renders than pictures.
    """
    if len(reference) < 2 or not 1 <= len(pictures) <= len(held_out):
        raise ValueError(
            "there must be two reference renders, a picture, and as many held-out renders as pictures; got "
            f"{len(reference)}, {len(pictures)} and {len(held_out)}"
        )
    deviation, middle = torch.std_mean(reference, dim=0)
    spread = deviation.clamp_min(_LEAST * float(deviation.median()))
    photos, renders = ((rows - middle) / spread for rows in (pictures, held_out))
    groups = [torch.randperm(len(renders), generator=generator)[: len(photos)] for _ in range(_DRAWS)]
    squares = [float(renders[group].mean(0).square().mean()) for group in groups]
    return Distances(
        pictures=_size(photos),
        mean=float(_size(photos.mean(0))),
        renders=_size(renders),
        floor=(sum(squares) / len(squares)) ** 0.5,
    )


def _size(rows: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    return rows.square().mean(-1).sqrt()


def main(words: Sequence[str]) -> int:
    """Print the distances.

    Raises:
        ValueError: an unknown key, or too few pictures or renders.
        DetectorError: mediapipe's models cannot run.
    """
    keys = read_keys(words, _KEYS)
    model = FaceReconstructor.from_pretrained(detector="mediapipe")
    listed = _pictures(keys)
    photos, seen = _described(model, list(listed.values()), [None] * len(listed))
    names = [list(listed)[row] for row in seen]
    degrees = float(keys.get("degrees", "25"))
    reference, held_out = (_renders(model, keys, name, degrees) for name in ("reference", "held_out"))
    measured = measure_distances(photos, reference, held_out, torch.Generator().manual_seed(0))
    for name, distance in zip(names, measured.pictures.tolist()):
        _say(name, f"{distance:.3f}")
    low, middle, high = torch.quantile(measured.renders, torch.tensor([0.05, 0.5, 0.95])).tolist()
    _say(f"a held-out render, {len(measured.renders)}", f"{middle:.3f}  (5 % {low:.3f}, 95 % {high:.3f})")
    _say(f"mean of the {len(names)} pictures", f"{measured.mean:.3f}")
    _say(f"means of {len(names)} held-out renders", f"{measured.floor:.3f}")
    _say(f"excess over that, {len(reference)} reference renders", f"{measured.excess:.3f}")
    return 0


def _say(label: str, value: str) -> None:
    sys.stdout.write(f"{label:<48}{value}\n")


def _pictures(keys: Mapping[str, str]) -> dict[str, Pixels]:
    named = {Path(word).stem: read_pixels(word) for word in filter(None, keys.get("photos", "").split(","))}
    if "scan" in keys:
        scan = photograph(read_scan(Path(keys["scan"])))
        named[Path(keys["scan"]).name] = as_pixels(scan)
    return named | {"astronaut": read_pixels(example_picture("astronaut.png"))}


def _renders(model: FaceReconstructor, keys: Mapping[str, str], name: str, degrees: float) -> Float[Tensor, "n d"]:
    """The features of a rendered set."""
    rendered = load_set(Path(keys[name])) if name in keys else _rendered(keys, name)
    near = rendered.angles.abs().amax(1).rad2deg() <= degrees
    rows = torch.nonzero(near)[:, 0].tolist()
    pictures = [read_pixels(rendered.images[row]) for row in rows]
    return _described(model, pictures, [rendered.landmarks[row] for row in rows])[0]


def _rendered(keys: Mapping[str, str], name: str) -> SyntheticSet:
    people, images = int(keys.get("people", "60")), int(keys.get("images", "2"))
    family = {"reference": "train", "held_out": "test"}[name]
    spec = SyntheticSpec(subjects=people, images_per_subject=images, family=family)
    return render_set(spec, synthetic_folder(spec, None))


def _described(
    model: FaceReconstructor, pictures: Sequence[Pixels], truth: Sequence[Tensor | None]
) -> tuple[Float[Tensor, "found d"], list[int]]:
    """The HOG features of the face in each picture, and the pictures that have one: of a render the face that lies
    among its true landmarks, of a photograph the largest."""
    points, seen = [], []
    for row, faces in enumerate(detected(model.landmark_detector, pictures)):
        own = [face for face in faces if truth[row] is None or lies_among(face.points, truth[row])]
        if own:
            points.append(to_paper66(choose_faces(own)[0].points).float())
            seen.append(row)
    parts = []
    for start in range(0, len(seen), _BATCH):
        batch = slice(start, start + _BATCH)
        parts.append(_hog(model, [pictures[row] for row in seen[batch]], torch.stack(points[batch])))
    return torch.cat(parts), seen


@torch.no_grad()
def _hog(model: FaceReconstructor, pictures: Sequence[Pixels], landmarks: Float[Tensor, "n 66 2"]) -> Tensor:
    """The HOG features [n, d] that the first stage reads."""
    camera, fit = model.locate(landmarks)
    crops = model.solvers.cropper.crop(pictures, camera)
    fitter = model.solvers.fitter
    seen, _, _ = fitter.refine(fit.parameters, landmarks, fit.camera)
    shapes, _ = fitter.landmarks(fit.parameters, seen)
    projected = apply_affine(project(shapes, seen), crops.to_crop)
    return hog_field(crops.image, model.spec.features.hog)(projected).flatten(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
