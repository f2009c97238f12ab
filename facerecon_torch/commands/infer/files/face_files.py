"""The files of single faces and images beside the tables of a run."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.commands.infer.files.mesh_files import (
    MESH_FORMATS,
    FaceMeshes,
    MeshOptions,
    TextureOptions,
    face_endings,
)
from facerecon_torch.commands.infer.files.names import result_names
from facerecon_torch.commands.infer.files.overlay import draw_faces
from facerecon_torch.commands.infer.inputs.entry import Entry
from facerecon_torch.commands.infer.records import Origin
from facerecon_torch.commands.own_files import is_own, require_own
from facerecon_torch.export.parameters import FittedFaces, save_parameters_json
from facerecon_torch.files import is_disk_full, path_text
from facerecon_torch.formats.face_document import face_suffix
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.images.read import Pixels
from facerecon_torch.images.write import save_jpeg
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.time_limit import result_within
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Detection

__all__ = ["FaceFiles", "ImageFaces", "fitted_faces"]

_WAITING = 4  # images whose files are queued
_ENDINGS = tuple(face_endings(("json", *MESH_FORMATS)))
_FOLDER = "faces"  # of the files of a run with several shards


@dataclass(frozen=True)
class ImageFaces:
    """The faces of one image, the largest first, on the CPU; `origin` is what they were made from."""

    entry: Entry
    pixels: Pixels
    detections: Sequence[Detection]
    faces: Reconstruction
    origin: Origin


@dataclass(frozen=True)
class _Job:
    """An image whose files are being written."""

    image: ImageFaces
    faces: FittedFaces
    written: Future[None]


class FaceFiles:
    """Writes NAME.json and the files of `mesh_files.FaceMeshes` for every face, NAME_overlay.jpg for every image.

    NAME is that of `names.result_names`, as a rule the image's stem; further faces of the image, counted from the
    largest, are NAME_face1, NAME_face2, ... They lie in the output folder, or in its faces/NNNNN for shard NNNNN of
    several. The first face's JSON is written last. Files that are not results of this package are never replaced.

    Args:
        output: the folder of the run.
        model: the face model.
        formats: what is written beside the tables.
        convention: what landmarks mean.
        mesh: which meshes are written.
        texture: how textures are made.
        memory: bytes of the pixels that may wait, beside those of one image.
        seconds: that writing one image may take.
        done: is called for every image that was written, with None, or could not be, with the error.

    Raises:
        ValueError: a restricted model.
    """

    def __init__(
        self,
        output: Path,
        model: FaceModel,
        formats: Sequence[str],
        convention: str,
        *,
        mesh: MeshOptions,
        texture: TextureOptions,
        memory: int,
        seconds: float | None,
        done: Callable[[ImageFaces, FittedFaces, Exception | None], None],
    ) -> None:
        self._meshes = FaceMeshes(model, formats, mesh, texture)
        self._output, self._folder = output, output
        self._formats = tuple(formats)
        self._names: dict[int, str] = {}
        self._expression_names = tuple(model.expression_names)
        self._convention = convention
        self._memory, self._seconds, self._done = memory, seconds, done
        self._jobs: deque[_Job] = deque()
        if self.need_vertices:
            get_backend()  # starts here, once, rather than in every thread of the pool

    @property
    def need_vertices(self) -> bool:
        """Whether some format shows the whole surface."""
        return "overlay" in self._formats or self._meshes.needed

    def begin(self, shard: int, shards: int, entries: Sequence[Entry]) -> None:
        """The entries of a shard, whose files come next."""
        self._folder = self._output if shards == 1 else self._output / _FOLDER / f"{shard:05d}"
        self._names = result_names({entry.number: entry.place for entry in entries}) if self._formats else {}

    def stem(self, entry: Entry) -> str | None:
        """The path of an entry's files in the output folder, without suffix; None where no format is asked for."""
        if not self._formats:
            return None
        return path_text((self._folder / self._names[entry.number]).relative_to(self._output).as_posix())

    def write(self, image: ImageFaces, faces: FittedFaces, pool: Executor) -> None:
        """Hand one image's files to `pool`; `done` is called when they are written."""
        if not self._formats:
            self._done(image, faces, None)
            return
        self._jobs.append(_Job(image, faces, pool.submit(copy_context().run, self._write, image, faces)))
        # few images wait in memory, and a full disk stops the run at once
        while len(self._jobs) > _WAITING or sum(job.image.pixels.nbytes for job in self._jobs) > self._memory:
            self._settle(self._jobs.popleft())

    def wait(self) -> None:
        """Until all files are written."""
        while self._jobs:
            self._settle(self._jobs.popleft())

    def forget(self) -> None:
        """Drop what is queued, of a shard that is given up."""
        self._jobs.clear()

    def _settle(self, job: _Job) -> None:
        try:
            result_within(job.written, self._seconds)
        except Exception as error:
            if is_disk_full(error):
                raise
            self._done(job.image, job.faces, error)
        else:
            self._done(job.image, job.faces, None)

    def _write(self, image: ImageFaces, fitted: FittedFaces) -> None:
        with timed("write"):
            name = self._names[image.entry.number]
            overlay = self._folder / f"{name}_overlay.jpg"
            stems = [f"{name}{face_suffix(k)}" for k in range(len(image.detections))]
            results = [self._folder / f"{stem}{ending}" for stem in stems for ending in face_endings(self._formats)]
            require_own([*results, overlay] if "overlay" in self._formats else results)
            self._remove_earlier(name)
            if "overlay" in self._formats:
                save_jpeg(self._overlay(image), overlay)
            made_from = asdict(image.origin)
            for k, stem in reversed(list(enumerate(stems))):
                if self._meshes.needed:
                    self._meshes.write(image.faces[k], image.pixels, self._folder, stem)
                if "json" in self._formats:
                    save_parameters_json(
                        fitted[k],
                        self._folder / f"{stem}.json",
                        image=image.entry.text,
                        number=k,
                        expression_names=self._expression_names,
                        count=len(stems),
                        made_from=made_from,
                        convention=self._convention,
                    )

    def _overlay(self, image: ImageFaces) -> Tensor:
        """The photograph with all its faces, the smallest drawn first."""
        meshes = [self._meshes.mesh(vertices) for vertices in image.faces.vertices]
        points = [one.points for one in image.detections]
        return draw_faces(image.pixels, meshes, image.faces.camera, points, image.faces.projected_2d)

    def _remove_earlier(self, name: str) -> None:
        """Remove the results that an earlier run wrote for this image, of all formats, so that no face of it stays."""
        earlier = [self._folder / f"{name}_overlay.jpg"]
        for k in count():
            files = [self._folder / f"{name}{face_suffix(k)}{ending}" for ending in _ENDINGS]
            if not any(file.is_file() for file in files):
                break
            earlier += files
        for file in filter(is_own, earlier):
            file.unlink()


def fitted_faces(faces: Reconstruction, detections: Sequence[Detection]) -> FittedFaces:
    """The values of faces that tables and files hold, with the boxes and scores of their detections."""
    return replace(
        FittedFaces.of(faces),
        boxes=torch.tensor([detection.box for detection in detections], dtype=torch.float64),
        scores=torch.tensor([detection.score for detection in detections], dtype=torch.float64),
    )
