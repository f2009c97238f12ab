"""How many faces each landmark detector finds: photographs, pictures without a face, renders by their yaw, groups.

    python -m benchmarks.accuracy.detection landmarks=dlib,mediapipe photos=portrait.jpg,pair.jpg:2 device=cpu

`photos` are photographs beside scikit-image's astronaut, with the number of their faces (1 where none is given). The
renders are the `test` set of the training configuration, made in the cache folder where they are missing; a group is a
picture of 2 x 2, 3 x 3 or 4 x 4 of them. `tiles` is mediapipe's option.
"""

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from facerecon_torch.commands.train.sets import synthetic_folder
from facerecon_torch.data.specs import SyntheticPhotos
from facerecon_torch.errors import DetectorError
from facerecon_torch.images.convert import as_pixels
from facerecon_torch.images.read import Pixels, read_pixels
from facerecon_torch.landmarks.batches import detect_in_batches
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.registry import DETECTORS, build_detector
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.structures import Detection
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.spec import SyntheticSpec

from ..keys import read_keys

__all__ = ["detected", "example_picture", "lies_among", "main", "own_faces", "renders"]

_KEYS = ("landmarks", "photos", "device", "tiles")
_QUALITIES = (75, 80, 85, 90, 95)  # of the JPEGs of the astronaut
_SIDE_VIEW = 45.0  # degrees of yaw
_FRONTAL = 20.0  # degrees of yaw of renders in groups
_GROUP_SIDES = (2, 3, 4)
_GROUPS = 6  # pictures of each size
# Of scikit-image's wheel; not `coins` (heads on them) and `camera` (a man).
_WITHOUT_FACES = (
    "brick.png",
    "cell.png",
    "chelsea.png",
    "chessboard_GRAY.png",
    "chessboard_RGB.png",
    "clock_motion.png",
    "coffee.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "logo.png",
    "microaneurysms.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "phantom.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)


@dataclass(frozen=True)
class _Picture:
    """Decoded, for `detect_in_batches`."""

    pixels: Pixels


@dataclass
class _Count:
    """Faces found among those that are there, and others."""

    found: int = 0
    expected: int = 0
    others: int = 0

    def add(self, found: int, expected: int, others: int) -> None:
        self.found, self.expected, self.others = self.found + found, self.expected + expected, self.others + others

    def __str__(self) -> str:
        others = f" + {self.others} wrong" if self.others else ""
        return f"{self.found} of {self.expected}{others}"


def main(words: Sequence[str]) -> int:
    """Print the table; the exit status is 1 where a detector cannot run.

    Raises:
        ValueError: an unknown key or detector, or a number of faces that is none.
    """
    keys = read_keys(words, _KEYS)
    names = keys.get("landmarks", "dlib").split(",")
    able = [name for name in DETECTORS if name != "file"]  # files are nothing that finds faces
    if wrong := [name for name in names if name not in able]:
        raise ValueError(f"landmarks must be among {', '.join(able)}; got {', '.join(wrong)}")
    device = torch.device(keys.get("device", "cpu"))
    photos = [*_astronaut(), *_photos(keys.get("photos", ""))]
    faceless = [example_picture(name) for name in _WITHOUT_FACES]
    rendered = renders("test")
    groups = [f"groups of {side * side}" for side in _GROUP_SIDES]
    _say(
        "detector", "photographs", "without a face", f"|yaw| <= {_SIDE_VIEW:.0f}", f"|yaw| > {_SIDE_VIEW:.0f}", *groups
    )
    status = 0
    for name in names:
        try:
            detector = build_detector(name, **LandmarkSourceSpec(source=name, tiles=keys.get("tiles")).options(device))
        except DetectorError as error:
            _say(name, f"  cannot run: {error}")
            status = 1
            continue
        frontal, side = _on_renders(detector, rendered)
        crowds = [str(_on_groups(detector, rendered, side)) for side in _GROUP_SIDES]
        alone = [str(_on_photos(detector, photos)), _false_alarms(detector, faceless), str(frontal), str(side)]
        _say(name, *alone, *crowds)
    return status


def _say(name: str, *cells: str) -> None:
    sys.stdout.write(f"{name:<16}" + "".join(f"{cell:>22}" for cell in cells) + "\n")


def example_picture(name: str) -> Path:
    """A picture inside the scikit-image wheel."""
    import skimage

    return Path(skimage.__file__).parent / "data" / name


