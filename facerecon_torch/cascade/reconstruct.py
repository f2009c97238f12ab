"""Photographs + cascade -> faces: the function that users call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from facerecon_torch.cascade.checkpoint import FaceCascade
from facerecon_torch.cascade.crops import follow_faces
from facerecon_torch.cascade.feature_cache import CropBank, build_bank
from facerecon_torch.cascade.observe import FaceObserver, Observed
from facerecon_torch.cascade.start import mean_face
from facerecon_torch.checks import require_shape
from facerecon_torch.errors import NoFaceError
from facerecon_torch.features.hog import HogField, HogMaps
from facerecon_torch.features.joint import joint_feature
from facerecon_torch.fitting.crop import apply_affine, camera_from_crop, camera_to_crop
from facerecon_torch.geometry.projection import project
from facerecon_torch.images.read import Pixels, read_pixels
from facerecon_torch.landmarks.detector import LandmarkDetector, choose_faces, detect_faces
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.landmarks.scheme import interpupillary, to_paper66
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Camera, Crop, Detection, FaceParameters, LandmarkFit, Mesh

__all__ = [
    "KnownSize",
    "ReconstructedFace",
    "Reconstruction",
    "reconstruct",
    "reconstruct_crops",
    "reconstruct_landmarks",
    "start_fit",
    "unpack",
]


@dataclass(frozen=True)
class KnownSize:
    """What the user knows of a face's size; an orthographic camera cannot see it. At most one of the two."""

    px_per_mm: float | None = None
    interpupillary_mm: float | None = None

    def __post_init__(self) -> None:
        if self.px_per_mm is not None and self.interpupillary_mm is not None:
            raise ValueError("size.px_per_mm and size.interpupillary_mm must not both be given")
        for name in ("px_per_mm", "interpupillary_mm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"size.{name} must be positive; got {value}")


@dataclass(frozen=True)
class Reconstruction:
    """A batch of faces. `camera` and `landmarks_2d` are in px of the image, shapes in mm in the model frame.

    `size` multiplies the model's shapes; it is 1 unless the user knew the face's size.
    """

    parameters: FaceParameters
    camera: Camera
    landmarks_3d: Float[Tensor, "n 66 3"]
    landmarks_2d: Float[Tensor, "n 66 2"]
    size: Float[Tensor, "n"]


@dataclass(frozen=True)
class ReconstructedFace:
    """One face of one photograph, on the CPU: shapes in mm (model frame), image quantities in px."""

    detection: Detection
    parameters: FaceParameters
    camera: Camera
    landmarks_3d: Float[Tensor, "66 3"]
    landmarks_2d: Float[Tensor, "66 2"]
    expression_weights: Mapping[str, float]
    mesh: Mesh = field(repr=False)


@torch.no_grad()
def reconstruct_landmarks(
    images: Sequence[Shaped[Tensor, "3 height width"]],
    landmarks: Float[Tensor, "n 66 2"],
    face: FaceCascade,
    *,
    size: KnownSize | None = None,
) -> Reconstruction:
    """Run the cascade on one face per image, whose 66 landmarks (px, paper order) are known.

    Images are RGB in [0, 1], or bytes (`read_pixels`), on any device, and may differ in size; everything runs in one
    batch on the device of `face`. A face whose landmarks cannot fix a camera is marked in `camera.degenerate`.
    """
    require_shape("landmarks", landmarks, (66, 2))
    if len(images) != len(landmarks):
        raise ValueError(f"there must be one image per row of landmarks; got {len(images)} and {len(landmarks)}")
    points = landmarks.to(face.model.device, face.model.dtype)
    with timed("fit"):
        camera, fit = follow_faces(points, face.crop_fitter, face.cropper)
    crops = face.cropper.crop(images, camera)
    with timed("fit"):
        inside = apply_affine(points, crops.to_crop)
        fit = start_fit(fit, inside, crops.to_crop, face)
        return reconstruct_crops(crops, inside, fit, face, size=size)


def start_fit(
    fit: LandmarkFit, landmarks: Float[Tensor, "n 66 2"], to_crop: Float[Tensor, "n 2 3"], face: FaceCascade
) -> LandmarkFit:
    """The fit that the cascade starts from, in crop px: that of the crops, moved, since Eq. 7 does not depend on the
    frame; or a new one, where the cascade was trained from another."""
    if face.crop_fit != face.fit:
        return face.fitter.fit(landmarks)
    return replace(fit, camera=camera_to_crop(fit.camera, to_crop))


@torch.no_grad()
def reconstruct_crops(
    crops: Crop,
    landmarks: Float[Tensor, "n 66 2"],
    fit: LandmarkFit,
    face: FaceCascade,
    *,
    size: KnownSize | None = None,
) -> Reconstruction:
    """The cascade on ready crops, from landmarks and their fit in crop px; the camera is in px of the pictures."""
    model = face.model
    start = fit.parameters if face.start == "landmark_fit" else mean_face(model, len(landmarks))
    with timed("features"):
        bank = build_bank(crops.image, face.features.hog, keep=model.dtype)
        field = _field(bank, landmarks)
    observer = FaceObserver(face.fitter, model.n_identity, Observed(landmarks, fit.camera, bank), face.features)

    def observe(x: Float[Tensor, "n p"], k: int) -> Float[Tensor, "n d"]:
        with timed("features"):
            view = observer.view(x)
            return joint_feature(field, landmarks, view.projected, view.camera.scale, face.features)

    with timed("regress"):
        flat = face.cascade.run(start.flat, observe)
    view = observer.view(flat)
    camera = camera_from_crop(view.camera, crops.to_crop)
    factor = _size_factor(view.points, camera, size or KnownSize())
    scaled = Camera(
        rotation=camera.rotation,
        scale=camera.scale / factor,
        translation=camera.translation,
        degenerate=camera.degenerate,
    )
    shape = view.points * factor[:, None, None]
    return Reconstruction(
        FaceParameters.from_flat(flat, model.n_identity), scaled, shape, project(shape, scaled), factor
    )


def _field(bank: CropBank, like: Tensor) -> HogField:
    """All of the bank, described once for all stages and without a copy."""
    if isinstance(bank.source, HogMaps):
        return HogField(bank.source, bank.spec)
    return bank.field(slice(None), like)


def _size_factor(points: Float[Tensor, "n 66 3"], camera: Camera, size: KnownSize) -> Float[Tensor, "n"]:
    """How much larger the face is than the model says: shape and camera trade size freely (p = s F R v + t)."""
    if size.px_per_mm is not None:
        return camera.scale / size.px_per_mm
    if size.interpupillary_mm is not None:
        return size.interpupillary_mm / interpupillary(points)
    return torch.ones_like(camera.scale)


def reconstruct(
    image: object,
    face: FaceCascade,
    *,
    detector: LandmarkDetector | str = "auto",
    faces: str | int = "all",
    size: KnownSize | None = None,
) -> list[ReconstructedFace]:
    """Reconstruct the faces of one photograph, the largest detection first.

    `image`: a file, a float tensor [3, H, W] in [0, 1], or an array [H, W, 3] of uint8 or of floats in [0, 1].
    `faces`: `all`, `largest`, or a position. Raises ImageFileError, DetectorError, and
    NoFaceError where there is no face.
    """
    picture = _as_picture(image)
    path = Path(image) if isinstance(image, (str, Path)) else None
    finder = build_detector(detector) if isinstance(detector, str) else detector
    found = choose_faces(detect_faces(finder, picture, path=path), faces, source=path or "the image")
    points = to_paper66(torch.stack([d.points for d in found]))
    answer = reconstruct_landmarks([picture] * len(found), points, face, size=size)
    whole = [one for one in unpack(answer, found, face) if one is not None]
    if not whole:
        raise NoFaceError(
            f"{path or 'the image'}: expected landmarks that fix a pose; those of every face are degenerate"
        )
    return whole


def unpack(answer: Reconstruction, found: Sequence[Detection], face: FaceCascade) -> list[ReconstructedFace | None]:
    """A batch as single faces on the CPU; None for those whose landmarks are degenerate."""
    model = face.model
    shapes = model.vertices(answer.parameters.identity, answer.parameters.expression) * answer.size[:, None, None]
    weights = model.expression_weights(answer.parameters.expression).cpu()
    topology = model.topology
    if topology is None:
        raise ValueError("reconstruction needs a whole model; this one was restricted to some vertices")
    triangles, uv = topology.triangles.cpu(), topology.uv.cpu()
    shapes, parameters, camera = shapes.cpu(), answer.parameters.to("cpu"), answer.camera.to("cpu")
    points, projected = answer.landmarks_3d.cpu(), answer.landmarks_2d.cpu()
    return [
        None
        if bool(camera.degenerate[k])
        else ReconstructedFace(
            found[k],
            parameters[k],
            camera[k],
            points[k],
            projected[k],
            dict(zip(model.expression_names, weights[k].tolist())),
            Mesh(vertices=shapes[k], triangles=triangles, uv=uv),
        )
        for k in range(len(found))
    ]


def _as_picture(image: object) -> Pixels:
    if isinstance(image, (str, Path)):
        return read_pixels(image)
    if isinstance(image, Tensor):
        picture = image
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ValueError(
                f"image must be a float tensor [3, H, W] in [0, 1]; got {image.dtype} {tuple(image.shape)}"
            )
    elif isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, np.float32, np.float64):
            raise ValueError(f"image must be an array [H, W, 3] of uint8 or float; got {image.dtype} {image.shape}")
        picture = torch.tensor(image).permute(2, 0, 1)
        picture = picture if image.dtype == np.uint8 else picture.float()
    else:
        raise TypeError(f"image must be a file, a tensor or an array; got {type(image).__name__}")
    if picture.dtype == torch.uint8:
        return picture
    low, high = picture.aminmax()
    if not (float(low) >= 0 and float(high) <= 1):  # this form refuses NaN too
        raise ValueError(f"image must lie in [0, 1]; its values run from {float(low):g} to {float(high):g}")
    return picture
