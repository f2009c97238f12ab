"""The files of a reconstructed folder: names, order of writing, and how a run finds what was done before."""

import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.export.face_table import FaceLayout, FaceTable
from facerecon_torch.export.glb import save_glb
from facerecon_torch.export.obj import save_obj
from facerecon_torch.export.parameters import FaceRecord, save_parameters_json
from facerecon_torch.export.ply import save_ply
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.read import Pixels, in_unit_range
from facerecon_torch.images.write import save_png
from facerecon_torch.model.base import FaceModel
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Camera, Detection, FaceParameters, Mesh

__all__ = ["FORMATS", "FaceFiles", "ImageFaces"]

FORMATS = ("json", "obj", "ply", "glb", "overlay")
_WAITING = 4  # images whose files are queued
_MESHES: dict[str, Callable[..., Path]] = {"obj": save_obj, "ply": save_ply, "glb": save_glb}


@dataclass(frozen=True)
class ImageFaces:
    """The faces of one image, the largest first, on the CPU."""

    path: Path
    pixels: Pixels
    detections: Sequence[Detection]
    faces: Reconstruction


class FaceFiles:
    """Writes below one folder: NAME.json, .obj, .ply, .glb for every face, NAME_overlay.png for every image.

    NAME is the image's stem (with its suffix, `photo_jpg`, where images would share a name); further faces of the
    image, counted from the largest, are NAME_face1, NAME_face2, ... The first face's JSON is written last: it marks an
    image as done. The table parameters.parquet holds all faces of the run.
    """

    def __init__(self, folder: Path, images: Sequence[Path], model: FaceModel, formats: Sequence[str]) -> None:
        if model.topology is None:
            raise ValueError("reconstruction needs a whole model; this one was restricted to some vertices")
        self._folder = folder
        self._formats = tuple(formats)
        self._names = _names(images)
        self._position = {image: k for k, image in enumerate(images)}
        self._triangles, self._uv = model.topology.triangles.cpu(), model.topology.uv.cpu()
        self.layout = FaceLayout(model.n_identity, model.n_expression, tuple(model.expression_names))
        self._table = FaceTable(self.layout)
        self._jobs: deque[Future[None]] = deque()
        if "overlay" in self._formats:
            get_backend()  # starts here, once, rather than in every thread of the pool

    @property
    def need_vertices(self) -> bool:
        """Whether some format shows the whole surface."""
        return not {"overlay", *_MESHES}.isdisjoint(self._formats)

    def is_done(self, image: Path) -> bool:
        """Whether an earlier run wrote this image to the end."""
        return (self._folder / f"{self._names[image]}.json").is_file()

    def keep(self, image: Path) -> None:
        """Take the records of an image that an earlier run wrote into this run's table."""
        name, k = self._names[image], 0
        while (path := self._folder / f"{name}{_suffix(k)}.json").is_file():
            record = _read_record(json.loads(path.read_text(encoding="utf-8")))
            about = (self._position[image], k, record.image, record.box, record.score)
            self._table.add(self.layout.row(record)[None], [about])
            k += 1

    def write(self, image: ImageFaces, pool: Executor) -> None:
        """Take one image into the table and hand its files to `pool`. Raises ValueError for a face whose values are not
        finite."""
        faces = image.faces
        position, path = self._position[image.path], str(image.path)
        about = [(position, k, path, one.box, one.score) for k, one in enumerate(image.detections)]
        weights = torch.stack(list(faces.expression_weights.values()), dim=-1) if self.layout.expression_names else None
        rows = self.layout.pack(
            faces.parameters,
            faces.size.new_empty(len(faces), 0) if weights is None else weights,
            faces.camera,
            faces.landmarks,
            faces.landmarks_3d,
            faces.landmarks_2d,
        )
        finite = all(math.isfinite(value) for one in image.detections for value in (*one.box, one.score))
        if not (finite and bool(torch.isfinite(rows).all())):
            for k in range(len(faces)):
                self._record(image, k)  # raises for the face that is wrong
        self._table.add(rows, about)
        if not self._formats:
            return
        self._jobs.append(pool.submit(copy_context().run, self._write, image))
        # few images wait in memory, and a full disk stops the run at once
        while len(self._jobs) > _WAITING:
            self._jobs.popleft().result()

    def wait(self) -> None:
        """Until all files are written."""
        while self._jobs:
            self._jobs.popleft().result()

    def finish(self) -> None:
        """Wait for the files, then write the table of all faces."""
        self.wait()
        with timed("write"):
            self._table.save(self._folder / "parameters.parquet")

    def _write(self, image: ImageFaces) -> None:
        with timed("write"):
            name = self._names[image.path]
            self._remove_earlier(name)
            vertices = image.faces.vertices if self.need_vertices else ()
            meshes = [Mesh(vertices=v, triangles=self._triangles, uv=self._uv) for v in vertices]
            if "overlay" in self._formats:
                save_png(self._overlay(image, meshes), self._folder / f"{name}_overlay.png")
            for k in reversed(range(len(image.detections))):
                stem = f"{name}{_suffix(k)}"
                for kind in self._formats:
                    if kind in _MESHES:
                        _MESHES[kind](meshes[k], self._folder / f"{stem}.{kind}")
                if "json" in self._formats:
                    save_parameters_json(self._record(image, k), self._folder / f"{stem}.json")

    def _record(self, image: ImageFaces, k: int) -> FaceRecord:
        face, detection = image.faces[k], image.detections[k]
        weights = face.expression_weights
        return FaceRecord(
            image=str(image.path),
            face=k,
            box=detection.box,
            score=detection.score,
            parameters=face.parameters,
            expression_names=tuple(weights),
            expression_weights=torch.stack(list(weights.values())) if weights else face.size.new_empty(0),
            camera=face.camera,
            landmarks_2d=face.landmarks,
            landmarks_3d=face.landmarks_3d,
            projected_2d=face.landmarks_2d,
        )

    def _overlay(self, image: ImageFaces, meshes: Sequence[Mesh]) -> Tensor:
        """The photograph with all its faces, the smallest drawn first."""
        drawn = in_unit_range(image.pixels).cpu()
        for k in reversed(range(len(meshes))):
            drawn = draw_overlay(
                drawn,
                project_with_depth(meshes[k].vertices, image.faces.camera[k]),
                meshes[k].triangles,
                landmarks=image.detections[k].points.cpu(),
                fitted_landmarks=image.faces.landmarks_2d[k],
            )
        return drawn

    def _remove_earlier(self, name: str) -> None:
        """What an earlier run said of this image, so that no face of it stays behind."""
        k = 0
        while (path := self._folder / f"{name}{_suffix(k)}.json").is_file():
            for kind in ("json", *_MESHES):
                path.with_name(f"{name}{_suffix(k)}.{kind}").unlink(missing_ok=True)
            k += 1


