"""The canonical crop as the pipeline uses it, in training and in inference."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from facerecon_torch.fitting.crop import FaceCropper, apply_affine
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.structures import Camera, Crop, LandmarkFit

__all__ = ["canonical_crops", "follow_faces"]


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
