"""First half of preparing: the files of a recording -> a scan to register, its landmarks, a crop of its photograph."""

import io
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from facerecon_torch.commands.prepare.specs import CropFileSpec, PrepareSpec
from facerecon_torch.data.recordings import RangeGrid, RecordedScan, Recording, open_data_set
from facerecon_torch.errors import DataFileError, FaceReconError
from facerecon_torch.files import is_disk_full
from facerecon_torch.fitting.crop import CropSpec, FaceCropper, apply_affine, crop_faces
from facerecon_torch.images.read import in_bytes
from facerecon_torch.landmarks.detector import LandmarkDetector, resize
from facerecon_torch.landmarks.scheme import is_present, to_paper66
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.landmark_lifting import lift_landmarks
from facerecon_torch.registration.scan.surface import ScanBatch, resample_grid, resample_mesh

__all__ = ["N_LANDMARKS", "CropMaker", "ReadyScan", "ScanReader", "attempt", "find_landmarks"]

N_LANDMARKS = 66
_LONGEST = 640  # px: longest side of the detector's image; the face fills it, and detectors work at 200 px or less
_MARGIN = 0.4  # of the scan's width and height, around it: detectors need the whole head
# Mean distances, in radii of the expected points, beyond which a face is another one: of its points from the labelled
# ones, and of its middle from the scan's middle; a scan may reach down to the shoulders.
_FARTHEST_POINTS, _FARTHEST_MIDDLE = 0.5, 1.5
_QUALITY = 95
_LEAST_POINTS = 4  # 3D landmarks that fix a pose, with one to spare
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


def find_landmarks(
    detector: LandmarkDetector, scan: RecordedScan, path: Path
) -> tuple[Float[Tensor, "66 2"], tuple[str, ...]]:
    """Points in px of the photograph, NaN where missing, and flags.

    Of several faces, the one nearest to the labelled points is taken; without labelled points, the one nearest to the
    scan. The points are NaN with the flag `no_face` where no face is found, and with `other_face` where every face is
    too far away. Errors of the detector are passed on.
    """
    nothing = scan.image.new_full((N_LANDMARKS, 2), torch.nan)
    # Landmarks of a file count from the corner of the photograph. A detector is faster and more reliable on one face.
    from_file = detector.name == "file"
    left, top, right, bottom = (0, 0, *_size(scan)) if from_file else _window(scan)
    window = scan.image[:, top:bottom, left:right]
    shown = window if from_file else resize(window, min(1.0, _LONGEST / max(window.shape[1:])))
    (detections,) = detector.detect([shown], paths=[path])
    if not detections:
        return nothing, ("no_face",)
    scale = nothing.new_tensor([window.shape[2] / shown.shape[2], window.shape[1] / shown.shape[1]])
    points = to_paper66(torch.stack([detection.points for detection in detections]))
    faces = (points + 0.5) * scale - 0.5 + nothing.new_tensor([left, top])
    distance = _relative_distance(faces, scan)
    best = int(distance.argmin())
    if not float(distance[best]) <= 1:
        return nothing, ("other_face",)
    return faces[best].to(nothing), ()


def _size(scan: RecordedScan) -> tuple[int, int]:
    """Width and height."""
    return scan.image.shape[2], scan.image.shape[1]


def _window(scan: RecordedScan) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of the photograph around the scan, in whole px."""
    width, height = _size(scan)
    pixels = _scan_pixels(scan)
    if not len(pixels):
        return 0, 0, width, height
    low, high = pixels.aminmax(dim=0)
    margin = _MARGIN * (high - low)
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    left, top, right, bottom = max(math.floor(x0), 0), max(math.floor(y0), 0), math.ceil(x1) + 1, math.ceil(y1) + 1
    inside = left < min(right, width) and top < min(bottom, height)
    return (left, top, min(right, width), min(bottom, height)) if inside else (0, 0, width, height)


def _scan_pixels(scan: RecordedScan) -> Float[Tensor, "n 2"]:
    """The places of the scan's points in the photograph, where they are known."""
    pixels = scan.point_pixels
    return pixels[torch.isfinite(pixels).all(dim=-1)]


def _relative_distance(faces: Float[Tensor, "faces 66 2"], scan: RecordedScan) -> Float[Tensor, "faces"]:
    """Mean distance of each face's points from their expected places; a face beyond 1 is another one."""
    labelled = scan.labelled_pixels
    # A source gives the same points of all faces of a photograph.
    is_labelled = torch.isfinite(labelled).all(dim=-1) & is_present(faces).all(dim=0).to(labelled.device)
    if int(is_labelled.sum()) >= 3:
        target, candidates, farthest = labelled[is_labelled], faces[:, is_labelled].to(labelled), _FARTHEST_POINTS
    else:
        target = _scan_pixels(scan)
        if not len(target):
            return faces.new_zeros(len(faces))  # nothing tells the faces apart
        candidates, farthest = faces.nanmean(dim=1, keepdim=True).to(target), _FARTHEST_MIDDLE
    centre = target.mean(dim=0)
    radius = (target - centre).square().sum(dim=-1).mean().sqrt().clamp_min(1)
    goal = target if farthest == _FARTHEST_POINTS else centre
    distance: Tensor = (candidates - goal).norm(dim=-1).mean(dim=-1) / (farthest * radius)
    return distance


