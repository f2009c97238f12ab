"""The files of a reconstructed folder: names, order of writing, and how a run finds what was done before."""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.export.glb import save_glb
from facerecon_torch.export.obj import save_obj
from facerecon_torch.export.parameters import FaceRecord, save_parameters_json, save_parameters_parquet
from facerecon_torch.export.ply import save_ply
from facerecon_torch.geometry.mesh_ops import get_backend
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.write import save_png
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.pipeline.artefact import FaceCascade
from facerecon_torch.pipeline.reconstruct import ReconstructedFace
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FORMATS", "FaceFiles"]

FORMATS = ("json", "obj", "ply", "glb", "overlay")
_WAITING = 4  # images whose files are queued
_MESHES: dict[str, Callable[..., Path]] = {"obj": save_obj, "ply": save_ply, "glb": save_glb}


class FaceFiles:
    """Writes below one folder: NAME.json, .obj, .ply, .glb for every face, NAME_overlay.png for every image.

    NAME is the image's stem (with its suffix, `photo_jpg`, where images would share a name); further faces of the
    image, counted from the largest, are NAME_face1, NAME_face2, ... The first face's JSON is written last: it marks an
    image as done.
    """

    def __init__(self, folder: Path, images: Sequence[Path], face: FaceCascade, formats: Sequence[str]) -> None:
        self._folder = folder
        self._face = face
        self._formats = tuple(formats)
        self._names = _names(images)
        self._images = list(images)
        self._records: dict[Path, list[FaceRecord]] = {}
        self._jobs: deque[Future[None]] = deque()
        if "overlay" in self._formats:
            get_backend()  # starts here, once, rather than in every thread of the pool

    def is_done(self, image: Path) -> bool:
        """Whether an earlier run wrote this image to the end."""
        return (self._folder / f"{self._names[image]}.json").is_file()

    def keep(self, image: Path) -> None:
        """Take the records of an image that an earlier run wrote into this run's table."""
        name, found = self._names[image], list[FaceRecord]()
        while (path := self._folder / f"{name}{_suffix(len(found))}.json").is_file():
            found.append(_read_record(json.loads(path.read_text(encoding="utf-8"))))
        self._records[image] = found

    def write(
        self,
        image: Path,
        picture: Float[Tensor, "3 height width"],
        faces: Sequence[ReconstructedFace],
        pool: Executor,
    ) -> None:
        """Hand the files of one image to `pool`. Raises ValueError for a face whose values are not finite."""
        self._records[image] = [_record(image, k, face) for k, face in enumerate(faces)]
        self._jobs.append(pool.submit(self._write, image, picture, list(faces)))
        # few pictures wait in memory, and a full disk stops the run at once
        while len(self._jobs) > _WAITING:
            self._jobs.popleft().result()

    def finish(self) -> None:
        """Wait for the files, then write the table of all faces."""
        while self._jobs:
            self._jobs.popleft().result()
        records = [record for image in self._images for record in self._records.get(image, [])]
        names = self._face.model.expression_names
        save_parameters_parquet(records, self._folder / "parameters.parquet", expression_names=names)

    def _write(self, image: Path, picture: Tensor, faces: list[ReconstructedFace]) -> None:
        name = self._names[image]
        self._remove_earlier(name)
        if "overlay" in self._formats:
            save_png(_overlay(picture, faces), self._folder / f"{name}_overlay.png")
        for k, face in reversed(list(enumerate(faces))):
            stem = f"{name}{_suffix(k)}"
            for kind in self._formats:
                if kind in _MESHES:
                    _MESHES[kind](face.mesh, self._folder / f"{stem}.{kind}")
            if "json" in self._formats:
                save_parameters_json(self._records[image][k], self._folder / f"{stem}.json")

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


def _overlay(picture: Tensor, faces: Sequence[ReconstructedFace]) -> Tensor:
    """The photograph with all its faces, the smallest drawn first."""
    drawn = picture.cpu()
    for face in reversed(faces):
        drawn = draw_overlay(
            drawn,
            project_with_depth(face.mesh.vertices, face.camera),
            face.mesh.triangles,
            landmarks=face.detection.points,
            fitted_landmarks=face.landmarks_2d,
        )
    return drawn


def _record(image: Path, k: int, face: ReconstructedFace) -> FaceRecord:
    names = tuple(face.expression_weights)
    return FaceRecord(
        image=str(image),
        face=k,
        box=face.detection.box,
        score=face.detection.score,
        parameters=face.parameters,
        expression_names=names,
        expression_weights=torch.tensor([face.expression_weights[name] for name in names]),
        camera=face.camera,
        landmarks_2d=to_paper66(face.detection.points[None].float().cpu())[0],
        landmarks_3d=face.landmarks_3d,
        projected_2d=face.landmarks_2d,
    )


def _read_record(content: dict[str, Any]) -> FaceRecord:
    camera = content["camera"]
    return FaceRecord(
        image=content["image"],
        face=content["face"],
        box=tuple(content["box"]),
        score=content["score"],
        parameters=FaceParameters(torch.tensor(content["alpha"]), torch.tensor(content["beta"])),
        expression_names=tuple(content["expression_weights"]),
        expression_weights=torch.tensor(list(content["expression_weights"].values())),
        camera=Camera(
            torch.tensor(camera["rotation"]).reshape(3, 3),
            torch.tensor(camera["scale"]),
            torch.tensor(camera["translation"]),
            torch.tensor(camera["degenerate"]),
        ),
        landmarks_2d=torch.tensor(content["landmarks_2d"]),
        landmarks_3d=torch.tensor(content["landmarks_3d"]),
        projected_2d=torch.tensor(content["projected_2d"]),
    )
