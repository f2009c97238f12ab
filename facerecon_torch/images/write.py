"""Tensor -> image file, written aside and renamed, so that no half-written file is ever seen under its
name."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facerecon_torch.checks import require_finite
from facerecon_torch.files import replacing

__all__ = ["save_png"]


def save_png(image: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write one image, [3, H, W] RGB or [1, H, W] grey, as an 8-bit PNG; values outside [0, 1] are clamped.

    Returns the path. Raises ValueError for another shape, an empty image, NaN or a name that does not end in
    .png.
    """
    target = Path(path)
    if not isinstance(image, Tensor):
        raise TypeError(f"image must be a torch.Tensor; got {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0 or not image.is_floating_point():
        raise ValueError(f"image must be a float tensor [3, H, W] or [1, H, W]; got {image.dtype} {tuple(image.shape)}")
    if target.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png; got {target}")
    require_finite("image", image)
    bytes_ = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with replacing(target) as aside:
        Image.fromarray(np.ascontiguousarray(bytes_ if image.shape[0] == 3 else bytes_[..., 0])).save(aside, "PNG")
    return target