class CropMaker:
    """Cuts squares of one size in mm around faces. Raises ValueError for a model without topology."""

    def __init__(self, model: FaceModel, spec: CropFileSpec) -> None:
        self._spec = spec
        self._model = model
        self._cropper = FaceCropper(model, CropSpec(px_per_mm=float(spec.px_per_mm)))

    def cut(
        self, image: Float[Tensor, "3 height width"], landmarks: Float[Tensor, "66 2"]
    ) -> tuple[Float[Tensor, "3 size size"], Float[Tensor, "2 3"]] | None:
        """The square and the map from px of the image to px of the square; None where the landmarks fix no camera.

        `landmarks` are in px, NaN where not known. The square is centred by the camera of Eq. 6 on the mean face.
        """
        weights = torch.isfinite(landmarks).all(dim=-1).double()
        points = landmarks.nan_to_num(0.0).double()
        camera = self._cropper.camera(points[None], weights[None])
        if bool(camera.degenerate):
            return None
        density = min(float(self._spec.px_per_mm), float(camera.scale))
        spec = CropSpec(size=max(1, round(self._spec.span * density)), px_per_mm=density)
        to_crop = FaceCropper(self._model, spec).to_crop(camera)
        if density < self._spec.px_per_mm:  # all pixels of the photograph, moved by whole px: no resampling
            shift = to_crop[..., 2:].round()
            to_crop = torch.cat([torch.eye(2, dtype=shift.dtype)[None], shift], dim=-1)
        crop = crop_faces([image], to_crop.to(image.dtype), spec)
        return crop.image[0], to_crop[0]

    def encode(self, crop: Float[Tensor, "3 size size"]) -> bytes:
        """The content of the image file of a square."""
        values = in_bytes(crop).permute(1, 2, 0).cpu().numpy()
        stream = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(values))
        if self._spec.format == "png":
            image.save(stream, "PNG")
        else:
            image.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
        return stream.getvalue()


@dataclass(frozen=True, kw_only=True)
class ReadyScan:
    """A recording that is ready to be registered.

    `landmarks`, and `marks` (all points that the data set labels), are in px of the picture whose file content is
    `crop`; NaN where they are not known. `labelled` and `lifted` are landmarks on the scan (mm, scan's frame).
    """

    recording: Recording
    scan: ScanBatch
    labelled: Float[Tensor, "66 3"]
    lifted: Float[Tensor, "66 3"]
    landmarks: Float[Tensor, "66 2"]
    marks: Float[Tensor, "m 2"]
    crop: bytes
    flags: tuple[str, ...]


class ScanReader:
    """Reads recordings of one data set, on the CPU."""

    def __init__(self, data: str, detector: LandmarkDetector, model: FaceModel, spec: PrepareSpec) -> None:
        self._source = open_data_set(data)
        self._detector = detector
        self._crops = CropMaker(model, spec.crop)
        self._spacing = float(spec.spacing)

    def read_all(self, recordings: Sequence[Recording]) -> tuple[list[ReadyScan], dict[str, str]]:
        """Scans that could be read, and the reason for each name that could not. Raises OSError where the disk is full,
        MemoryError."""
        ready: list[ReadyScan] = []
        failures: dict[str, str] = {}
        for recording in recordings:
            result = attempt(lambda recording=recording: self.read(recording))  # type: ignore[misc]
            if isinstance(result, str):
                failures[recording.name] = result
            else:
                ready.append(result)
        return ready, failures

    def read(self, recording: Recording) -> ReadyScan:
        """One recording. Raises FaceReconError for files that are missing or damaged, or too few landmarks."""
        scan = self._source.read_recording(recording)
        landmarks, flags = find_landmarks(self._detector, scan, recording.image)
        points = scan.points
        valid = torch.ones(len(points), dtype=torch.bool)
        lifted = lift_landmarks(points, valid, scan.point_pixels, landmarks.to(points))
        n_points = int(torch.isfinite(torch.cat([scan.labelled.to(points), lifted])).all(dim=-1).sum())
        if n_points < _LEAST_POINTS:
            raise DataFileError(
                f"{recording.name}: landmarks: expected at least {_LEAST_POINTS} on the scan, labelled or found in the "
                f"picture; got {n_points} ({', '.join(flags) or 'a face was found, beside the scan'})"
            )
        aim = torch.where(torch.isfinite(landmarks), landmarks, scan.labelled_pixels.to(landmarks))
        cut = self._crops.cut(scan.image, aim)
        if cut is None:
            raise DataFileError(f"{recording.name}: landmarks: expected points that fix a camera; got a degenerate set")
        crop, to_crop = cut
        return ReadyScan(
            recording=recording,
            scan=self._resampled(scan),
            labelled=scan.labelled.float(),
            lifted=lifted.float(),
            landmarks=apply_affine(landmarks.double(), to_crop.double()).float(),
            marks=apply_affine(scan.mark_pixels.double(), to_crop.double()).float(),
            crop=self._crops.encode(crop),
            flags=flags,
        )

    def _resampled(self, scan: RecordedScan) -> ScanBatch:
        surface = scan.surface
        if isinstance(surface, RangeGrid):
            return resample_grid(surface.points.float(), surface.valid, spacing=self._spacing)
        return resample_mesh(surface.vertices.float(), surface.triangles, spacing=self._spacing)


def attempt(work: Callable[[], _Result]) -> _Result | str:
    """The result of `work`, or the reason of its failure in one line.

    Disk-full and out-of-memory errors are raised: they do not belong to one recording.
    """
    try:
        return work()
    except (FaceReconError, ValueError) as error:
        reason = str(error)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except OSError as error:
        if is_disk_full(error):
            raise
        reason = str(error)
    except Exception as error:  # no recording may end the run
        _log.debug("an unforeseen failure", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    return " ".join(reason.split())
