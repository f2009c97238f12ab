"""Reconstructs every face of many files; a bad file is reported and the others go on.

Files are read and decoded ahead on threads, faces go through the model by the batch, results are written behind.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.cascade.cuda_graph import LatencySession
from facerecon_torch.cascade.found_faces import in_batches
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.output_files import FaceFiles, ImageFaces
from facerecon_torch.commands.infer.records import Origin, settings_digest
from facerecon_torch.errors import FaceReconError, NoFaceError
from facerecon_torch.export.parameters import FittedFaces
from facerecon_torch.files import path_text
from facerecon_torch.images.device_decode import nvjpeg
from facerecon_torch.images.loader import Loaded, decoded_ahead, decoded_in_batches, read_content
from facerecon_torch.images.read import Pixels, list_images
from facerecon_torch.landmarks.batches import DETECTED_TOGETHER, detect_in_batches
from facerecon_torch.landmarks.detector import LandmarkDetector, choose_faces
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.factored import factor_vertices
from facerecon_torch.runtime.memory import halve_on_out_of_memory
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.runtime.timer import Timer, timed
from facerecon_torch.structures import Detection

__all__ = ["InferReport", "find_images", "infer"]

_log = logging.getLogger(__name__)
_RESUMED = 1024  # images looked up together
_MANY = 5_000  # images from which on factored vertices win back the seconds that factoring takes


@dataclass
class InferReport:
    """How it went: files with faces, faces written, (file, reason) of every file that gave none, and the time taken."""

    images: int = 0
    faces: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0


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


@in_own_precision
def infer(
    images: Sequence[Path],
    output: Path,
    reconstructor: FaceReconstructor,
    detector: LandmarkDetector,
    options: InferOptions,
    *,
    times: Timer | None = None,
) -> InferReport:
    """Reconstruct the faces of every image and write them below `output`; the table parameters.parquet is written last.
    `times` collects the seconds of every stage.

    Raises DetectorError where the detector cannot run at all, OSError where `output` cannot be written or holds a file
    of somebody else under the name of the table.
    """
    if times is not None:
        with times.active():
            return infer(images, output, reconstructor, detector, options)
    began = time.perf_counter()
    run = _Run(images, output, reconstructor, detector, options)
    run.go()
    order = {path: k for k, path in enumerate(images)}
    run.report.failures.sort(key=lambda failure: order[failure[0]])
    run.report.seconds = time.perf_counter() - began
    return run.report


@dataclass(frozen=True)
class _Seen:
    """A decoded photograph and the faces that were chosen in it."""

    path: Path
    pixels: Pixels
    faces: list[Detection]
    origin: Origin

    def __len__(self) -> int:
        return len(self.faces)


class _Run:
    """One call of `infer`."""

    def __init__(
        self,
        images: Sequence[Path],
        output: Path,
        reconstructor: FaceReconstructor,
        detector: LandmarkDetector,
        options: InferOptions,
    ) -> None:
        self.report = InferReport()
        self._images, self._detector, self._options = images, detector, options
        self._reconstructor, model = reconstructor, reconstructor.face_model
        self._batch = options.faces_at_once(model.device)
        self._together = min(self._batch, DETECTED_TOGETHER)
        self._files = FaceFiles(output, images, model, options.formats, self._count, detector.convention)
        self._settings = settings_digest(reconstructor, detector, options)
        self._one = LatencySession(reconstructor, size=options.size) if options.mode == "latency" else None
        self._vertices = model.vertices
        if self._files.need_vertices and len(images) >= _MANY and isinstance(model, BilinearModel):
            self._vertices = factor_vertices(model) or model.vertices

    def go(self) -> None:
        with ThreadPoolExecutor(self._options.workers) as pool:
            done = self._done(pool) if self._options.resume else set()
            todo = [path for path in self._images if path not in done]
            self.report.skipped = len(done)
            bar = tqdm(total=len(todo), desc="faces", unit="image", disable=not self._options.progress)
            for seen in in_batches(self._seen(self._loaded(todo, pool), bar), self._batch):
                for faces in self._reconstructed(seen):
                    self._hand_over(faces, pool)
                if self._one is not None:
                    self._files.wait()
            self._files.finish()
        bar.close()

    def _done(self, pool: ThreadPoolExecutor) -> set[Path]:
        """The images whose results an earlier run wrote to the end, from the same files and settings. Their faces go
        into the table."""
        done: set[Path] = set()
        recorded = filter(self._files.has_record, self._images)
        while group := list(islice(recorded, _RESUMED)):
            for path, faces in zip(group, pool.map(self._earlier, group), strict=True):
                if faces is not None:
                    self._files.keep(path, faces)
                    done.add(path)
        return done

    def _earlier(self, path: Path) -> FittedFaces | None:
        """The faces that an earlier run wrote of this image, from the same file and settings."""
        try:
            content = read_content(path, max_megapixels=self._options.max_megapixels)
            return self._files.earlier(path, self._origin(path, content.digest))
        except Exception:  # the run meets it again and says what it is
            return None

    def _origin(self, path: Path, digest: str) -> Origin:
        fingerprint = getattr(self._detector, "fingerprint", None)
        return Origin(self._settings, digest, None if fingerprint is None else fingerprint(path))

    def _loaded(self, todo: Sequence[Path], pool: ThreadPoolExecutor) -> Iterator[Loaded]:
        device, most = self._reconstructor.device, self._options.max_megapixels
        if self._options.decode == "device" and device.type == "cuda":
            return decoded_in_batches(todo, pool, nvjpeg(device), batch=self._batch, max_megapixels=most)
        ahead = 1 if self._one is not None else 2 * self._batch
        return decoded_ahead(todo, pool, ahead=ahead, max_megapixels=most)

    def _seen(self, loaded: Iterable[Loaded], bar: "tqdm[NoReturn]") -> Iterator[_Seen]:
        """Decoded images with faces, in order; failures go into the report."""
        for path, found in detect_in_batches(self._detector, loaded, together=self._together):
            bar.update()
            if isinstance(found, Exception):
                self._fail(path, found)
                continue
            image, faces = found
            try:
                chosen = choose_faces(faces, self._options.faces, source=path)
                origin = self._origin(path, image.digest)
            except Exception as error:  # of this image alone: the others go on
                self._fail(path, error)
                continue
            yield _Seen(path, image.pixels, chosen, origin)

    def _hand_over(self, faces: ImageFaces, pool: ThreadPoolExecutor) -> None:
        try:
            self._files.write(faces, pool)
        except ValueError as error:
            self._fail(faces.path, error)

    def _count(self, image: ImageFaces, error: Exception | None) -> None:
        """Enter the outcome of an image that was to be written."""
        if error is not None:
            self._fail(image.path, error)
            return
        self.report.images += 1
        self.report.faces += len(image.faces)

    def _fail(self, path: Path, error: Exception) -> None:
        reason = str(error)
        if not isinstance(error, (FaceReconError, ValueError, OSError)):
            reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        reason = path_text(reason if str(path) in reason else f"{path}: {reason}")
        self.report.failures.append((path, reason))
        _log.error("%s", reason)
        _log.debug("where it happened", exc_info=error)

    def _reconstructed(self, seen: Sequence[_Seen]) -> Iterator[ImageFaces]:
        """The pictures of a batch with their faces; where the batch cannot be done as one, picture by picture, so that
        only the culprit fails."""
        try:
            solved = self._solve([(one.pixels, found) for one in seen for found in one.faces])
        except Exception as error:
            if len(seen) == 1:
                self._fail(seen[0].path, error)
                return
            for one in seen:
                yield from self._reconstructed([one])
            return
        start = 0
        for one in seen:
            faces = solved[start : start + len(one.faces)]
            start += len(one.faces)
            impossible = faces.plausibility.impossible
            reasons = [faces[k].plausibility.reasons()[0] for k in impossible.nonzero()[:, 0].tolist()]
            usable = (~impossible).nonzero()[:, 0]
            if not len(usable):
                self._fail(one.path, NoFaceError(f"{one.path}: expected landmarks of a face; {reasons[0]}"))
                continue
            for reason in reasons:
                _log.warning("%s: one of %d faces is left out: %s", one.path, len(faces), reason)
            detections = [one.faces[k] for k in usable.tolist()]
            yield ImageFaces(one.path, one.pixels, detections, faces[usable], one.origin)

    def _solve(self, faces: Sequence[tuple[Pixels, Detection]]) -> Reconstruction:
        """The faces of a batch on the CPU, with vertices where a format needs them."""
        points = to_paper66(torch.stack([found.points for _, found in faces]))
        scores = torch.tensor([found.score for _, found in faces])

        def work(part: slice) -> Reconstruction:
            return self._solved([pixels for pixels, _ in faces[part]], points[part], scores[part])

        return Reconstruction.cat(halve_on_out_of_memory(work, range(len(faces)), self._batch))

    def _solved(
        self, images: Sequence[Pixels], landmarks: Float[Tensor, "n 66 2"], scores: Float[Tensor, "n"]
    ) -> Reconstruction:
        faces = self._on_device(images, landmarks)
        faces = replace(faces, scores=scores.to(faces.scores))
        if self._files.need_vertices:
            with timed("mesh"):
                parameters = faces.parameters
                shapes = self._vertices(parameters.identity, parameters.expression)
                faces = faces.with_vertices(shapes * faces.size[:, None, None])
        _ = faces.expression_weights, faces.plausibility  # computed by the batch
        return faces.cpu()

    def _on_device(self, images: Sequence[Pixels], landmarks: Float[Tensor, "n 66 2"]) -> Reconstruction:
        if self._one is not None and len(landmarks) == 1:
            return self._one(images, landmarks)
        return self._reconstructor.reconstruct(images, landmarks, size=self._options.size)
