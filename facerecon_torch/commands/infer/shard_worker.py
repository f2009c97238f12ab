"""Reconstructs the inputs of one shard: the function that every engine calls.

Files are read and decoded ahead on threads, faces go through the model by the batch, results are written behind. An
exception of reading, detection, fitting or writing is the outcome of one input, and the others go on.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.cuda_graph import LatencySession
from facerecon_torch.cascade.found_faces import in_batches
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.detection import Failure, FoundImage, Loaded, search
from facerecon_torch.commands.infer.files.face_files import FaceFiles, ImageFaces, fitted_faces
from facerecon_torch.commands.infer.inputs.entry import Entry
from facerecon_torch.commands.infer.inputs.reading import EntryReader
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.outcomes import ImplausibleFaceError, Outcome, outcome_of
from facerecon_torch.commands.infer.records import Origin
from facerecon_torch.errors import TimeLimitError
from facerecon_torch.export.face_table import FaceTable, ImageRow
from facerecon_torch.export.parameters import FittedFaces
from facerecon_torch.images.device_decode import nvjpeg
from facerecon_torch.images.loader import decoded_ahead, decoded_in_batches
from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.batches import DETECTED_TOGETHER, in_groups
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.factored import factor_vertices
from facerecon_torch.runtime.lanes import Lanes
from facerecon_torch.runtime.memory import halve_on_out_of_memory
from facerecon_torch.runtime.time_limit import DaemonPool
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Detection

__all__ = ["ShardResult", "ShardWorker", "WorkerSpec"]

_log = logging.getLogger(__name__)
_MANY = 5_000  # images from which on factored vertices win back the seconds that factoring takes
_MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """Everything that a worker needs beside its shards; it can be sent to other processes.

    Attributes:
        output: the folder of the run.
        reconstructor: on the device of the work.
        detector: of landmarks.
        options: of the run.
        formats: what is written beside the tables.
        fingerprint: of the settings.
        inputs: of the whole run.
        shards: of the whole run.
    """

    output: Path
    reconstructor: FaceReconstructor
    detector: LandmarkDetector
    options: InferOptions
    formats: tuple[str, ...]
    fingerprint: str
    inputs: int
    shards: int


@dataclass(frozen=True)
class ShardResult:
    """The faces of the inputs of a shard, and the inputs without faces."""

    faces: FaceTable
    failures: list[Outcome]


class ShardWorker:
    """Reconstructs shards, one after the other.

    Args:
        spec: what it works with.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec, options = spec, spec.options
        reconstructor, model = spec.reconstructor, spec.reconstructor.face_model
        self._batch = options.faces_at_once(model.device)
        self._memory = int(options.ahead_mb * _MEGABYTE)
        self._files = FaceFiles(
            spec.output, model, spec.formats, spec.detector.convention,
            mesh=options.mesh, texture=options.texture,
            memory=self._memory, seconds=options.seconds, done=self._written,
        )  # fmt: skip
        self._detector = spec.detector
        self._one = self._session()
        self._reader = EntryReader(options.max_megapixels)
        self._pool = DaemonPool(options.threads())
        self._vertices = model.vertices
        if self._files.need_vertices and spec.inputs >= _MANY and isinstance(model, BilinearModel):
            self._vertices = factor_vertices(model) or model.vertices
        self._lanes = Lanes(
            reconstructor.device, options.seconds,
            side_by_side=getattr(spec.detector, "side_by_side", False), alone=self._one is not None,
        )  # fmt: skip

    def _session(self) -> LatencySession | None:
        options = self._spec.options
        return LatencySession(self._spec.reconstructor, size=options.size) if options.mode == "latency" else None

    def _renew(self) -> None:
        """Replace session and detector after a timeout: the abandoned call may still use the old ones."""
        self._one = self._session()
        if not getattr(self._detector, "side_by_side", False):
            self._detector = copy(self._detector)

    def close(self) -> None:
        """End the threads and close files."""
        self._lanes.close()
        self._pool.shutdown()
        self._reader.close()

    def run(self, shard: int, entries: Sequence[Entry], advance: Callable[[int], object] = id) -> ShardResult:
        """The faces of the entries, and the entries without faces.

        Args:
            shard: number of the shard.
            entries: of the shard.
            advance: is called with the number of failures so far for every image that was searched.

        Raises:
            OSError: the disk is full.
            DetectorError: the detector cannot run.
        """
        convention = self._spec.detector.convention
        names = tuple(self._spec.reconstructor.face_model.expression_names)
        table = FaceTable(names, convention=convention, fingerprint=self._spec.fingerprint)
        self._result = ShardResult(table, [])
        self._files.begin(shard, self._spec.shards, entries)
        try:
            batches = in_batches(self._found(entries, advance), self._batch, self._lanes.count)
            for image in self._lanes.worked(batches, self._reconstructed, _late("fit"), self._renew):
                if isinstance(image, ImageFaces):
                    self._hand_over(image)
                else:
                    self._fail(*image)
                if self._one is not None:
                    self._files.wait()
            self._files.wait()
        finally:
            self._files.forget()
        return self._result

    def _loaded(self, entries: Sequence[Entry]) -> Iterator[Loaded]:
        options, device = self._spec.options, self._spec.reconstructor.device
        limits: dict[str, Any] = {"max_megapixels": options.max_megapixels, "memory": self._memory,
                                  "seconds": options.seconds}  # fmt: skip
        if options.decode == "device" and device.type == "cuda":
            decoder = nvjpeg(device)
            return decoded_in_batches(entries, self._pool, self._reader, decoder, batch=self._batch, **limits)
        ahead = 1 if self._one is not None else 2 * self._batch
        return decoded_ahead(entries, self._pool, self._reader, ahead=ahead, **limits)

    def _found(self, entries: Sequence[Entry], advance: Callable[[int], object]) -> Iterator[FoundImage]:
        """Decoded images with faces, in order; the others have their outcome."""
        groups = in_groups(self._loaded(entries), min(self._batch, DETECTED_TOGETHER), self._lanes.count)
        for image in self._lanes.worked(groups, self._searched, _late("detect"), self._renew):
            advance(len(self._result.failures))
            if isinstance(image, FoundImage):
                yield image
            else:
                self._fail(*image)

    def _searched(self, group: Sequence[Loaded]) -> list[FoundImage | Failure]:
        return search(self._detector, self._spec.options.faces, group)

    def _fail(self, entry: Entry, stage: str, error: Exception) -> None:
        # What took too long to read is not read again.
        size, digest = (None, None) if isinstance(error, TimeLimitError) else self._reader.digest(entry)
        outcome = outcome_of(entry, stage, error, size=size, sha256=digest)
        self._result.failures.append(outcome)
        _log.error("%s", outcome.reason)
        _log.debug("where it happened", exc_info=error)

    def _hand_over(self, image: ImageFaces) -> None:
        try:
            faces = fitted_faces(image.faces, image.detections)
            self._result.faces.require(faces)
        except Exception as error:
            self._fail(image.entry, "fit", error)
            return
        self._files.write(image, faces, self._pool)

    def _written(self, image: ImageFaces, faces: FittedFaces, error: Exception | None) -> None:
        """Enter the outcome of an image whose files were to be written."""
        if error is not None:
            self._fail(image.entry, "write", error)
            return
        entry = image.entry
        row = ImageRow(
            input=entry.number, path=entry.text, id=entry.id, frame=entry.frame, time=entry.time,
            subject=entry.subject, sha256=image.origin.image, files=self._files.stem(entry),
        )  # fmt: skip
        self._result.faces.append(row, faces)

    def _reconstructed(self, found: Sequence[FoundImage]) -> list[ImageFaces | Failure]:
        """The images of a batch with their faces. A batch that cannot be done as one is halved until the images that
        fail stand alone."""
        try:
            solved = self._solve([(one.pixels, face) for one in found for face in one.faces])
        except Exception as error:
            failure = error.with_traceback(None)  # which holds the tensors of the batch
        else:
            return self._plausible(found, solved)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(found) == 1:
            return [(found[0].entry, "fit", failure)]
        middle = len(found) // 2
        return self._reconstructed(found[:middle]) + self._reconstructed(found[middle:])

    def _plausible(self, found: Sequence[FoundImage], solved: Reconstruction) -> list[ImageFaces | Failure]:
        """The images with the faces that are possible ones."""
        images, start = list[ImageFaces | Failure](), 0
        for one in found:
            faces = solved[start : start + len(one.faces)]
            start += len(one.faces)
            impossible = faces.plausibility.impossible
            reasons = [faces[k].plausibility.reasons()[0] for k in impossible.nonzero()[:, 0].tolist()]
            usable = (~impossible).nonzero()[:, 0]
            place = one.entry.place
            if not len(usable):
                error = ImplausibleFaceError(f"{place}: expected landmarks of a face; {reasons[0]}")
                images.append((one.entry, "fit", error))
                continue
            for reason in reasons:
                _log.warning("%s: one of %d faces is left out: %s", place, len(faces), reason)
            detections = [one.faces[k] for k in usable.tolist()]
            origin = Origin(self._spec.fingerprint, one.digest, one.landmarks)
            images.append(ImageFaces(one.entry, one.pixels, detections, faces[usable], origin))
        return images

    def _solve(self, faces: Sequence[tuple[Pixels, Detection]]) -> Reconstruction:
        """The faces of a batch on the CPU, with vertices where a format needs them."""
        points = to_paper66(torch.stack([face.points for _, face in faces]))
        scores = torch.tensor([face.score for _, face in faces])

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
        return self._spec.reconstructor.reconstruct(images, landmarks, size=self._spec.options.size)


def _late(stage: str) -> Callable[[Any, TimeLimitError], Failure]:
    """The outcome of an image that took too long at a stage."""

    def outcome(image: Any, error: TimeLimitError) -> Failure:
        entry = image.entry if isinstance(image, FoundImage) else image[0]
        return entry, stage, error

    return outcome
