"""Measures of plausibility for faces and for spoilt landmarks, and the share that the limits mark.

    python -m benchmarks.accuracy.plausibility set=FOLDER,FOLDER detector=mediapipe draws=3 penalty=64,16
    python -m benchmarks.accuracy.plausibility set=FOLDER cascade=cascade.safetensors images=120

`set` are rendered sets (`synthetic.dataset.load_set`). Their true landmarks with errors drawn from both noise tables,
and the points that `detector` finds, are faces; the same points in wrong orders are not. Without `cascade` the measures
are those of landmark fits with each `penalty` (Eq. 7); with it, of its reconstructions from the sets' photographs.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.plausibility import Plausibility, measure_plausibility
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.registry import build_detector, find_convention
from facerecon_torch.landmarks.scheme import CONVENTIONS, N_INNER, to_paper66
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import Camera, Detection
from facerecon_torch.synthetic.dataset import SyntheticSet, load_set
from facerecon_torch.synthetic.noise_table import load_noise_table, noise_file, sample_landmark_noise

from ..keys import read_keys

__all__ = ["main", "spoilt"]

_KEYS = ("set", "detector", "draws", "penalty", "cascade", "images")
_QUANTILES = (0.0, 0.01, 0.5, 0.99, 0.999, 1.0)
_COLUMNS = ("residual", "contour_residual", "shape_distance", "view_angle", "proportion")
_SIDE = 640.0  # px of the pictures, in which points are mirrored
_PROFILE = 60.0, 90.0  # degrees of yaw of simulated profiles
_FALSE_MM = 30.0  # mean error from which a detection lies on no face


@dataclass(frozen=True)
class _Points:
    """Landmarks and the photographs that they belong to."""

    name: str
    convention: str
    points: Float[Tensor, "n 66 2"]
    files: tuple[Path, ...]  # empty for points without a picture
    scores: Float[Tensor, "n"] | None = None  # of detections


_Measure = Callable[[_Points], Plausibility]


def spoilt(
    points: Float[Tensor, "n 66 2"], generator: torch.Generator
) -> Iterator[tuple[str, Float[Tensor, "n 66 2"]]]:
    """Wrong landmarks, by the name of the mistake."""
    x, y = points.unbind(-1)
    yield "contour first", points.roll(points.shape[1] - N_INNER, dims=1)
    yield "reversed order", points.flip(1)
    yield "shifted by one", points.roll(1, dims=1)
    yield "random order", points[:, torch.randperm(points.shape[1], generator=generator)]
    yield "all x, then all y", torch.cat([x, y], dim=1).reshape(points.shape)
    yield "y before x", points.flip(-1)
    yield "mirrored", torch.stack([_SIDE - 1 - x, y], dim=-1)
    yield "y upwards", torch.stack([x, _SIDE - 1 - y], dim=-1)
    yield "random points", _SIDE * torch.rand(points.shape, generator=generator)
    yield "x stretched by 2", points * points.new_tensor([2.0, 1.0])
    yield "y stretched by 2", points * points.new_tensor([1.0, 2.0])
    yield "x stretched by 4/3", points * points.new_tensor([4 / 3, 1.0])
    yield "upside down", _SIDE - 1 - points
    yield "of the next image", points.roll(1, dims=0)
    yield "half mirrored", _half_mirrored(points)


def _half_mirrored(points: Float[Tensor, "n 66 2"]) -> Float[Tensor, "n 66 2"]:
    """A detector that puts the left half of a head where the right half is."""
    x, y = points.unbind(-1)
    middle = x[:, :N_INNER].mean(1, keepdim=True)
    return torch.stack([middle + (x - middle).abs(), y], dim=-1)


def main(words: Sequence[str]) -> int:
    """Print the table.

    Raises:
        ValueError: an unknown key, or no set.
    """
    keys = read_keys(words, _KEYS)
    if not keys.get("set"):
        raise ValueError("set must be one folder of a rendered set or several")
    sets = [load_set(Path(folder)) for folder in keys["set"].split(",")]
    draws, images = int(keys.get("draws", "1")), int(keys["images"]) if "images" in keys else None
    generator, model = torch.Generator().manual_seed(0), load_default_face()
    points = list(_all_points(sets, keys.get("detector"), draws, model, generator))
    if "cascade" in keys:
        reconstructor = FaceReconstructor.from_pretrained(keys["cascade"])
        kept = [_some(one, images) for one in points if one.files]
        _print_table(keys["cascade"], kept, lambda one: _reconstructed(one, reconstructor))
        return 0
    for penalty in map(float, keys.get("penalty", "64").split(",")):
        fitter = LandmarkFitter(model, FitSpec(identity_penalty=penalty, expression_penalty=penalty))
        _print_table(f"landmark fit, penalty {penalty:g}", points, lambda one, f=fitter: _fitted(one, f, model))
    return 0


def _all_points(
    sets: Sequence[SyntheticSet], detector: str | None, draws: int, model: FaceModel, generator: torch.Generator
) -> Iterator[_Points]:
    for convention in CONVENTIONS:
        table = load_noise_table(noise_file(convention))
        drawn = [
            one.landmarks + sample_landmark_noise(one.angles, one.camera.scale, table, generator)
            for one in sets
            for _ in range(draws)
        ]
        files = tuple(file for one in sets for _ in range(draws) for file in one.images)
        yield _Points(f"{convention}: faces", convention, torch.cat(drawn), files)
        angles, scale, turned = _profiles(sets, model, generator)
        profiles = turned + sample_landmark_noise(angles, scale, table, generator)
        yield _Points(f"{convention}: profiles", convention, profiles, ())
        points, first = drawn[0], sets[0].images
        for name, wrong in spoilt(points, generator):
            yield _Points(f"{convention}: {name}", convention, wrong, first)
    if detector is not None:
        yield from _detections(sets, detector)


def _profiles(sets: Sequence[SyntheticSet], model: FaceModel, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Angles, scales and landmarks of the sets' faces turned to either side."""
    fitter = LandmarkFitter(model, FitSpec())
    fits = fitter.fit(torch.cat([one.landmarks for one in sets]))
    low, high = (torch.tensor(_PROFILE) * (torch.pi / 180)).tolist()
    n = len(fits)
    side = torch.rand(n, generator=generator).sub(0.5).sign()
    yaw = side * (low + (high - low) * torch.rand(n, generator=generator))
    angles = torch.stack([yaw, torch.zeros(n), torch.zeros(n)], dim=-1)
    camera = Camera(
        rotation=euler_to_matrix(yaw, angles[:, 1], angles[:, 2]), scale=fits.camera.scale,
        translation=torch.full((n, 2), _SIDE / 2), degenerate=torch.zeros(n, dtype=torch.bool),
    )  # fmt: skip
    shapes, _ = fitter.landmarks(fits.parameters, camera)
    return angles, camera.scale, project(shapes, camera)


