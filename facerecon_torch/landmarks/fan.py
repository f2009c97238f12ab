"""2D-FAN of the face-alignment package in batches: faces of many pictures -> landmarks, finer than whole pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.detector import FaceBox, as_bytes

__all__ = ["decode_heatmaps", "predict_points"]

_TOGETHER = 16  # faces in a batch


def predict_points(
    native: Any, pictures: Sequence[Tensor], faces: Sequence[Sequence[FaceBox]]
) -> list[tuple[Float[Tensor, "68 2"], Float[Tensor, "68"]]]:
    """The landmarks in px and their scores for each face, picture by picture; float64, on the CPU.

    Args:
        native: a `face_alignment.FaceAlignment`, whose crops, network, device and dtype are used.
        pictures: on the CPU.
        faces: of each picture, in its px.
    """
    centres, scales = _regions([face for found in faces for face in found], float(native.face_detector.reference_scale))
    crops: list[NDArray[np.uint8]] = []
    for picture, found in zip(pictures, faces):
        own = slice(len(crops), len(crops) + len(found))
        crops += _crops(picture, centres[own], scales[own])
    answers = []
    for start in range(0, len(crops), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        maps = _heatmaps(native, torch.from_numpy(np.stack(crops[part])))
        answers += list(zip(*decode_heatmaps(maps, centres[part], 200.0 * scales[part])))
    return answers


def _regions(faces: Sequence[FaceBox], reference: float) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Centres in px and the package's scales of the square crops of the network; a scale of 1 is 200 px."""
    from face_alignment.utils import CENTER_Y_OFFSET

    corners = torch.tensor([face.box for face in faces], dtype=torch.float64).reshape(-1, 2, 2)
    size = corners[:, 1] - corners[:, 0]
    centres = corners[:, 1] - size / 2
    centres[:, 1] -= size[:, 1] * CENTER_Y_OFFSET
    return centres, size.sum(1) / reference


def _crops(picture: Pixels, centres: Float[Tensor, "n 2"], scales: Float[Tensor, "n"]) -> list[NDArray[np.uint8]]:
    """The package's own crops: from whole pixel to whole pixel, resized to 256 x 256."""
    from face_alignment.utils import crop

    if not len(centres):
        return []
    pixels = as_bytes(picture)
    return [crop(pixels, centre, scale) for centre, scale in zip(centres.numpy(), scales.tolist())]


def _heatmaps(native: Any, crops: UInt8[Tensor, "n 256 256 3"]) -> Float[Tensor, "n 68 64 64"]:
    """Of the crops and of their mirror images, summed; float32 on the CPU."""
    from face_alignment.utils import flip

    inputs = (crops.permute(0, 3, 1, 2).float() / 255).to(native.device, native.dtype)
    straight = native.face_alignment_net(inputs)[-1].float()
    mirrored = native.face_alignment_net(flip(inputs))[-1].float()
    total: Tensor = straight + flip(mirrored, is_label=True)
    return total.cpu()


def decode_heatmaps(
    heatmaps: Float[Tensor, "n points s s"], centres: Float[Tensor, "n 2"], sides: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n points 2"], Float[Tensor, "n points"]]:
    """The place of each map's maximum in px of the picture, never rounded, and the maximum; float64.

    The place is the middle of the largest cell, a quarter of a cell towards the larger neighbour along each axis, or
    none for cells at the border. The package's `get_preds_fromhm` cuts the same place to whole px.

    Args:
        heatmaps: by row and column, of square regions of the picture.
        centres: (x, y) of the regions in px.
        sides: of the regions in px.
    """
    size = heatmaps.shape[-1]
    scores, place = heatmaps.flatten(2).max(dim=-1)
    cell = torch.stack([place % size, place // size], -1)
    inside = ((cell > 0) & (cell < size - 1)).all(-1, keepdim=True)
    column, row = cell.clamp(1, size - 2).unbind(-1)
    n, p = torch.meshgrid(*(torch.arange(k, device=place.device) for k in place.shape), indexing="ij")
    rise = torch.stack(
        [
            heatmaps[n, p, row, column + 1] - heatmaps[n, p, row, column - 1],
            heatmaps[n, p, row + 1, column] - heatmaps[n, p, row - 1, column],
        ],
        -1,
    )
    offset = (cell + 0.5 + 0.25 * rise.double().sign() * inside) / size - 0.5
    return centres[:, None] + sides[:, None, None] * offset, scores.double()
