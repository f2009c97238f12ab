"""The overlay of an image: all its faces drawn on its bytes, so that large images stay bytes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.read import Pixels, in_bytes
from facerecon_torch.landmarks.scheme import is_present
from facerecon_torch.report.overlay import paint_overlay
from facerecon_torch.structures import Camera, Mesh

__all__ = ["draw_faces"]

_PIECE = 2**21  # px that are floats at a time


def draw_faces(
    pixels: Pixels,
    meshes: Sequence[Mesh],
    cameras: Camera,
    landmarks: Sequence[Float[Tensor, "68 2"]],
    fitted: Float[Tensor, "n 66 2"],
) -> UInt8[Tensor, "3 height width"]:
    """The image with its faces on it, the last face drawn first; missing landmarks (NaN) are not drawn."""
    drawn = pixels.cpu()
    if drawn.dtype != torch.uint8:
        drawn = _as_bytes(drawn)
    elif drawn.permute(1, 2, 0).is_contiguous():
        drawn = drawn.clone()  # as it was decoded, channels together: planes would take three times as long
    else:
        drawn = drawn.clone(memory_format=torch.contiguous_format)
    for k in reversed(range(len(meshes))):
        points = project_with_depth(meshes[k].vertices, cameras[k])
        dots = landmarks[k][is_present(landmarks[k])].cpu()
        paint_overlay(drawn, points, meshes[k].triangles, landmarks=dots, fitted_landmarks=fitted[k])
    return drawn


def _as_bytes(image: Float[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
    pieces = torch.split(image, max(1, _PIECE // image.shape[-1]), dim=-2)
    return torch.cat([in_bytes(piece) for piece in pieces], dim=-2)
