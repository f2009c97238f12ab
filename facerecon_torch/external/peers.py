"""Other systems that run here, on the images and landmarks of ours: eos-py, and MediaPipe's face mesh."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import box_iou

from facerecon_torch.external.eos.fit import EosFitter, EosSettings, fit_all, setting_grid
from facerecon_torch.external.eos.model_files import EosFiles, write_eos_model
from facerecon_torch.external.methods import FaceGroup, MethodFaces, model_group, seen_landmarks
from facerecon_torch.external.truth import ModelTruth, Truth
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.mediapipe import FaceBoxes, FaceDetector, FaceMesh
from facerecon_torch.landmarks.mediapipe.mesh_points import N_MESH, mesh_to_ibug68_3d, mesh_triangles
from facerecon_torch.landmarks.scheme import from_paper66, is_present
from facerecon_torch.metrics.scan import SEVEN_POINTS
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import Camera

__all__ = ["PEERS", "EosSpec", "eos_faces", "image_sizes", "mediapipe_faces", "runnable_peers", "tuned_settings"]

PEERS = ("eos", "mediapipe")
_TOGETHER = 16  # images in memory at once
_SAME_FACE = 0.3  # least intersection over union of a detected face's box and that of the landmarks


def runnable_peers() -> tuple[str, ...]:
    """The peers whose packages are installed."""
    return PEERS if find_spec("eos") is not None else tuple(name for name in PEERS if name != "eos")


@dataclass(frozen=True, kw_only=True)
class EosSpec:
    """The settings of eos, and the user's own model instead of the comparison's.

    Attributes:
        settings: of the fit.
        model: the user's own model (.bin); None: the comparison's face model, written as one.
        mapping, contour, edges: of the user's model (`EosFiles`).
        tune: images of training people on which the settings are chosen; 0: `settings` are taken.
    """

    settings: EosSettings = field(default_factory=EosSettings)
    model: str | None = None
    mapping: str | None = None
    contour: str | None = None
    edges: str | None = None
    tune: int = 0

    def __post_init__(self) -> None:
        if (self.model is None) != (self.mapping is None):
            raise ValueError("eos.model and eos.mapping belong together: give both or neither")
        if self.model is not None and self.tune:
            raise ValueError("eos.tune is for the comparison's own face model; leave it out with eos.model")

    def files(self, model: FaceModel, folder: Path) -> EosFiles:
        """The user's files, or those of the comparison's model, written to `folder`."""
        if self.model is None or self.mapping is None:
            return write_eos_model(model, folder)
        contour, edges = (None if path is None else Path(path) for path in (self.contour, self.edges))
        return EosFiles(Path(self.model), Path(self.mapping), contour, edges)


def eos_faces(fitter: EosFitter, settings: EosSettings, truth: Truth, model: FaceModel | None) -> MethodFaces:
    """eos's faces at the truth's landmarks.

    Args:
        fitter: of eos's model.
        settings: of the fit.
        truth: images and landmarks.
        model: the comparison's model, if the fitter's is made of it; else None.

    Raises:
        ImageFileError: the size of an image cannot be read.
    """
    faces = fit_all(fitter, truth.landmarks, image_sizes(truth.images), settings)
    vertices = torch.stack([face.vertices for face in faces])
    if model is not None:
        group = model_group(model, vertices, range(len(truth)))
    else:
        group = FaceGroup(
            places=tuple(range(len(truth))),
            vertices=vertices,
            triangles=fitter.triangles,
            seven=vertices[:, [fitter.vertices[point] for point in SEVEN_POINTS]],
            corresponds=False,
        )
    points = torch.full((len(truth), 68, 2), torch.nan)
    if model is not None:
        points = seen_landmarks(model, vertices, Camera.stack([face.camera for face in faces]))
    return MethodFaces(name="eos", groups=(group,), image_points=points)


def image_sizes(images: Sequence[Path | None]) -> list[tuple[int, int]]:
    """The width and height of photographs in px.

    Raises:
        ImageFileError: one cannot be read.
        ValueError: one is missing.
    """
    sizes = []
    for path in images:
        if path is None:
            raise ValueError("eos needs a photograph of every image, for its size")
        height, width = read_pixels(path).shape[-2:]
        sizes.append((width, height))
    return sizes


def tuned_settings(
    fitter: EosFitter, landmarks: Float[Tensor, "n 66 2"], sizes: Sequence[tuple[int, int]], truth: ModelTruth
) -> tuple[EosSettings, dict[str, float]]:
    """The settings of `setting_grid` with the least similarity-aligned MAE on images of training people, and the MAE in
    mm of all of them.

    Args:
        fitter: of the truth's model.
        landmarks: of the images.
        sizes: width and height of the images, px.
        truth: true meshes of the images.
    """
    errors: dict[EosSettings, float] = {}
    for settings in filter(fitter.can_take, setting_grid()):
        faces = fit_all(fitter, landmarks, sizes, settings)
        vertices = torch.stack([face.vertices for face in faces])
        errors[settings] = float(vertex_errors(vertices, truth.meshes, "similarity", rows=truth.rows).mae.mean())
    best = min(errors, key=lambda settings: errors[settings])
    return best, {str(settings): error for settings, error in errors.items()}


def mediapipe_faces(truth: Truth, device: torch.device) -> MethodFaces:
    """MediaPipe's face mesh of every image: 468 points in px, turned into the axes of the model frame.

    The network sees the face of MediaPipe's own detector that overlaps the given landmarks, or where it finds none, the
    box of the landmarks turned by the roll of the eyes.

    Raises:
        ImageFileError: an image cannot be read.
        ValueError: an image is missing, or has too few landmarks for a region.
    """
    network, detector = FaceMesh().to(device), FaceDetector().to(device)
    meshes = []
    for start in range(0, len(truth), _TOGETHER):
        files = [path for path in truth.images[start : start + _TOGETHER] if path is not None]
        points = truth.landmarks[start : start + _TOGETHER]
        if len(files) != len(points) or not bool(is_present(points).any(-1).all()):
            raise ValueError("mediapipe needs a photograph and landmarks of every image")
        pictures = [read_pixels(path) for path in files]
        regions = [_region(own, marks) for own, marks in zip(detector(pictures), points, strict=True)]
        boxes, six = (torch.stack(part).double() for part in zip(*regions, strict=True))
        found, _ = network(pictures, boxes, six)
        meshes.append(found[:, :N_MESH].cpu())
    mesh = torch.cat(meshes)
    points68 = mesh_to_ibug68_3d(mesh)
    axes = mesh.new_tensor([1.0, -1.0, -1.0])
    group = FaceGroup(
        places=tuple(range(len(truth))),
        vertices=mesh * axes,
        triangles=mesh_triangles(),
        seven=points68[:, list(SEVEN_POINTS)] * axes,
        corresponds=False,
    )
    return MethodFaces(name="mediapipe", groups=(group,), image_points=points68[..., :2].float())


def _region(found: FaceBoxes, landmarks: Float[Tensor, "66 2"]) -> tuple[Float[Tensor, "4"], Float[Tensor, "6 2"]]:
    """The box and the six points of the detected face at the landmarks; without one, the landmarks' own."""
    present = landmarks[is_present(landmarks)]
    box = torch.cat([present.amin(0), present.amax(0)])
    overlap = box_iou(found.boxes.cpu().float(), box[None].float())[:, 0]
    if len(overlap) and float(overlap.max()) >= _SAME_FACE:
        best = int(overlap.argmax())
        return found.boxes[best].cpu(), found.points[best].cpu()
    ibug = from_paper66(landmarks)
    eyes = torch.stack([ibug[36:42].mean(0), ibug[42:48].mean(0)])
    level = torch.stack([box[:2], box[[2, 1]]])
    return box, torch.where(torch.isfinite(eyes).all(), eyes, level).repeat(3, 1)
