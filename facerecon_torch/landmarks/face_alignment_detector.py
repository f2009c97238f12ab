"""The face-alignment package: S3FD faces and 2D-FAN landmarks, on the CPU or a CUDA device."""

import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import (
    FaceBox,
    as_bytes,
    on_host,
    require_cuda,
    require_image,
    require_selection,
    resize,
    select_faces,
)
from facerecon_torch.landmarks.fan import predict_points
from facerecon_torch.structures import Detection

__all__ = ["WEIGHT_FILES", "FaceAlignmentDetector", "missing_weights", "usable_device", "weight_paths"]

_SITE = "https://www.adrianbulat.com/downloads/python-fan"
WEIGHT_FILES = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")
_SMALLEST = 32  # px: below, the last feature maps of S3FD are empty
_SEARCHED_PIXELS = 2**21  # searched at a time; S3FD holds about 1 KB for each
_LEAST_SCORE = 0.05  # what S3FD looks at in a single picture; a batch also brings the others' places
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def weight_paths() -> list[Path]:
    """Where face-alignment looks for its weight files ($TORCH_HOME/hub/checkpoints), there or not."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return [folder / name for name in WEIGHT_FILES]


def missing_weights() -> list[Path]:
    """The weight files that face-alignment would have to download, as the paths where it looks for them."""
    return [file for file in weight_paths() if not file.is_file()]


class FaceAlignmentDetector:
    """Adapter with `detect` of LandmarkDetector.

    Faces are searched in the picture reduced to `max_side` px, pictures of one size together; landmarks are predicted
    at full resolution, those of all faces in batches. Points are the package's before it cuts them to whole pixels, a
    quarter of a heat map's cell fine. `dtype` (float32, float16, bfloat16) is that of 2D-FAN; S3FD runs in float32.
    `min_face` and `max_faces` are those of `select_faces`.

    `download=False` never touches the network. CUDA is used only when asked for by `device`. Raises DetectorError when
    the package, a weight file (and the network to fetch it) or the device is missing.
    """

    name = "face_alignment"
    convention = "ibug"
    licence = (
        "the 2D-FAN weights were trained on data derived from iBUG 300-W and the S3FD weights on WIDER FACE, "
        "both for research only, not for commercial use; the code is under the BSD 3-clause licence"
    )

    @staticmethod
    def weight_files() -> list[Path]:
        """Both weight files, whether they are there or not."""
        return weight_paths()

    def __init__(
        self,
        *,
        device: str | torch.device = "cpu",
        max_side: int = 1280,
        min_score: float = 0.5,
        min_face: float = 0.0,
        max_faces: int | None = None,
        dtype: str = "float32",
        download: bool = True,
    ) -> None:
        if max_side < _SMALLEST or not 0 <= min_score < 1:
            raise ValueError(
                f"max_side must be at least {_SMALLEST} and min_score in [0, 1); got {max_side}, {min_score}"
            )
        require_selection(min_face, max_faces)
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}")
        self.device = usable_device(device)
        self.max_side, self.min_score, self.dtype = max_side, min_score, dtype
        self.min_face, self.max_faces = min_face, max_faces
        _require_package()
        _require_weights(download)
        self._native: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_native": None}  # each process loads its own

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor], *, paths: Sequence[Path | None] | None = None) -> list[list[Detection]]:
        """As LandmarkDetector says; `paths` are not used. Scores are S3FD's probabilities, those of points the maxima
        of 2D-FAN's heat maps, summed over the picture and its mirror image."""
        for image in images:
            require_image(image)
        pictures = [on_host(image) for image in images]
        with _cudnn_choice_kept():
            chosen = [
                select_faces(faces, picture.shape[-2:], min_face=self.min_face, max_faces=self.max_faces)
                for picture, faces in zip(pictures, self._boxes(pictures))
            ]
            answers = iter(predict_points(self._load(), pictures, chosen) if any(chosen) else [])
        return [
            [
                Detection(box=face.box, score=face.score, points=points, point_scores=scores)
                for face, (points, scores) in zip(faces, answers)
            ]
            for faces in chosen
        ]

    def _boxes(self, pictures: Sequence[Tensor]) -> list[list[FaceBox]]:
        """S3FD's faces of each picture, in its px."""
        searched = [as_bytes(resize(p, min(1.0, self.max_side / max(p.shape[-2:])))) for p in pictures]
        boxes: list[list[FaceBox]] = [[] for _ in pictures]
        for rows in _of_equal_size([picture.shape[:2] for picture in searched]):
            batch = torch.from_numpy(np.stack([searched[k] for k in rows])).permute(0, 3, 1, 2)
            for k, found in zip(rows, self._load().face_detector.detect_from_batch(batch)):
                boxes[k] = _face_boxes(found, searched[k].shape[:2], pictures[k].shape[-2:])
        return boxes

    def _load(self) -> Any:
        if self._native is None:
            from face_alignment import FaceAlignment, LandmarksType

            try:
                with _cudnn_choice_kept():
                    self._native = FaceAlignment(
                        LandmarksType.TWO_D,
                        device=str(self.device),
                        dtype=_DTYPES[self.dtype],
                        compile=False,  # the package's default compiles for minutes
                        face_detector_kwargs={"filter_threshold": self.min_score},
                    )
            except (
                RuntimeError,
                OSError,
                EOFError,
                KeyError,
                ValueError,
                TypeError,
                pickle.UnpicklingError,
            ) as error:
                raise DetectorError(
                    "detector face_alignment: expected readable weights "
                    f"{' and '.join(map(str, weight_paths()))}; loading failed ({type(error).__name__}: {error}). "
                    f"Delete a damaged file and fetch it again from {_SITE}"
                ) from error
        return self._native


