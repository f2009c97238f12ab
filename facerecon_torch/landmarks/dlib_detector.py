"""dlib's frontal face detector and 68-point predictor, the pair that the paper uses."""

import importlib.util
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.errors import DetectorError
from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.detector import (
    Box,
    FaceBox,
    as_bytes,
    on_host,
    require_image,
    require_selection,
    resize,
    select_faces,
)
from facerecon_torch.structures import Detection

__all__ = ["DlibDetector", "dlib_predictor_path"]

_PREDICTOR = "shape_predictor_68_face_landmarks.dat"
_INSTALL = 'pip install "facerecon-torch[dlib]"'
# px. dlib rounds its points to whole pixels, so smaller faces are magnified first. On three portraits reduced
# to faces of 60 and 100 px this took 2 to 54 % off the distance to the answer at full size.
_FINE_FACE = 256
# Of the surest face's score; docs/detectors.md has the measurements.
_WEAK = 0.2


def dlib_predictor_path() -> Path:
    """Where the 68-point file of face-recognition-models lies. That package is found, never imported: it
    needs pkg_resources, which recent Python installations lack. Raises DetectorError saying what to
    install."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise DetectorError(
            f"detector dlib: expected the package face-recognition-models, which holds {_PREDICTOR}; "
            f"it is not installed. Run: {_INSTALL}"
        )
    file = Path(next(iter(spec.submodule_search_locations))) / "models" / _PREDICTOR
    if not file.is_file():
        raise DetectorError(f"detector dlib: expected the file {file}; there is none. Reinstall: {_INSTALL}")
    return file


class DlibDetector:
    """Adapter with `detect` of LandmarkDetector. Runs on the CPU, wherever the pictures live, on as many threads as
    torch has.

    The detector is a sliding window that sees faces from about 80 px on. A picture longer than `max_side` px
    is searched at that size; `upsample` doubles the searched size so many times; where no face is found the
    search is repeated at twice the size, `retries` times. Points are predicted at full resolution.
    `min_score` is dlib's threshold. None is its usual one, 0, under which patterns may pass for faces: beside a surer
    face, one with less than a fifth of its score is left out then. `min_face` and `max_faces` are those of
    `select_faces`.
    """

    name = "dlib"
    convention = "ibug"
    side_by_side = True
    licence = (
        "dlib's 68-point predictor was trained on iBUG 300-W, whose licence excludes commercial use; "
        "the code is under the Boost Software License"
    )

    @staticmethod
    def weight_files() -> list[Path]:
        """The predictor that face-recognition-models brings. Raises DetectorError where that package is missing."""
        return [dlib_predictor_path()]

    def __init__(
        self,
        *,
        max_side: int = 2000,
        upsample: int = 0,
        retries: int = 1,
        min_score: float | None = None,
        min_face: float = 0.0,
        max_faces: int | None = None,
        predictor: str | Path | None = None,
    ) -> None:
        if max_side < 1 or upsample < 0 or retries < 0 or not math.isfinite(min_score or 0.0):
            raise ValueError(
                "max_side must be at least 1, upsample and retries at least 0, min_score finite; got "
                f"{max_side}, {upsample}, {retries}, {min_score}"
            )
        require_selection(min_face, max_faces)
        if importlib.util.find_spec("dlib") is None:
            raise DetectorError(f"detector dlib: expected the package dlib; it is not installed. Run: {_INSTALL}")
        self.max_side, self.upsample, self.retries = max_side, upsample, retries
        self.min_score, self.min_face, self.max_faces = min_score, min_face, max_faces
        self.predictor = Path(predictor) if predictor is not None else dlib_predictor_path()
        if not self.predictor.is_file():
            raise DetectorError(f"detector dlib: expected the predictor file {self.predictor}; there is none")
        self._predictor: Any = None
        self._finders: list[Any] = []  # idle ones: each serves one thread at a time

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_predictor": None, "_finders": []}  # each process loads its own

    def detect(self, images: Sequence[Tensor], *, paths: Sequence[Path | None] | None = None) -> list[list[Detection]]:
        """As LandmarkDetector says; `paths` are not used. Scores are dlib's margins (0 and up, about 1 to 2 for a clear
        frontal face)."""
        self._load()
        threads = min(torch.get_num_threads(), len(images))
        if threads < 2:
            return [self._faces(image) for image in images]
        with ThreadPoolExecutor(threads) as pool:  # dlib works without Python's lock
            return list(pool.map(self._faces, images))

    def _faces(self, image: Tensor) -> list[Detection]:
        require_image(image)
        picture = on_host(image)
        faces = select_faces(
            self._sure(self._boxes(picture)), picture.shape[-2:], min_face=self.min_face, max_faces=self.max_faces
        )
        return [Detection(box=face.box, score=face.score, points=self._points(picture, face.box)) for face in faces]

    def _sure(self, faces: list[FaceBox]) -> list[FaceBox]:
        if self.min_score is not None or not faces:
            return faces
        least = _WEAK * max(face.score for face in faces)
        return [face for face in faces if face.score >= least]

    def _boxes(self, picture: Pixels) -> list[FaceBox]:
        scale = min(1.0, self.max_side / max(picture.shape[-2:])) * 2.0**self.upsample
        for _ in range(self.retries + 1):
            searched = resize(picture, scale)
            boxes, scores = self._found(as_bytes(searched))
            if len(boxes):
                ratio = [searched.shape[2] / picture.shape[2], searched.shape[1] / picture.shape[1]]
                return [FaceBox(_unscaled(b, ratio), float(score)) for b, score in zip(boxes, scores)]
            scale *= 2
        return []

    def _found(self, picture: NDArray[np.uint8]) -> tuple[Any, list[float]]:
        """dlib's rectangles and their scores."""
        import dlib

        try:
            finder = self._finders.pop()
        except IndexError:
            finder = dlib.get_frontal_face_detector()
        try:
            boxes, scores, _ = finder.run(picture, 0, self.min_score or 0.0)
        finally:
            self._finders.append(finder)
        return boxes, scores

    def _points(self, picture: Pixels, box: Box) -> Float[Tensor, "68 2"]:
        """Landmarks in px of `picture`; a small face is cut out with a margin of its own size and magnified
        first."""
        import dlib

        left, top, right, bottom = box
        side = max(right - left, 1.0)
        factor = float(math.ceil(_FINE_FACE / side))
        height, width = picture.shape[-2:]
        x0, y0 = max(0, math.floor(left - side)), max(0, math.floor(top - side))
        x1, y1 = min(width, math.ceil(right + side) + 1), min(height, math.ceil(bottom + side) + 1)
        cut = resize(picture[:, y0:y1, x0:x1], factor)
        offset = torch.tensor([x0, y0], dtype=torch.float64)
        corners = (torch.tensor([[left, top], [right, bottom]], dtype=torch.float64) - offset + 0.5) * factor - 0.5
        shape = self._predictor(as_bytes(cut), dlib.rectangle(*corners.round().long().flatten().tolist()))
        found = torch.tensor([(p.x, p.y) for p in shape.parts()], dtype=torch.float64)
        return (found + 0.5) / factor - 0.5 + offset

    def _load(self) -> None:
        if self._predictor is not None:
            return
        import dlib

        try:
            self._predictor = dlib.shape_predictor(str(self.predictor))
        except RuntimeError as error:
            raise DetectorError(
                f"detector dlib: expected a 68-point shape predictor in {self.predictor}; it cannot be read ({error})"
            ) from error


def _unscaled(box: Any, ratio: list[float]) -> Box:
    """dlib's rectangle in a picture resized by `ratio` (x, y) -> px of the original."""
    x, y = ratio
    left, right = ((v + 0.5) / x - 0.5 for v in (box.left(), box.right()))
    top, bottom = ((v + 0.5) / y - 0.5 for v in (box.top(), box.bottom()))
    return left, top, right, bottom
