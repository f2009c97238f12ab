"""Canonical crops: every face at the same pixel density, in images of the same size.

The camera of Eq. 6 on the mean face gives the place of the face and its pixels per millimetre; the crop follows from
it. All later steps use crop pixels, and `invert_affine` maps back to image pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.checks import require_positive
from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.fitting.contour import in_plane_rotation
from facerecon_torch.geometry.projection import project
from facerecon_torch.images.read import require_unit_range
from facerecon_torch.images.resample import OUTSIDE, resample
from facerecon_torch.landmarks.scheme import is_present
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, Crop

__all__ = [
    "CropSpec",
    "FaceCropper",
    "apply_affine",
    "camera_from_crop",
    "camera_to_crop",
    "crop_faces",
    "invert_affine",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSpec:
    """Size and density of canonical crops, and the change of camera that makes a new crop necessary."""

    size: int = 320  # px, both sides
    px_per_mm: float = 64 / 45  # a HOG patch of 64 px spans 45 mm
    derotate: bool = False  # turn the crop so that the face stands upright
    outside: str = "edge"  # beyond the image: "edge" repeats its border, "zeros" is black
    recrop_scale: float = 0.08  # relative change of scale
    recrop_shift: float = 10.0  # crop px, of the face's centre

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1; got {self.size}")
        require_positive(self, "px_per_mm", "recrop_scale", "recrop_shift")
        if self.outside not in OUTSIDE:
            raise ValueError(f"outside must be one of {OUTSIDE}; got {self.outside!r}")


class FaceCropper:
    """Cuts canonical crops around the mean face of a model.

    Args:
        model: with topology.
        spec: of the crops.

    Raises:
        ValueError: a model without topology.

    Example:
        >>> cropper = FaceCropper(model, CropSpec())
        >>> crops = cropper.crop(images, cropper.camera(landmarks))
    """

    def __init__(self, model: FaceModel, spec: CropSpec) -> None:
        if model.topology is None:
            raise ValueError("model must have a topology; restricted models have none")
        self.spec = spec
        mean_face = model.vertices(model.identity_mean, model.expression_mean)
        self.landmarks = mean_face[model.topology.landmark_vertices].double()  # mm, the fixed contour
        low, high = self.landmarks.aminmax(dim=0)
        self.centre = (low + high) / 2  # mm: the point of the head that crops are centred on

    def camera(
        self,
        landmarks: Float[Tensor, "*b 66 2"],
        weights: Float[Tensor, "*b 66"] | None = None,
        *,
        scale: Float[Tensor, "*b"] | None = None,
    ) -> Camera:
        """The camera of the mean face (Eq. 6) from landmarks in px; those that are missing (NaN) weigh 0."""
        present = is_present(landmarks).to(landmarks.dtype)
        return solve_camera(self.landmarks, landmarks, present if weights is None else weights * present, scale=scale)

    def to_crop(self, camera: Camera) -> Float[Tensor, "*b 2 3"]:
        """The affine map from the px of `camera`'s frame to crop px; the head's centre is in the middle of the crop."""
        spec = self.spec
        density = spec.px_per_mm / camera.scale.double()
        unit = torch.eye(2, dtype=torch.float64, device=density.device)
        turn = in_plane_rotation(camera.rotation.double()) if spec.derotate else unit
        linear = density[..., None, None] * turn
        middle = torch.full_like(linear[..., 0], (spec.size - 1) / 2)
        shift = middle - (linear @ self._seen_centre(camera)[..., None])[..., 0]
        return torch.cat([linear, shift[..., None]], dim=-1).to(camera.scale.dtype)

    def crop(self, images: Tensor | Sequence[Tensor], camera: Camera) -> Crop:
        """The canonical crops of `images` (see `crop_faces`), one per row of `camera`."""
        return crop_faces(images, self.to_crop(camera), self.spec)

    def needs_recrop(self, before: Camera, after: Camera) -> Bool[Tensor, "*b"]:
        """Whether the scale of the camera changed by more than `recrop_scale`, or the face's centre by more than
        `recrop_shift`; False where the later camera is degenerate. Both cameras are in the same frame."""
        scale = (after.scale / before.scale - 1).abs() > self.spec.recrop_scale
        shift = (self._seen_centre(after) - self._seen_centre(before)).norm(dim=-1)
        far = shift * self.spec.px_per_mm / before.scale > self.spec.recrop_shift
        moved: Tensor = (scale | far) & ~after.degenerate
        return moved

    def _seen_centre(self, camera: Camera) -> Float[Tensor, "*b 2"]:
        wide = camera.to(torch.float64)
        return project(self.centre.expand(*camera.scale.shape, 1, 3), wide)[..., 0, :]


@in_own_precision
def crop_faces(images: Tensor | Sequence[Tensor], to_crop: Float[Tensor, "b 2 3"], spec: CropSpec) -> Crop:
    """The crops of images, each image resampled once, anti-aliased. Differentiable in images and maps.

    The maps are read on the host once per call, to find the part of each image that is needed.

    Args:
        images: RGB in [0, 1] or bytes, one [b, 3, H, W] tensor or b tensors [3, H, W] of any size. A byte k stands for
            k / 255 in float32, to the bit.
        to_crop: maps from image px to crop px: scaling and shift, with `spec.derotate` also a rotation.
        spec: size, border and whether maps rotate.

    Returns:
        Crops and their maps.

    Raises:
        TypeError: whole numbers other than bytes.
        ValueError: wrong shapes, floats outside [0, 1], or maps that are not finite, mirror or collapse.

    Example:
        >>> crops = crop_faces(images, cropper.to_crop(camera), cropper.spec)
    """
    single = isinstance(images, Tensor)
    _require_images([images] if isinstance(images, Tensor) else images, len(to_crop), single)
    if not len(to_crop):
        return Crop(image=to_crop.new_zeros(0, 3, spec.size, spec.size), to_crop=to_crop)
    host = to_crop.detach().to("cpu", torch.float64)
    _require_maps(host)
    crop = partial(resample, size=spec.size, outside=spec.outside, rotated=spec.derotate)
    if isinstance(images, Tensor):
        return Crop(image=crop(images, to_crop, host), to_crop=to_crop)
    rows = [slice(k, k + 1) for k in range(len(images))]
    pieces = [crop(image[None], to_crop[row], host[row]) for image, row in zip(images, rows)]
    return Crop(image=torch.cat(pieces), to_crop=to_crop)


@in_own_precision
def apply_affine(points: Float[Tensor, "*b n 2"], affine: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b n 2"]:
    """The points A [p; 1]; px to px."""
    return points @ affine[..., :2].mT + affine[..., None, :, 2]


def invert_affine(affine: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 2 3"]:
    """The inverse map, solved in float64 and returned in the dtype of `affine`."""
    wide = affine.double()
    inverse = torch.linalg.inv_ex(wide[..., :2])[0]
    shift = -(inverse @ wide[..., 2:])
    return torch.cat([inverse, shift], dim=-1).to(affine.dtype)


def camera_to_crop(camera: Camera, to_crop: Float[Tensor, "*b 2 3"]) -> Camera:
    """The camera of the same view in crop px. The map is a scaling, rotation and shift, without shear or mirror."""
    linear = to_crop[..., :2].double()
    factor = _determinant(linear).sqrt()
    (a, b), (c, d) = (row.unbind(-1) for row in (linear / factor[..., None, None]).unbind(-2))
    flipped = torch.stack([torch.stack([a, -b], -1), torch.stack([-c, d], -1)], -2)  # F Q F, +y down
    turn = torch.nn.functional.pad(flipped, (0, 1, 0, 1))
    turn[..., 2, 2] = 1
    moved = (linear @ camera.translation.double()[..., None])[..., 0] + to_crop[..., 2].double()
    dtype = camera.scale.dtype
    return Camera(
        rotation=(turn @ camera.rotation.double()).to(dtype),
        scale=(factor * camera.scale.double()).to(dtype),
        translation=moved.to(dtype),
        degenerate=camera.degenerate,
    )


def camera_from_crop(camera: Camera, to_crop: Float[Tensor, "*b 2 3"]) -> Camera:
    """The camera in image px of a camera in crop px: the inverse of `camera_to_crop`."""
    return camera_to_crop(camera, invert_affine(to_crop))


def _determinant(linear: Float[Tensor, "*b 2 2"]) -> Float[Tensor, "*b"]:
    return linear[..., 0, 0] * linear[..., 1, 1] - linear[..., 0, 1] * linear[..., 1, 0]


def _require_images(images: Sequence[Tensor], n: int, single: bool) -> None:
    axes = "[b, 3, height, width]" if single else "[3, height, width] each"
    for image in images:
        if not image.is_floating_point() and image.dtype != torch.uint8:
            raise TypeError(f"images must be floating point in [0, 1] or uint8; got {image.dtype}")
        if image.ndim != 3 + single or image.shape[-3] != 3 or 0 in image.shape[-2:]:
            raise ValueError(f"images must have shape {axes}; got {tuple(image.shape)}")
    count = len(images[0]) if single else len(images)
    if count != n:
        raise ValueError(f"images must be as many as maps to crops, {n}; got {count}")
    require_unit_range(images, "images")


def _require_maps(to_crop: Tensor) -> None:
    usable = torch.isfinite(to_crop).all() and (_determinant(to_crop[:, :, :2]) > 0).all()
    if not bool(usable):
        raise ValueError(f"to_crop must hold finite maps that neither mirror nor collapse; got {to_crop.tolist()}")
