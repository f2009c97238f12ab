"""The crop of a photograph that a prepared set stores, and the affine map from the photograph to it."""

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from facerecon_torch.commands.prepare.specs import CropFileSpec
from facerecon_torch.fitting.crop import CropSpec, FaceCropper, crop_faces
from facerecon_torch.model.base import FaceModel

__all__ = ["CropMaker"]

_QUALITY = 95


class CropMaker:
    """Cuts squares of one size in mm around faces. Raises ValueError for a model without topology."""

    def __init__(self, model: FaceModel, spec: CropFileSpec) -> None:
        self._spec = spec
        self._model = model
        self._cropper = FaceCropper(model, CropSpec(px_per_mm=float(spec.px_per_mm)))

    def cut(
        self, image: Float[Tensor, "3 height width"], landmarks: Float[Tensor, "66 2"]
    ) -> tuple[Float[Tensor, "3 size size"], Float[Tensor, "2 3"]] | None:
        """The square and the map from px of the image to px of the square; None where the landmarks fix no camera.

        `landmarks` are in px, NaN where not known. The square is centred by the camera of Eq. 6 on the mean face.
        """
        weights = torch.isfinite(landmarks).all(dim=-1).double()
        points = landmarks.nan_to_num(0.0).double()
        camera = self._cropper.camera(points[None], weights[None])
        if bool(camera.degenerate):
            return None
        density = min(float(self._spec.px_per_mm), float(camera.scale))
        spec = CropSpec(size=max(1, round(self._spec.span * density)), px_per_mm=density)
        to_crop = FaceCropper(self._model, spec).to_crop(camera)
        if density < self._spec.px_per_mm:  # all pixels of the photograph, moved by whole px: no resampling
            shift = to_crop[..., 2:].round()
            to_crop = torch.cat([torch.eye(2, dtype=shift.dtype)[None], shift], dim=-1)
        crop = crop_faces([image], to_crop.to(image.dtype), spec)
        return crop.image[0], to_crop[0]

    def encode(self, crop: Float[Tensor, "3 size size"]) -> bytes:
        """The content of the image file of a square."""
        values = (crop.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        stream = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(values))
        if self._spec.format == "png":
            image.save(stream, "PNG")
        else:
            image.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
        return stream.getvalue()