def _suffix(face: int) -> str:
    return f"_face{face}" if face else ""


def _names(images: Sequence[Path]) -> dict[Path, str]:
    """A name for every image that no other image's files can take."""
    stems = Counter(re.sub(r"_face\d+$", "", path.stem) for path in images)
    names = {p: p.stem if stems[re.sub(r"_face\d+$", "", p.stem)] == 1 else p.name.replace(".", "_") for p in images}
    taken = Counter(names.values())
    doubled = [str(path) for path, name in names.items() if taken[name] > 1]
    if doubled:
        raise ValueError(f"the results of these images would have one name; rename them: {', '.join(doubled[:5])}")
    return names


def _read_record(content: dict[str, Any]) -> FaceRecord:
    camera = content["camera"]
    return FaceRecord(
        image=content["image"],
        face=content["face"],
        box=tuple(content["box"]),
        score=content["score"],
        parameters=FaceParameters(identity=torch.tensor(content["alpha"]), expression=torch.tensor(content["beta"])),
        expression_names=tuple(content["expression_weights"]),
        expression_weights=torch.tensor(list(content["expression_weights"].values())),
        camera=Camera(
            rotation=torch.tensor(camera["rotation"]).reshape(3, 3),
            scale=torch.tensor(camera["scale"]),
            translation=torch.tensor(camera["translation"]),
            degenerate=torch.tensor(camera["degenerate"]),
        ),
        landmarks_2d=torch.tensor(content["landmarks_2d"]),
        landmarks_3d=torch.tensor(content["landmarks_3d"]),
        projected_2d=torch.tensor(content["projected_2d"]),
    )
