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
from torch import Tensor

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import as_bytes, on_host, require_image, resize, sort_faces
from facerecon_torch.structures import Detection

__all__ = ["WEIGHT_FILES", "FaceAlignmentDetector", "missing_weights", "usable_device", "weight_paths"]

_SITE = "https://www.adrianbulat.com/downloads/python-fan"
WEIGHT_FILES = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")
_SMALLEST = 32  # px: below, the last feature maps of S3FD are empty


def weight_paths() -> list[Path]:
    """Where face-alignment looks for its weight files ($TORCH_HOME/hub/checkpoints), there or not."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return [folder / name for name in WEIGHT_FILES]


def missing_weights() -> list[Path]:
    """The weight files that face-alignment would have to download, as the paths where it looks for them."""
    return [file for file in weight_paths() if not file.is_file()]


class FaceAlignmentDetector:
    """Adapter with `detect` of LandmarkDetector.

    Faces are searched in the picture reduced to `max_side` px, landmarks are predicted at full resolution;
    they are whole pixels, as the package gives them. `download=False` never touches the network. CUDA is used
    only when asked for by `device`. Raises DetectorError when the package, a weight file (and the network to
    fetch it) or the device is missing.
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
        download: bool = True,
    ) -> None:
        if max_side < _SMALLEST or not 0 <= min_score < 1:
            raise ValueError(
                f"max_side must be at least {_SMALLEST} and min_score in [0, 1); got {max_side}, {min_score}"
            )
        self.device = usable_device(device)
        self.max_side, self.min_score = max_side, min_score
        _require_package()
        _require_weights(download)
        self._native: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_native": None}  # each process loads its own

    def detect(self, images: Sequence[Tensor], *, paths: Sequence[Path | None] | None = None) -> list[list[Detection]]:
        """As LandmarkDetector says; `paths` are not used. Scores are S3FD's probabilities."""
        return [self._faces(image) for image in images]

    def _faces(self, image: Tensor) -> list[Detection]:
        require_image(image)
        picture = on_host(image)
        searched = resize(picture, min(1.0, self.max_side / max(picture.shape[-2:])))
        if min(searched.shape[-2:]) < _SMALLEST:
            return []
        native = self._load()
        x, y = (searched.shape[i] / picture.shape[i] for i in (2, 1))
        with _cudnn_choice_kept():
            found = native.face_detector.detect_from_image(as_bytes(searched))
            boxes = np.array([row[:5] for row in found], dtype=np.float64).reshape(-1, 5)
            boxes[:, :4] = (boxes[:, :4] + 0.5) / (x, y, x, y) - 0.5
            boxes = boxes[np.isfinite(boxes).all(1) & (boxes[:, 2:4] - boxes[:, :2] >= 1).all(1)]
            if not len(boxes):
                return []
            points = native.get_landmarks_from_image(as_bytes(picture), detected_faces=list(boxes))
        return sort_faces(
            [
                Detection(
                    box=(float(row[0]), float(row[1]), float(row[2]), float(row[3])),
                    score=float(row[4]),
                    points=torch.as_tensor(np.asarray(p), dtype=torch.float64),
                )
                for row, p in zip(boxes, points)
            ]
        )

    def _load(self) -> Any:
        if self._native is None:
            from face_alignment import FaceAlignment, LandmarksType

            try:
                with _cudnn_choice_kept():
                    self._native = FaceAlignment(
                        LandmarksType.TWO_D,
                        device=str(self.device),
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


def usable_device(device: str | torch.device) -> torch.device:
    """`device` if it is the CPU or a CUDA device that torch can use, else DetectorError: never another one."""
    chosen = torch.device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise DetectorError(f"detector face_alignment: device must be cpu or cuda; got {chosen}")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DetectorError(f"detector face_alignment: device {chosen} was asked for; torch finds no CUDA device")
    return chosen


def _require_package() -> None:
    """Releases before 1.5 take other weight files and have no `compile` switch."""
    try:
        found = version("face-alignment")
    except PackageNotFoundError:
        found = "nothing"
    if found == "nothing" or tuple(int(n) for n in re.findall(r"\d+", found)[:2]) < (1, 5):
        raise DetectorError(
            f"detector face_alignment: expected the package face-alignment 1.5 or newer; came {found}. "
            'Run: pip install "face-alignment>=1.5"'
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