def _of_equal_size(sizes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Positions of pictures that S3FD takes together: of the same (height, width), as many as memory should hold."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for k, size in enumerate(sizes):
        if min(size) >= _SMALLEST:
            positions.setdefault(size, []).append(k)
    for (height, width), rows in positions.items():
        count = max(1, _SEARCHED_PIXELS // (height * width))
        yield from (rows[start : start + count] for start in range(0, len(rows), count))


def _face_boxes(
    found: Sequence[NDArray[np.floating]], searched: Sequence[int], picture: Sequence[int]
) -> list[FaceBox]:
    """The faces of S3FD's rows (x0, y0, x1, y1, score) in px of the picture; the rows are in px of its resized copy.
    `picture` and `searched` are (height, width) of both. Empty and non-finite boxes are left out."""
    rows = np.array([row[:5] for row in found], dtype=np.float64).reshape(-1, 5)
    y, x = (small / full for small, full in zip(searched, picture))
    rows[:, :4] = (rows[:, :4] + 0.5) / (x, y, x, y) - 0.5
    sound = np.isfinite(rows).all(1) & (rows[:, 2:4] - rows[:, :2] >= 1).all(1) & (rows[:, 4] > _LEAST_SCORE)
    return [FaceBox((x0, y0, x1, y1), score) for x0, y0, x1, y1, score in rows[sound].tolist()]


def usable_device(device: str | torch.device) -> torch.device:
    """`device` if it is the CPU or a CUDA device that torch can use, else DetectorError: never another one."""
    chosen = torch.device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise DetectorError(f"detector face_alignment: device must be cpu or cuda; got {chosen}")
    require_cuda("face_alignment", chosen)
    return chosen


def _require_package() -> None:
    """Raises DetectorError without face-alignment 1.5 or later: earlier ones take other weights, without `compile`."""
    try:
        found = version("face-alignment")
    except PackageNotFoundError:
        found = "nothing"
    if found == "nothing" or tuple(int(n) for n in re.findall(r"\d+", found)[:2]) < (1, 5):
        raise DetectorError(
            f"detector face_alignment: expected the package face-alignment 1.5 or newer; got {found}. "
            'Run: pip install "facerecon-torch[face-alignment]"'
        )


def _require_weights(download: bool) -> None:
    missing = missing_weights()
    if not missing or (download and _site_answers()):
        return
    wanted = "; ".join(f"put {_SITE}/{file.name} at {file}" for file in missing)
    reason = "there is no way to the network" if download else "downloading is switched off"
    raise DetectorError(f"detector face_alignment: expected weight files that are missing, and {reason}: {wanted}")


def _site_answers() -> bool:
    """One request for headers, so that a machine without network learns it at once and not after a long
    wait."""
    try:
        with urlopen(Request(f"{_SITE}/{WEIGHT_FILES[0]}", method="HEAD"), timeout=5):
            return True
    except HTTPError:
        return True  # it answers, if only to refuse this kind of request
    except OSError:
        return False


@contextmanager
def _cudnn_choice_kept() -> Iterator[None]:
    """The package switches cuDNN's benchmark mode on for the whole process; this puts the caller's choice
    back."""
    before = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
