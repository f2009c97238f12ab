"""The 66 landmarks of the face that a scan shows, in its photograph."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.recordings import RecordedScan
from facerecon_torch.landmarks.detector import LandmarkDetector, resize
from facerecon_torch.landmarks.scheme import to_paper66

__all__ = ["N_LANDMARKS", "find_landmarks"]

N_LANDMARKS = 66
_LONGEST = 640  # px of the side of what a detector sees: the face fills it, and detectors work at 200 px or less
_MARGIN = 0.4  # of the scan's width and height, around it: detectors want to see the head
# Mean distances, in radii of what is expected, beyond which a found face is another one: of points from labelled ones,
# and of the face's middle from the scan's, which may reach down to the shoulders.
_FARTHEST_POINTS, _FARTHEST_MIDDLE = 0.5, 1.5


def find_landmarks(
    detector: LandmarkDetector, scan: RecordedScan, path: Path
) -> tuple[Float[Tensor, "66 2"], tuple[str, ...]]:
    """Points in px of the photograph and flags. Of several faces, the one nearest to the labelled points is taken, or,
    without any, to the scan. NaN and a flag where no face is found (`no_face`) or only another one (`other_face`).

    What the detector raises is passed on.
    """
    nothing = scan.image.new_full((N_LANDMARKS, 2), torch.nan)
    # landmarks of a file count from the picture's corner; a detector is faster and surer where it sees one face
    from_file = detector.name == "file"
    left, top, right, bottom = (0, 0, *_size(scan)) if from_file else _window(scan)
    window = scan.image[:, top:bottom, left:right]
    shown = window if from_file else resize(window, min(1.0, _LONGEST / max(window.shape[1:])))
    found = detector.detect(shown, path=path)
    if not found:
        return nothing, ("no_face",)
    finer = nothing.new_tensor([window.shape[2] / shown.shape[2], window.shape[1] / shown.shape[1]])
    points = to_paper66(torch.stack([face.points for face in found]))
    faces = (points + 0.5) * finer - 0.5 + nothing.new_tensor([left, top])
    distance = _distance(faces, scan)
    best = int(distance.argmin())
    if not float(distance[best]) <= 1:
        return nothing, ("other_face",)
    return faces[best].to(nothing), ()


def _size(scan: RecordedScan) -> tuple[int, int]:
    return scan.image.shape[2], scan.image.shape[1]


def _window(scan: RecordedScan) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of the photograph around the scan, in whole px."""
    width, height = _size(scan)
    pixels = _seen(scan)
    if not len(pixels):
        return 0, 0, width, height
    low, high = pixels.aminmax(dim=0)
    margin = _MARGIN * (high - low)
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    left, top, right, bottom = max(math.floor(x0), 0), max(math.floor(y0), 0), math.ceil(x1) + 1, math.ceil(y1) + 1
    inside = left < min(right, width) and top < min(bottom, height)
    return (left, top, min(right, width), min(bottom, height)) if inside else (0, 0, width, height)


def _seen(scan: RecordedScan) -> Float[Tensor, "n 2"]:
    pixels = scan.point_pixels
    return pixels[torch.isfinite(pixels).all(dim=-1)]


def _distance(faces: Float[Tensor, "faces 66 2"], scan: RecordedScan) -> Float[Tensor, "faces"]:
    """Mean distance of each face's points from where they are expected; beyond 1, it is another face."""
    expected = scan.labelled_pixels
    known = torch.isfinite(expected).all(dim=-1)
    if int(known.sum()) >= 3:
        target, candidates, farthest = expected[known], faces[:, known].to(expected), _FARTHEST_POINTS
    else:
        target = _seen(scan)
        if not len(target):
            return faces.new_zeros(len(faces))  # nothing speaks for one of them or against it
        candidates, farthest = faces.mean(dim=1, keepdim=True).to(target), _FARTHEST_MIDDLE
    centre = target.mean(dim=0)
    radius = (target - centre).square().sum(dim=-1).mean().sqrt().clamp_min(1)
    goal = target if farthest == _FARTHEST_POINTS else centre
    distance: Tensor = (candidates - goal).norm(dim=-1).mean(dim=-1) / (farthest * radius)
    return distance
