"""The protocol of landmark detectors, and the choice among the faces that one finds."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_count
from facerecon_torch.errors import DetectorError, NoFaceError
from facerecon_torch.images.read import Pixels, in_unit_range, require_unit_range
from facerecon_torch.structures import Detection

__all__ = [
    "FREE",
    "Box",
    "FaceBox",
    "LandmarkDetector",
    "choose_faces",
    "select_faces",
]

FREE = "free for any use"
_log = logging.getLogger(__name__)
_BAND_PIXELS = 2**22  # made floats at a time
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in px."""


@dataclass(frozen=True)
class FaceBox:
    """A face before its landmarks are known.

    Attributes:
        box: x0, y0, x1, y1 in px.
        score: of the detector.
    """

    box: Box
    score: float


_Face = TypeVar("_Face", FaceBox, Detection)


@runtime_checkable
class LandmarkDetector(Protocol):
    """The interface of detectors, which find faces and their 68 iBUG landmarks.

    A class in `registry.DETECTORS` has `licence` and `convention` on the class and a static `weight_files()`, for
    `facerecon doctor`. A class whose `detect` can run on several threads at once says so by `side_by_side = True`.
    Public attributes of an instance are its settings: `infer` makes results anew where one has changed.

    Example:
        >>> detector = build_detector("dlib")
        >>> detector.detect([read_image("photo.jpg")])[0][0].score
    """

    @property
    def name(self) -> str:
        """The key of `registry.DETECTORS`."""

    @property
    def convention(self) -> str:
        """The convention of the points, one of `scheme.CONVENTIONS`; a cascade serves the one of its training."""

    @property
    def licence(self) -> str:
        """The licence of the answers; it begins with `FREE` where there is no restriction."""

    def detect(self, images: Sequence[Tensor], *, paths: Sequence[Path | None] | None = None) -> list[list[Detection]]:
        """Every face of each picture, the one with the largest score x box area first; an empty list where there is
        none.

        images: [3, H, W] RGB, bytes or floats in [0, 1], of any sizes, on any device, upright; boxes and points of the
        answer are in their px. The points have a precision of their own (those of this package float64, on the CPU),
        whatever the pictures' dtype. `paths` name the pictures: the `file` detector looks landmarks up by them, the
        others ignore them. Raises ValueError or TypeError for another shape, dtype or range, DetectorError when the
        detector cannot run.
        """


def choose_faces(
    detections: Sequence[Detection], which: str | int = "largest", *, source: object = "the image"
) -> list[Detection]:
    """The chosen detections.

    Args:
        detections: of one image.
        which: `largest` (by box area), `all`, or the position in the detector's order.
        source: of the image, for errors.

    Raises:
        NoFaceError: there is no face, or not that many.
        ValueError: another `which`.

    Example:
        >>> choose_faces(detector.detect([image])[0], "all")
    """
    if isinstance(which, bool) or not (which in ("largest", "all") or (isinstance(which, int) and which >= 0)):
        raise ValueError(f"which must be 'largest', 'all' or a position from 0; got {which!r}")
    if not detections:
        raise NoFaceError(f"{source}: expected at least one face; the detector found none")
    if which == "all":
        return list(detections)
    if isinstance(which, int):
        if which >= len(detections):
            raise NoFaceError(f"{source}: expected a face at position {which}; the detector found {len(detections)}")
        return [detections[which]]
    if len(detections) > 1:
        _log.info("%s: %d faces found; the largest is used", source, len(detections))
    return [max(detections, key=box_area)]


def select_faces(
    faces: Sequence[_Face], image_size: Sequence[int], *, min_face: float = 0.0, max_faces: int | None = None
) -> list[_Face]:
    """The faces that are large enough, sorted by score x box area, the largest first.

    Args:
        faces: of one image, in any order.
        image_size: (height, width) in px.
        min_face: share of the image's long side that the longer side of a box must have.
        max_faces: at most so many, the first of the order; None: all.

    Example:
        >>> select_faces(faces, image.shape[-2:], min_face=0.1, max_faces=1)
    """
    least = min_face * max(image_size)
    large = [face for face in faces if _long_side(face) >= least]
    return sorted(large, key=lambda face: face.score * box_area(face), reverse=True)[:max_faces]


def require_selection(min_face: float, max_faces: int | None, prefix: str = "") -> None:
    """Raise ValueError unless the two are options of `select_faces`; `prefix` stands before their names."""
    if not 0 <= min_face <= 1:
        raise ValueError(f"{prefix}min_face must lie in [0, 1], a share of the image's long side; got {min_face}")
    if max_faces is not None:
        require_count(f"{prefix}max_faces", max_faces, 1)


def _long_side(face: FaceBox | Detection) -> float:
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, y1 - y0)


def box_area(face: FaceBox | Detection) -> float:
    """In square px."""
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def require_cuda(detector: str, device: torch.device) -> None:
    """Raise DetectorError for a CUDA device that torch cannot use: never another one instead."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DetectorError(f"detector {detector}: device {device} was asked for; torch finds no CUDA device")


def require_image(image: Tensor) -> None:
    """Raise TypeError or ValueError unless `image` is a tensor [3, H, W] of floats in [0, 1] or of uint8."""
    if not isinstance(image, Tensor):
        raise TypeError(f"image must be a torch.Tensor; got {type(image).__name__}")
    numbers = image.is_floating_point() or image.dtype == torch.uint8
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0 or not numbers:
        raise ValueError(
            f"image must be a tensor [3, H, W] of floats in [0, 1] or of uint8; got {image.dtype} {tuple(image.shape)}"
        )
    if image.dtype != torch.uint8:
        require_unit_range(image, f"a tensor {list(image.shape)}")


def on_host(image: Pixels) -> Pixels:
    """The picture on the CPU: bytes as they are, floats as float32."""
    picture = image.detach().cpu()
    return picture if picture.dtype == torch.uint8 else picture.float()


def resize(image: Pixels, scale: float) -> Float[Tensor, "3 height2 width2"] | UInt8[Tensor, "3 height2 width2"]:
    """The whole picture resampled, bilinear and anti-aliased, in [0, 1]; at its own size it is returned as it is.

    Pixel q of the answer is (q + 0.5) / s - 0.5 of the input, where s is the ratio of the two sizes along that axis.
    Rows are narrowed in bands, so that a large picture of bytes never becomes floats as a whole.
    """
    height, width = image.shape[-2:]
    size = [max(1, round(n * scale)) for n in (height, width)]
    if size == [height, width]:
        return image
    rows = max(1, _BAND_PIXELS // width)
    narrow = torch.empty(3, height, size[1], dtype=in_unit_range(image[:, :1, :1]).dtype, device=image.device)
    for top in range(0, height, rows):
        band = in_unit_range(image[:, top : top + rows])
        narrow[:, top : top + rows] = _interpolated(band, [band.shape[-2], size[1]])
    return _interpolated(narrow, size).clamp_(0, 1)


def _interpolated(image: Float[Tensor, "3 h w"], size: list[int]) -> Float[Tensor, "3 h2 w2"]:
    return torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def as_bytes(image: Pixels) -> NDArray[np.uint8]:
    """The image as native detectors take it: 8 bits, height x width x 3, contiguous, on the CPU."""
    height, width = image.shape[-2:]
    filled = np.empty((height, width, 3), dtype=np.uint8)  # its strides suit even one pixel
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = image[:, top : top + rows]
        eight_bit = band if band.dtype == torch.uint8 else (band.clamp(0, 1) * 255).round().to(torch.uint8)
        filled[top : top + rows] = eight_bit.permute(1, 2, 0).cpu().numpy()
    return filled
