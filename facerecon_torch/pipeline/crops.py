"""The canonical crop as the pipeline uses it, in training and in inference."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.fitting.coefficients import LandmarkFitter
from facerecon_torch.fitting.crop import FaceCropper, apply_affine
from facerecon_torch.structures import Camera, Crop

__all__ = ["canonical_crops"]


def canonical_crops(
    images: Sequence[Float[Tensor, "3 height width"]],
    landmarks: Float[Tensor, "n 66 2"],
    fitter: LandmarkFitter,
    cropper: FaceCropper,
) -> tuple[Crop, Float[Tensor, "n 66 2"]]:
    """Crops of one face per image, and the landmarks (px) moved into them.

    The crop follows the camera of Eq. 6 on the mean shape; where Eq. 7 then finds another size or place, its camera is
    taken instead. Eq. 7 does not depend on the crop, so every picture is resampled once.
    """
    first, fitted = cropper.camera(landmarks), fitter.fit(landmarks).camera
    again = cropper.needs_recrop(first, fitted)
    chosen = Camera(
        torch.where(again[:, None, None], fitted.rotation, first.rotation),
        torch.where(again, fitted.scale, first.scale),
        torch.where(again[:, None], fitted.translation, first.translation),
        first.degenerate,
    )
    crops = cropper.crop(images, chosen)
    return crops, apply_affine(landmarks, crops.to_crop)
