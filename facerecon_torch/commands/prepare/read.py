"""First half of preparing: the files of a recording -> a scan to register, its landmarks, a crop of its photograph."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.commands.prepare.photograph import CropMaker, find_landmarks
from facerecon_torch.commands.prepare.specs import PrepareSpec
from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.data.recordings import RecordedScan, Recording, open_data_set
from facerecon_torch.errors import DataFileError, FaceReconError
from facerecon_torch.files import is_disk_full
from facerecon_torch.fitting.crop import apply_affine
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.landmark_lifting import lift_landmarks
from facerecon_torch.registration.scan.surface import ScanBatch, resample_grid, resample_mesh

__all__ = ["ReadyScan", "ScanReader", "attempt"]

_LEAST_POINTS = 4  # 3D landmarks that fix a pose, with one to spare
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


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