def _astronaut() -> list[tuple[Pixels, int]]:
    """The portrait as it is and as JPEGs."""
    portrait = Image.open(example_picture("astronaut.png")).convert("RGB")
    pictures = [as_pixels(portrait)]
    for quality in _QUALITIES:
        file = io.BytesIO()
        portrait.save(file, "JPEG", quality=quality)
        pictures.append(as_pixels(file.getvalue()))
    return [(picture, 1) for picture in pictures]


def _photos(listed: str) -> list[tuple[Pixels, int]]:
    photos = []
    for word in filter(None, listed.split(",")):
        path, colon, count = word.rpartition(":")
        if colon and not count.isdecimal():
            raise ValueError(f"photos must be FILE or FILE:FACES; got {word!r}")
        photos.append((read_pixels(path if colon else word), int(count) if colon else 1))
    return photos


def renders(family: str) -> SyntheticSet:
    """The `test` or `shifted` set of the training configuration."""
    data = SyntheticPhotos()
    sizes = {"test": (data.test_subjects, data.test_images), "shifted": (data.shifted_subjects, data.shifted_images)}
    subjects, images = sizes[family]
    spec = SyntheticSpec(subjects=subjects, images_per_subject=images, seed=data.seed, family=family)
    return render_set(spec, synthetic_folder(spec, data.root))


def detected(detector: LandmarkDetector, pictures: Iterable[Pixels]) -> Iterable[list[Detection]]:
    """The faces of each picture."""
    for _, answer in detect_in_batches(detector, ((None, _Picture(pixels)) for pixels in pictures)):
        if isinstance(answer, Exception):
            raise answer
        yield answer[1]


def _on_photos(detector: LandmarkDetector, photos: Sequence[tuple[Pixels, int]]) -> _Count:
    count = _Count()
    for faces, (_, expected) in zip(detected(detector, (pixels for pixels, _ in photos)), photos):
        count.add(min(len(faces), expected), expected, max(0, len(faces) - expected))
    return count


def _false_alarms(detector: LandmarkDetector, files: Sequence[Path]) -> str:
    wrong = [file.stem for file, faces in zip(files, detected(detector, (read_pixels(f) for f in files))) if faces]
    return f"{len(wrong)} of {len(files)}" + (f" ({', '.join(wrong)})" if wrong else "")


def _on_renders(detector: LandmarkDetector, rendered: SyntheticSet) -> tuple[_Count, _Count]:
    """Up to 45 degrees of yaw, and beyond. A face is found if the middle of its points lies among the true ones."""
    frontal, side = _Count(), _Count()
    answers = detected(detector, (read_pixels(file) for file in rendered.images))
    for faces, truth, yaw in zip(answers, rendered.landmarks, rendered.angles[:, 0].rad2deg().abs().tolist()):
        right = sum(lies_among(face.points, truth) for face in faces)
        (side if yaw > _SIDE_VIEW else frontal).add(min(right, 1), 1, len(faces) - min(right, 1))
    return frontal, side


def _on_groups(detector: LandmarkDetector, rendered: SyntheticSet, side: int) -> _Count:
    """Renders up to 20 degrees of yaw, `side` x `side` in a picture."""
    rows = torch.nonzero(rendered.angles[:, 0].rad2deg().abs() <= _FRONTAL)[:, 0]
    count = _Count()
    for own in rows[: _GROUPS * side * side].split(side * side):
        if len(own) == side * side:
            pixels = [read_pixels(rendered.images[k]) for k in own.tolist()]
            picture = torch.cat([torch.cat(pixels[k : k + side], -1) for k in range(0, len(pixels), side)], -2)
            size = pixels[0].shape[-1]
            corners = size * torch.cartesian_prod(torch.arange(side), torch.arange(side)).flip(-1)  # x, y
            truths = rendered.landmarks[own] + corners[:, None]
            (faces,) = detected(detector, [picture])
            right = sum(any(lies_among(face.points, truth) for face in faces) for truth in truths)
            count.add(right, len(own), max(0, len(faces) - right))
    return count


def own_faces(
    detector: LandmarkDetector, pictures: Sequence[Pixels], truth: Float[Tensor, "n 66 2"]
) -> Float[Tensor, "n 66 2"]:
    """The points of the first face that lies among the true points, NaN where there is none."""
    points = torch.full_like(truth, torch.nan)
    for row, faces in enumerate(detected(detector, pictures)):
        own = [face for face in faces if lies_among(face.points, truth[row])]
        if own:
            points[row] = to_paper66(own[0].points)
    return points


def lies_among(points: Tensor, truth: Tensor) -> bool:
    """Whether the middle of the points lies among the true ones."""
    middle = points.mean(0).to(truth)
    return bool(((middle >= truth.amin(0)) & (middle <= truth.amax(0))).all())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
