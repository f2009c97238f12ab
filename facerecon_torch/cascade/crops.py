"""Canonical crops of faces in images of any size: the camera that they follow, and the cutting."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from facerecon_torch.fitting.crop import FaceCropper, apply_affine, crop_faces
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.images.read import in_unit_range
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Camera, Crop, LandmarkFit

__all__ = ["ImageCropper", "canonical_crops", "follow_faces"]

_GAP = 2  # of images/resample.py: picture px per crop px that stay after averaging over blocks


def canonical_crops(
    images: Sequence[Shaped[Tensor, "3 height width"]],
    landmarks: Float[Tensor, "n 66 2"],
    fitter: LandmarkFitter,
    cropper: FaceCropper,
) -> tuple[Crop, Float[Tensor, "n 66 2"]]:
    """Crops of one face per image, and the landmarks (px) moved into them; see `follow_faces`."""
    camera, _ = follow_faces(landmarks, fitter, cropper)
    crops = cropper.crop(images, camera)
    return crops, apply_affine(landmarks, crops.to_crop)


def follow_faces(
    landmarks: Float[Tensor, "n 66 2"], fitter: LandmarkFitter, cropper: FaceCropper
) -> tuple[Camera, LandmarkFit]:
    """The cameras that crops follow, and the landmark fit (Eq. 7); all in px of the pictures.

    The crop follows the camera of Eq. 6 on the mean shape; where Eq. 7 then finds another size or place, its camera is
    taken instead. Eq. 7 does not depend on the crop, so every picture is resampled once.
    """
    first, fit = cropper.camera(landmarks), fitter.fit(landmarks)
    fitted = fit.camera
    again = cropper.needs_recrop(first, fitted)
    chosen = Camera(
        rotation=torch.where(again[:, None, None], fitted.rotation, first.rotation),
        scale=torch.where(again, fitted.scale, first.scale),
        translation=torch.where(again[:, None], fitted.translation, first.translation),
        degenerate=first.degenerate,
    )
    return chosen, fit


class _Window(NamedTuple):
    top: int
    bottom: int
    left: int
    right: int


class ImageCropper(FaceCropper):
    """A FaceCropper whose images may be uint8 (k stands for k / 255), of any size and on another device.

    Only the window around a face becomes floats on the model's device; the crops equal those of float images to
    rounding.
    """

    def crop(self, images: Tensor | Sequence[Tensor], camera: Camera) -> Crop:
        """Canonical crops of `images`, one [3, H, W] per row of `camera`. Raises ValueError for wrong shapes and maps
        and for floats outside [0, 1] where the crop lies, TypeError for whole numbers other than bytes."""
        with timed("crop"):
            to_crop = self.to_crop(camera)
            if isinstance(images, Tensor) or not len(images) or not all(map(_is_picture, images)):
                return crop_faces(images, to_crop, self.spec)
            host = to_crop.detach().to("cpu", torch.float64)
            windows = [self._window(row, image) for row, image in zip(host, images, strict=True)]
            parts = [image[:, w.top : w.bottom, w.left : w.right] for image, w in zip(images, windows)]
            there = _on_device(parts, to_crop.device)
            if to_crop.dtype != torch.float32:  # bytes become float32 block by block
                there = [in_unit_range(part) for part in there]
            there = [part.to(to_crop.dtype) if part.is_floating_point() else part for part in there]
            origin = torch.tensor([[w.left, w.top] for w in windows], dtype=torch.float64).to(to_crop.device)
            # In float64, so that the shifted map sees every pixel exactly where the given one does.
            wide = to_crop.double()
            shift = wide[:, :, 2:] + wide[:, :, :2] @ origin[..., None]
            moved = torch.cat([wide[:, :, :2], shift], dim=-1)
            return Crop(image=crop_faces(there, moved, self.spec).image, to_crop=to_crop)

    def _window(self, to_crop: Float[Tensor, "2 3"], image: Tensor) -> _Window:
        """The part of a picture that its crop reads, and some more. It starts at a whole number of the blocks that
        images/resample.py averages over, so that these stay the blocks of the whole picture."""
        (a, b, x), (c, d, y) = to_crop.tolist()
        height, width = image.shape[-2:]
        area = a * d - b * c
        if not 0 < area < math.inf:
            return _Window(0, height, 0, width)  # crop_faces says what is wrong
        spacing = 1 / math.sqrt(area)  # picture px per crop px
        middle = (self.spec.size - 1) / 2
        u, v = middle - x, middle - y
        across, down = (d * u - b * v) / area, (a * v - c * u) / area
        half = self.spec.size * (math.sqrt(2) if self.spec.derotate else 1) / 2 + 16
        block = max(1, int(spacing / _GAP))
        reach = half * spacing + 16 * block + 16
        if not all(map(math.isfinite, (across, down, reach))):
            return _Window(0, height, 0, width)
        left, right = _range(across - reach, across + reach, width, block)
        top, bottom = _range(down - reach, down + reach, height, block)
        return _Window(top, bottom, left, right)


def _range(low: float, high: float, extent: int, block: int) -> tuple[int, int]:
    first = int(min(max(low, 0), extent - 1)) // block * block
    last = int(min(max(high, 0), extent - 1)) + 1
    return (first, last) if last - first >= 2 * block else (0, extent)


def _is_picture(image: object) -> bool:
    right = isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3 and 0 not in image.shape
    return right and isinstance(image, Tensor) and (image.dtype == torch.uint8 or image.is_floating_point())


def _on_device(parts: list[Tensor], device: torch.device) -> list[Tensor]:
    """Parts of pictures on `device`. From the host to CUDA all bytes travel in one copy from pinned memory."""
    if device.type != "cuda":
        return [part.to(device) for part in parts]
    small = [k for k, part in enumerate(parts) if part.device.type == "cpu" and part.dtype == torch.uint8]
    there = [part if k in set(small) else part.to(device) for k, part in enumerate(parts)]
    if small:
        buffer = torch.empty(sum(parts[k].numel() for k in small), dtype=torch.uint8, pin_memory=True)
        places = torch.split(buffer, [parts[k].numel() for k in small])
        for k, place in zip(small, places):
            place.view(parts[k].shape).copy_(parts[k])
        copied = torch.split(buffer.to(device, non_blocking=True), [parts[k].numel() for k in small])
        for k, flat in zip(small, copied):
            there[k] = flat.view(parts[k].shape)
    return there
