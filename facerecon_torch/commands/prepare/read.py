"""First half of preparing: one recording's files -> a scan to register, its landmarks and the picture to keep."""

import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.commands.prepare.crop import CropMaker
from facerecon_torch.commands.prepare.landmarks import find_landmarks
from facerecon_torch.commands.prepare.specs import PrepareSpec
from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.data.recordings import RecordedScan, Recording, open_data_set
from facerecon_torch.errors import DataFileError, FaceReconError
from facerecon_torch.fitting.crop import apply_affine
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.landmark_lifting import lift_landmarks
from facerecon_torch.registration.scan.surface import ScanBatch, resample_grid, resample_mesh

__all__ = ["ReadyScan", "ScanReader", "attempt", "is_disk_full"]

_LEAST_POINTS = 4  # 3D landmarks that fix a pose with one to spare
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadyScan:
    """One recording, read. `landmarks` and `marks`, all points that the data set labels, are in px of the picture whose
    file is `crop`; NaN where they are not known."""

    recording: Recording
    scan: ScanBatch
    labelled: Float[Tensor, "66 3"]
    lifted: Float[Tensor, "66 3"]
    landmarks: Float[Tensor, "66 2"]
    marks: Float[Tensor, "m 2"]
    crop: bytes
    flags: tuple[str, ...]


class ScanReader:
    """Reads recordings of one data set. Lives on the CPU."""

    def __init__(self, data: str, detector: LandmarkDetector, model: FaceModel, spec: PrepareSpec) -> None:
        self._source = open_data_set(data)
        self._detector = detector
        self._crops = CropMaker(model, spec.crop)
        self._spacing = float(spec.spacing)

    def read_all(self, recordings: Sequence[Recording]) -> tuple[list[ReadyScan], dict[str, str]]:
        """What could be read, and why the others could not. Raises OSError where the disk is full, MemoryError."""
        ready: list[ReadyScan] = []
        failures: dict[str, str] = {}
        for recording in recordings:
            answer = attempt(lambda recording=recording: self.read(recording))  # type: ignore[misc]
            if isinstance(answer, str):
                failures[recording.name] = answer
            else:
                ready.append(answer)
        return ready, failures

    def read(self, recording: Recording) -> ReadyScan:
        """Raises FaceReconError for what is missing, damaged or not enough to register."""
        scan = self._source.read_recording(recording)
        found, flags = find_landmarks(self._detector, scan, recording.image)
        points, valid, pixels = _listed(scan)
        lifted = lift_landmarks(points, valid, pixels, found.to(points))
        known = torch.isfinite(torch.cat([scan.labelled.to(points), lifted])).all(dim=-1)
        if int(known.sum()) < _LEAST_POINTS:
            raise DataFileError(
                f"{recording.name}: landmarks: expected at least {_LEAST_POINTS} on the scan, labelled or found in the "
                f"picture; got {int(known.sum())} ({', '.join(flags) or 'a face was found, beside the scan'})"
            )
        aim = torch.where(torch.isfinite(found), found, scan.labelled_pixels.to(found))
        cut = self._crops.cut(scan.image, aim)
        if cut is None:
            raise DataFileError(f"{recording.name}: landmarks: expected points that fix a camera; got a degenerate set")
        crop, to_crop = cut
        return ReadyScan(
            recording,
            self._regular(scan),
            scan.labelled.float(),
            lifted.float(),
            apply_affine(found.double(), to_crop.double()).float(),
            apply_affine(scan.mark_pixels.double(), to_crop.double()).float(),
            self._crops.encode(crop),
            flags,
        )

    def _regular(self, scan: RecordedScan) -> ScanBatch:
        surface = scan.surface
        if isinstance(surface, RangeGrid):
            return resample_grid(surface.points.float(), surface.valid, spacing=self._spacing)
        return resample_mesh(surface.vertices.float(), surface.triangles, spacing=self._spacing)


def _listed(scan: RecordedScan) -> tuple[Tensor, Tensor, Tensor]:
    """Points, which of them are measured, and their places in the picture."""
    points = scan.points
    return points, torch.ones(len(points), dtype=torch.bool), scan.point_pixels


def attempt(work: Callable[[], _Answer]) -> _Answer | str:
    """The answer of `work`, or the reason why there is none, in one line.

    A full disk and a full memory are nobody's recording's fault: they are passed on.
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
    except Exception as error:  # one recording, whatever it does, must not end the run
        _log.debug("an unforeseen failure", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    return " ".join(reason.split())


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write for want of room."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL
