"""The files of a reconstructed folder: names, order of writing, and how a run finds what was done before."""

import json
from collections import Counter
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
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.write import save_png
from facerecon_torch.pipeline.artefact import FaceCascade
from facerecon_torch.pipeline.reconstruct import ReconstructedFace
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FORMATS", "FaceFiles"]

FORMATS = ("json", "obj", "ply", "glb", "overlay")
_MESHES: dict[str, Callable[..., Path]] = {"obj": save_obj, "ply": save_ply, "glb": save_glb}


class FaceFiles:
    """Writes below one folder: NAME.json, .obj, .ply, .glb for every face, NAME_overlay.png for every image.

    NAME is the image's stem (with its suffix, `photo_jpg`, where two images share a stem); further faces of the image,
    counted from the largest, are NAME_face1, NAME_face2, ... The overlay is written last: it marks an image as done.
    """

    def __init__(self, folder: Path, images: Sequence[Path], face: FaceCascade, formats: Sequence[str]) -> None:
        self._folder = folder
        self._face = face
        self._formats = tuple(formats)
        shared = Counter(path.stem for path in images)
        self._names = {p: p.stem if shared[p.stem] == 1 else p.name.replace(".", "_") for p in images}
        self._images = list(images)
        self._records: dict[Path, list[FaceRecord]] = {}
        self._jobs: list[Future[None]] = []

    def is_done(self, image: Path) -> bool:
        """Whether every file of the image's first face is there."""
        name = self._names[image]
        endings = ["_overlay.png" if f == "overlay" else f".{f}" for f in self._formats]
        return "json" in self._formats and all((self._folder / (name + ending)).is_file() for ending in endings)

    def write(
        self,
        image: Path,
        picture: Float[Tensor, "3 height width"],
        faces: Sequence[ReconstructedFace],
        pool: Executor,
    ) -> None:
        """Hand the files of one image to `pool`."""
        self._records[image] = [_record(image, k, face) for k, face in enumerate(faces)]
        self._jobs.append(pool.submit(self._write, image, picture, list(faces)))
        # finished jobs are asked for their errors early: a full disk stops the run instead of filling the queue
        while len(self._jobs) > 64:
            self._jobs.pop(0).result()

    def finish(self) -> None:
        """Wait for the files, then write the table of all faces, those of earlier runs included."""
        for job in self._jobs:
            job.result()
        self._jobs.clear()
        records = [r for image in self._images for r in self._records.get(image) or self._earlier(image)]
        names = self._face.model.expression_names
        save_parameters_parquet(records, self._folder / "parameters.parquet", expression_names=names)

    def _stem(self, image: Path, k: int) -> str:
        return self._names[image] + (f"_face{k}" if k else "")

    def _write(self, image: Path, picture: Tensor, faces: list[ReconstructedFace]) -> None:
        for k, face in enumerate(faces):
            stem = self._folder / self._stem(image, k)
            for kind in self._formats:
                if kind in _MESHES:
                    _MESHES[kind](face.mesh, stem.with_name(f"{stem.name}.{kind}"))
            if "json" in self._formats:
                save_parameters_json(self._records[image][k], stem.with_name(f"{stem.name}.json"))
        if "overlay" in self._formats:
            save_png(_overlay(picture, faces), self._folder / f"{self._names[image]}_overlay.png")

    def _earlier(self, image: Path) -> list[FaceRecord]:
        """Records of an image that an earlier run wrote."""
        if not self.is_done(image):
            return []
        found: list[FaceRecord] = []
        while (path := self._folder / f"{self._stem(image, len(found))}.json").is_file():
            found.append(_read_record(json.loads(path.read_text(encoding="utf-8"))))
        return found


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
        landmarks_2d=face.landmarks_2d,
        landmarks_3d=face.landmarks_3d,
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
    )
