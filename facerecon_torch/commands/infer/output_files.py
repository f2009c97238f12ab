"""The files of a reconstructed folder: names, order of writing, and how a run finds what was done before."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.commands.infer.names import result_names
from facerecon_torch.commands.infer.overlay import draw_faces
from facerecon_torch.commands.infer.records import Origin, read_faces
from facerecon_torch.commands.own_files import is_own, require_own
from facerecon_torch.export.glb import save_glb
from facerecon_torch.export.meshes import save_obj, save_ply
from facerecon_torch.export.parameters import FaceTable, FittedFaces, save_parameters_json
from facerecon_torch.files import is_disk_full, path_text
from facerecon_torch.formats.face_document import face_suffix
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.images.read import Pixels
from facerecon_torch.images.write import save_png
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Detection, Mesh

__all__ = ["FAILURES", "TABLE", "FaceFiles", "ImageFaces"]

TABLE, FAILURES = "parameters.parquet", "failures.json"
_WAITING = 4  # images whose files are queued
_WAITING_BYTES = 2**28  # of their pixels, beside those of one image
_MESHES: dict[str, Callable[..., Path]] = {"obj": save_obj, "ply": save_ply, "glb": save_glb}


@dataclass(frozen=True)
class ImageFaces:
    """The faces of one image, the largest first, on the CPU; `origin` is what they were made from."""

    path: Path
    pixels: Pixels
    detections: Sequence[Detection]
    faces: Reconstruction
    origin: Origin


@dataclass(frozen=True)
class _Job:
    """An image whose files are being written, and its rows of the table."""

    image: ImageFaces
    faces: FittedFaces
    written: Future[None]


class FaceFiles:
    """Writes below one folder: NAME.json, .obj, .ply, .glb for every face, NAME_overlay.png for every image.

    NAME is that of `names.result_names`, as a rule the image's stem; further faces of the image, counted from the
    largest, are NAME_face1, NAME_face2, ... The first face's JSON is written last: it marks an image as done. The table
    parameters.parquet holds all faces of the run. Files that are not results of this package are never replaced.

    Args:
        folder: is made.
        images: of the run, in the order of its table.
        model: the face model.
        formats: what is written beside the table.
        outcome: is called for every image that was written, with None, or could not be, with the error.

    Raises:
        ValueError: a restricted model.
        FileExistsError: the table's or the list of failures' name is taken by a file of somebody else.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[Path],
        model: FaceModel,
        formats: Sequence[str],
        outcome: Callable[[ImageFaces, Exception | None], None],
        convention: str,
    ) -> None:
        if model.topology is None:
            raise ValueError("reconstruction needs a whole model; this one was restricted to some vertices")
        folder.mkdir(parents=True, exist_ok=True)
        require_own([folder / TABLE, folder / FAILURES])
        self._folder = folder
        self._formats = tuple(formats)
        self._names = result_names(images)
        self._position = {image: k for k, image in enumerate(images)}
        self._surface = model.topology.to("cpu").surface()
        self._expression_names = tuple(model.expression_names)
        self._convention = convention
        self._table = FaceTable(self._expression_names, convention=convention)
        self._outcome = outcome
        self._jobs: deque[_Job] = deque()
        if "overlay" in self._formats:
            get_backend()  # starts here, once, rather than in every thread of the pool

    @property
    def need_vertices(self) -> bool:
        """Whether some format shows the whole surface."""
        return not {"overlay", *_MESHES}.isdisjoint(self._formats)

    def has_record(self, image: Path) -> bool:
        """Whether a file stands where an earlier run would have marked this image as done."""
        return self._record_file(image).is_file()

    def earlier(self, image: Path, origin: Origin) -> FittedFaces | None:
        """The faces of an image that an earlier run wrote to the end from the same origin; None without such a run."""
        first = self._record_file(image)
        stem, count = first.stem, 1
        while first.with_name(f"{stem}{face_suffix(count)}.json").is_file():
            count += 1
        later = [first.with_name(f"{stem}{face_suffix(k)}.json") for k in range(1, count)]
        return read_faces(first, later, origin, self._expression_names)

    def keep(self, image: Path, faces: FittedFaces) -> None:
        """Take the faces of an image that an earlier run wrote into this run's table."""
        self._table.append(path_text(image), faces, position=self._position[image])

    def write(self, image: ImageFaces, pool: Executor) -> None:
        """Hand one image's files to `pool`, and its faces to the table once these are written. Raises ValueError for a
        face whose values are not finite."""
        faces = _fitted_faces(image)
        self._table.require(faces)
        self._jobs.append(_Job(image, faces, pool.submit(copy_context().run, self._write, image, faces)))
        # few images wait in memory, and a full disk stops the run at once
        while len(self._jobs) > _WAITING or sum(job.image.pixels.nbytes for job in self._jobs) > _WAITING_BYTES:
            self._settle(self._jobs.popleft())

    def wait(self) -> None:
        """Until all files are written."""
        while self._jobs:
            self._settle(self._jobs.popleft())

    def finish(self) -> None:
        """Wait for the files, then write the table of all faces."""
        self.wait()
        with timed("write"):
            self._table.save(self._folder / TABLE)

    def _settle(self, job: _Job) -> None:
        image, error = job.image, job.written.exception()
        if error is not None and (not isinstance(error, Exception) or is_disk_full(error)):
            raise error
        if error is None:
            self._table.append(path_text(image.path), job.faces, position=self._position[image.path])
        self._outcome(image, error)

    def _write(self, image: ImageFaces, fitted: FittedFaces) -> None:
        if not self._formats:
            return
        with timed("write"):
            name = self._names[image.path]
            overlay = self._folder / f"{name}_overlay.png"
            stems = [f"{name}{face_suffix(k)}" for k in range(len(image.detections))]
            kinds = [kind for kind in self._formats if kind in _MESHES or kind == "json"]
            results = [self._folder / f"{stem}.{kind}" for stem in stems for kind in kinds]
            require_own([*results, overlay] if "overlay" in self._formats else results)
            self._remove_earlier(name)
            vertices = image.faces.vertices if self.need_vertices else ()
            meshes = [Mesh(vertices=v, **self._surface) for v in vertices]
            if "overlay" in self._formats:
                save_png(self._overlay(image, meshes), overlay)
            made_from = asdict(image.origin)
            for k, stem in reversed(list(enumerate(stems))):
                for kind in kinds:
                    if kind in _MESHES:
                        _MESHES[kind](meshes[k], self._folder / f"{stem}.{kind}")
                if "json" in kinds:
                    save_parameters_json(
                        fitted[k],
                        self._folder / f"{stem}.json",
                        image=path_text(image.path),
                        number=k,
                        expression_names=self._expression_names,
                        count=len(stems),
                        made_from=made_from,
                        convention=self._convention,
                    )

    def _overlay(self, image: ImageFaces, meshes: Sequence[Mesh]) -> Tensor:
        """The photograph with all its faces, the smallest drawn first."""
        points = [one.points for one in image.detections]
        return draw_faces(image.pixels, meshes, image.faces.camera, points, image.faces.projected_2d)

    def _remove_earlier(self, name: str) -> None:
        """Remove the results that an earlier run wrote for this image, of all formats, so that no face of it stays."""
        earlier = [self._folder / f"{name}_overlay.png"]
        for k in count():
            files = [self._folder / f"{name}{face_suffix(k)}.{kind}" for kind in ("json", *_MESHES)]
            if not any(file.is_file() for file in files):
                break
            earlier += files
        for file in filter(is_own, earlier):
            file.unlink()

    def _record_file(self, image: Path) -> Path:
        return self._folder / f"{self._names[image]}.json"


def _fitted_faces(image: ImageFaces) -> FittedFaces:
    """The values of the faces that files hold, with the boxes and scores of their detections."""
    faces, detections = image.faces, image.detections
    weights = list(faces.expression_weights.values())
    return FittedFaces(
        boxes=torch.tensor([detection.box for detection in detections], dtype=torch.float64),
        scores=torch.tensor([detection.score for detection in detections], dtype=torch.float64),
        parameters=faces.parameters,
        expression_weights=torch.stack(weights, dim=-1) if weights else faces.size.new_empty(len(faces), 0),
        camera=faces.camera,
        landmarks_2d=faces.landmarks,
        landmarks_3d=faces.landmarks_3d,
        projected_2d=faces.projected_2d,
        plausibility=faces.plausibility,
    )
