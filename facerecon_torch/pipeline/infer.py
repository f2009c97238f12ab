"""Reconstructs every face of many files; a bad file is reported and the others go on."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.errors import DetectorError, FaceReconError, NoFaceError
from facerecon_torch.images.read import list_images, read_image
from facerecon_torch.landmarks.detector import LandmarkDetector, choose_faces
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.pipeline.artefact import FaceCascade
from facerecon_torch.pipeline.face_files import FORMATS, FaceFiles
from facerecon_torch.pipeline.reconstruct import KnownSize, ReconstructedFace, reconstruct_landmarks, unpack
from facerecon_torch.structures import Detection

__all__ = ["InferOptions", "InferReport", "find_images", "infer"]

_log = logging.getLogger(__name__)
_AHEAD = 4  # photographs decoded ahead of the detector
_BATCH_PIXELS = 40_000_000  # 0.5 GB of float32


@dataclass(frozen=True, kw_only=True)
class InferOptions:
    """What is done with a folder of photographs."""

    faces: str = "all"  # all | largest
    batch: int = 32
    formats: Sequence[str] = FORMATS
    resume: bool = False
    size: KnownSize = field(default_factory=KnownSize)
    workers: int | None = None  # threads that decode and write
    progress: bool = True

    def __post_init__(self) -> None:
        if self.faces not in ("all", "largest"):
            raise ValueError(f"faces must be all or largest; got {self.faces!r}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1; got {self.batch}")
        unknown = [f for f in self.formats if f not in FORMATS]
        if unknown:
            raise ValueError(f"formats must be among {', '.join(FORMATS)}; got {', '.join(map(str, unknown))}")
        if self.resume and "json" not in self.formats:
            raise ValueError(f"resume=true needs the format json, which marks what is done; got {list(self.formats)}")


@dataclass
class InferReport:
    """How it went: files with faces, faces written, and (file, reason) of every file that gave none."""

    images: int = 0
    faces: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)


def find_images(source: Path) -> list[Path]:
    """The image itself, or the images of a folder in natural order.

    Raises FileNotFoundError for a missing path and ValueError for a folder without images.
    """
    if source.is_dir():
        found = list_images(source)
        if not found:
            raise ValueError(f"input must be an image or a folder of images; {source} holds no image")
        return found
    if not source.exists():
        raise FileNotFoundError(f"input must be an image or a folder of images; nothing is at {source}")
    return [source]


@dataclass(frozen=True)
class _Seen:
    """A decoded photograph and the faces that were chosen in it."""

    path: Path
    image: Float[Tensor, "3 height width"]
    faces: list[Detection]


def infer(
    images: Sequence[Path], output: Path, face: FaceCascade, detector: LandmarkDetector, options: InferOptions
) -> InferReport:
    """Reconstruct the faces of every image and write them below `output`; the table parameters.parquet is written last.

    Raises DetectorError where the detector cannot run at all, OSError where `output` cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    files, report = FaceFiles(output, images, face, options.formats), InferReport()
    done = [path for path in images if options.resume and files.is_done(path)]
    for path in done:
        files.keep(path)
    skipped = set(done)
    todo = [path for path in images if path not in skipped]
    report.skipped = len(done)
    bar = tqdm(total=len(todo), desc="faces", unit="image", disable=not options.progress)
    with ThreadPoolExecutor(options.workers) as pool:
        for seen in _batches(_observed(todo, detector, options, pool, report, bar), options.batch):
            for one, faces in _reconstructed(seen, face, options, report):
                try:
                    files.write(one.path, one.image, faces, pool)
                except ValueError as error:
                    _fail(report, one.path, str(error))
                    continue
                report.images += 1
                report.faces += len(faces)
        files.finish()
    bar.close()
    return report


def _observed(
    todo: Sequence[Path],
    detector: LandmarkDetector,
    options: InferOptions,
    pool: ThreadPoolExecutor,
    report: InferReport,
    bar: "tqdm[NoReturn]",
) -> Iterator[_Seen]:
    """Decoded images with faces, in order; failures go into the report. Decoding runs ahead on the pool."""
    ahead: deque[Future[Tensor]] = deque(pool.submit(read_image, path) for path in todo[:_AHEAD])
    for k, path in enumerate(todo):
        if k + _AHEAD < len(todo):
            ahead.append(pool.submit(read_image, todo[k + _AHEAD]))
        job = ahead.popleft()
        bar.update()
        try:
            image = job.result()
            yield _Seen(path, image, choose_faces(detector.detect(image, path=path), options.faces, source=path))
        except DetectorError:
            raise
        except (FaceReconError, OSError) as error:
            _fail(report, path, str(error))


def _fail(report: InferReport, path: Path, reason: str) -> None:
    report.failures.append((path, reason))
    _log.error("%s", reason if str(path) in reason else f"{path}: {reason}")


def _batches(seen: Iterable[_Seen], size: int) -> Iterator[list[_Seen]]:
    """Photographs until their faces fill a batch, or their pixels the memory that a batch may take."""
    held: list[_Seen] = []
    for one in seen:
        held.append(one)
        pixels = sum(s.image.shape[-1] * s.image.shape[-2] for s in held)
        if sum(len(s.faces) for s in held) >= size or pixels >= _BATCH_PIXELS:
            yield held
            held = []
    if held:
        yield held


def _reconstructed(
    seen: Sequence[_Seen], face: FaceCascade, options: InferOptions, report: InferReport
) -> Iterator[tuple[_Seen, list[ReconstructedFace]]]:
    done: dict[Path, list[ReconstructedFace]] = {one.path: [] for one in seen}
    for one, unpacked in zip(*_faces_of(seen, face, options, report)):
        if unpacked is not None:
            done[one.path].append(unpacked)
    failed = {path for path, _ in report.failures}
    for one in seen:
        if done[one.path]:
            yield one, done[one.path]
        elif one.path not in failed:
            reason = NoFaceError(f"{one.path}: expected landmarks that fix a pose; those found are degenerate")
            _fail(report, one.path, str(reason))


def _faces_of(
    seen: Sequence[_Seen], face: FaceCascade, options: InferOptions, report: InferReport
) -> tuple[list[_Seen], list[ReconstructedFace | None]]:
    """The faces of a batch; where the batch cannot be done as one, image by image, so that only the culprit fails."""
    pairs = [(one, found) for one in seen for found in one.faces]
    points = to_paper66(torch.stack([found.points for _, found in pairs]).float())
    try:
        answer = reconstruct_landmarks([one.image for one, _ in pairs], points, face, size=options.size)
        return [one for one, _ in pairs], unpack(answer, [found for _, found in pairs], face)
    except ValueError as error:
        if len(seen) == 1:
            _fail(report, seen[0].path, str(error))
            return [], []
    parts = [_faces_of([one], face, options, report) for one in seen]
    return [one for ones, _ in parts for one in ones], [found for _, faces in parts for found in faces]