def _detections(sets: Sequence[SyntheticSet], name: str) -> Iterator[_Points]:
    """The detections nearest to the true faces, those that lie on no face apart."""
    detector = build_detector(name)
    found = [
        (file, *_nearest(detector.detect([read_image(file)])[0], truth), truth, float(scale))
        for one in sets
        for file, truth, scale in zip(one.images, one.landmarks, one.camera.scale)
    ]
    rows = [
        (file, points, score, _error(points, truth, scale))
        for file, points, score, truth, scale in found
        if points is not None
    ]
    for label, wrong in ((f"{name}: detected", False), (f"{name}: detected off the face", True)):
        chosen = [(file, points, score) for file, points, score, error in rows if (error > _FALSE_MM) == wrong]
        if chosen:
            files, points, scores = zip(*chosen)
            yield _Points(label, find_convention(name), torch.stack(points), files, torch.tensor(scores))


def _nearest(faces: Sequence[Detection], truth: Float[Tensor, "66 2"]) -> tuple[Float[Tensor, "66 2"] | None, float]:
    """The points and the score of the detection nearest to the true face; None without a detection."""
    if not faces:
        return None, 0.0
    points = torch.stack([to_paper66(face.points).to(truth) for face in faces])
    nearest = int((points.mean(1) - truth.mean(0)).norm(dim=1).argmin())
    return points[nearest], faces[nearest].score


def _error(points: Float[Tensor, "66 2"], truth: Float[Tensor, "66 2"], scale: float) -> float:
    return float((points - truth)[:N_INNER].norm(dim=-1).mean()) / scale


def _some(points: _Points, images: int | None) -> _Points:
    """So many of the points, spread over all of them."""
    step = 1 if images is None else max(1, len(points.points) // images)
    scores = None if points.scores is None else points.scores[::step]
    return _Points(points.name, points.convention, points.points[::step], points.files[::step], scores)


def _fitted(points: _Points, fitter: LandmarkFitter, model: FaceModel) -> Plausibility:
    fit = fitter.fit(points.points)
    shapes, _ = fitter.landmarks(fit.parameters, fit.camera)
    projected = project(shapes, fit.camera)
    size = torch.ones_like(fit.camera.scale)
    return measure_plausibility(
        fit.parameters,
        fit.camera,
        projected,
        points.points,
        size,
        model,
        scores=points.scores,
        convention=points.convention,
    )


def _reconstructed(points: _Points, reconstructor: FaceReconstructor) -> Plausibility:
    parts = []
    for k in range(0, len(points.files), 32):
        images = [read_image(file) for file in points.files[k : k + 32]]
        faces = reconstructor.reconstruct(images, points.points[k : k + 32])
        if points.scores is not None:
            faces = replace(faces, scores=points.scores[k : k + 32].to(faces.scores))
        parts.append(faces.plausibility)
    return Plausibility.cat(parts)


def _print_table(title: str, listed: Sequence[_Points], measure: _Measure) -> None:
    sys.stdout.write(f"\n{title}; quantiles {', '.join(f'{q:g}' for q in _QUANTILES)}\n")
    for one in listed:
        measures = measure(one)
        marked, refused = (float(m.double().mean()) for m in (~measures.plausible, measures.impossible))
        sys.stdout.write(f"{one.name:<34}{len(one.points):6d}  marked {marked:.4f}  refused {refused:.4f}\n")
        for column in _COLUMNS:
            values = torch.quantile(getattr(measures, column).double(), torch.tensor(_QUANTILES).double())
            sys.stdout.write(f"    {column:<18}" + "".join(f"{value:9.3g}" for value in values) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
