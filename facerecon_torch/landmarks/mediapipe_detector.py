"""MediaPipe's face networks as a landmark detector: free for any use, batched on the CPU or a CUDA device."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks.detector import FREE, require_cuda, require_image, require_selection, select_faces
from facerecon_torch.landmarks.mediapipe.face_detector import FaceBoxes, FaceDetector
from facerecon_torch.landmarks.mediapipe.face_mesh import FaceMesh
from facerecon_torch.landmarks.mediapipe.mesh_points import map_file, mesh_to_ibug68
from facerecon_torch.landmarks.mediapipe.weights import weight_file
from facerecon_torch.structures import Detection

__all__ = ["TILES", "MediapipeDetector"]

TILES = ("never", "auto", "always")
_SMALL = 0.15  # longer side of a face over the longer side of the picture
_SAME_FACE = 0.5  # intersection over union of the boxes of two meshes from which on they are one face


class _Networks(NamedTuple):
    short: FaceDetector
    full: FaceDetector
    mesh: FaceMesh


class MediapipeDetector:
    """Adapter with `detect` of LandmarkDetector, on any device, for all pictures and all faces of a batch at once.

    A picture is searched by the short range network; where it finds no face, by the full range network; where that
    finds none either, or where a face is below 0.15 of the picture's longer side, so that others may have been
    missed, also in overlapping tiles of half its side (`tiles`: `never`; `always`: in every picture). A face in a tile
    counts if the short range network finds it, too, in a square of twice its side. Face Mesh then gives the points
    of every face. Scores are the lesser of the detector's score and Face Mesh's presence; faces below `min_score` are
    left out. On a CUDA device the networks run in half precision.
    """

    name = "mediapipe"
    convention = "mediapipe"
    side_by_side = True
    licence = f"{FREE}: MediaPipe's face networks are under the Apache License 2.0"

    @staticmethod
    def weight_files() -> list[Path]:
        """The weights that the package brings: of the networks, and of the map from the mesh to the landmarks."""
        networks = ("face_detector_short_range", "face_detector_full_range", "face_mesh")
        return [*(weight_file(name) for name in networks), map_file()]

    def __init__(
        self,
        *,
        device: str | torch.device = "cpu",
        tiles: str = "auto",
        min_score: float = 0.65,
        min_face: float = 0.0,
        max_faces: int | None = None,
    ) -> None:
        if tiles not in TILES:
            raise ValueError(f"tiles must be {', '.join(TILES)}; got {tiles!r}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score must lie in [0, 1]; got {min_score}")
        self.device = torch.device(device)
        require_cuda(self.name, self.device)
        require_selection(min_face, max_faces)
        missing = [file for file in self.weight_files() if not file.is_file()]
        if missing:
            raise DetectorError(
                f"detector mediapipe: expected the package's file {missing[0]}; there is none. Reinstall"
            )
        self.tiles, self.min_score, self.min_face, self.max_faces = tiles, float(min_score), min_face, max_faces
        self._networks: _Networks | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_networks": None}  # each process loads its own

    def detect(self, images: Sequence[Tensor], *, paths: Sequence[Path | None] | None = None) -> list[list[Detection]]:
        """As LandmarkDetector says; `paths` are not used."""
        for image in images:
            require_image(image)
        pictures = [image.detach().to(self.device) for image in images]
        networks = self._load()
        boxes = self._found(pictures, networks)
        owner = [k for k, faces in enumerate(boxes) for _ in range(len(faces))]
        if not owner:
            return [[] for _ in images]
        found = FaceBoxes.cat(boxes)
        mesh, presence = networks.mesh([pictures[k] for k in owner], found.boxes, found.points)
        points, scores = mesh_to_ibug68(mesh).cpu(), torch.minimum(found.scores, presence.to(found.scores)).cpu()
        around = torch.cat([mesh[..., :2].amin(1), mesh[..., :2].amax(1)], -1).cpu()
        faces: list[list[Detection]] = [[] for _ in images]
        for k in _kept(around, scores, torch.tensor(owner), self.min_score):
            x0, y0, x1, y1 = around[k].tolist()
            faces[owner[k]].append(Detection(box=(x0, y0, x1, y1), score=float(scores[k]), points=points[k]))
        return [
            select_faces(own, (image.shape[-2], image.shape[-1]), min_face=self.min_face, max_faces=self.max_faces)
            for own, image in zip(faces, images, strict=True)
        ]

    def _found(self, pictures: Sequence[Tensor], networks: _Networks) -> list[FaceBoxes]:
        """The candidates of each picture."""
        found = _where_none(networks.short(pictures), pictures, networks.full)
        if self.tiles == "never":
            return found
        rows = list(range(len(found))) if self.tiles == "always" else _may_miss(found, pictures)
        for k, boxes in zip(rows, _in_tiles([pictures[k] for k in rows], networks), strict=True):
            found[k] = FaceBoxes.cat([found[k], boxes])
        return found

    def _load(self) -> _Networks:
        if self._networks is None:
            networks = _Networks(
                FaceDetector("short", min_score=self.min_score),
                FaceDetector("full", min_score=self.min_score),
                FaceMesh(),
            )
            for network in networks:
                network.to(self.device)
                if self.device.type == "cuda":
                    network.network.half()
            self._networks = networks
        return self._networks


def _in_tiles(pictures: Sequence[Tensor], networks: _Networks) -> list[FaceBoxes]:
    """The candidates in tiles of each picture that the short range network finds again close up."""
    return networks.short.confirmed(pictures, networks.full(pictures, tiles=True))


def _may_miss(found: Sequence[FaceBoxes], pictures: Sequence[Tensor]) -> list[int]:
    """The pictures that may show faces which a search of the whole picture misses: none was found, or a small one."""
    if not found:
        return []
    sides = [(own.boxes[:, 2:] - own.boxes[:, :2]).amax(1) for own in found]
    least = torch.stack([own.min() if len(own) else own.new_zeros(()) for own in sides]).tolist()  # one transfer
    return [k for k, picture in enumerate(pictures) if least[k] < _SMALL * max(picture.shape[-2:])]


def _where_none(
    found: list[FaceBoxes], pictures: Sequence[Tensor], search: Callable[[list[Tensor]], list[FaceBoxes]]
) -> list[FaceBoxes]:
    """The faces of each picture, those of `search` where none were found."""
    empty = [k for k, faces in enumerate(found) if not len(faces)]
    for k, faces in zip(empty, search([pictures[k] for k in empty]), strict=True):
        found[k] = faces
    return found


def _kept(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n"], owner: Int[Tensor, "n"], min_score: float
) -> list[int]:
    """The rows of the surest mesh of each face, by non-maximum suppression within each picture."""
    sure = torch.nonzero(scores >= min_score)[:, 0]
    best = torchvision.ops.batched_nms(boxes[sure].float(), scores[sure].float(), owner[sure], _SAME_FACE)
    rows: list[int] = sure[best].tolist()
    return rows
