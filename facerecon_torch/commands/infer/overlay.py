"""The overlay of an image: all its faces drawn on its bytes, piece by piece, so that large images stay bytes."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.read import Pixels, in_unit_range
from facerecon_torch.landmarks.scheme import is_present
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.structures import Camera, Mesh

__all__ = ["draw_faces"]

_PIECE = 2**21  # px that are floats at a time
_MARGIN = 0.02  # of the face's larger side, around it: room for the dots
_LEAST_MARGIN = 4  # px


def draw_faces(
    pixels: Pixels,
    meshes: Sequence[Mesh],
    cameras: Camera,
    landmarks: Sequence[Float[Tensor, "68 2"]],
    fitted: Float[Tensor, "n 66 2"],
) -> UInt8[Tensor, "3 height width"]:
    """The image with its faces on it, the last face drawn first; missing landmarks (NaN) are not drawn."""
    drawn = pixels.cpu().clone() if pixels.dtype == torch.uint8 else _as_bytes(pixels.cpu())
    for k in reversed(range(len(meshes))):
        points = project_with_depth(meshes[k].vertices, cameras[k])
        dots = landmarks[k][is_present(landmarks[k])].cpu()
        for top, bottom, left, right in _pieces([points[:, :2], dots, fitted[k]], drawn.shape[-2:]):
            corner = points.new_tensor([left, top])
            piece = drawn[:, top:bottom, left:right]
            painted = draw_overlay(
                in_unit_range(piece).contiguous(),
                torch.cat([points[:, :2] - corner, points[:, 2:]], dim=-1),
                meshes[k].triangles,
                landmarks=dots.to(points) - corner,
                fitted_landmarks=fitted[k] - corner,
            )
            piece.copy_(_as_bytes(painted))
    return drawn


def _pieces(points: Sequence[Tensor], size: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Top, bottom, left and right of the strips of the image in which a face lies, px."""
    height, width = size
    every = torch.cat([p.double() for p in points])
    (x0, y0), (x1, y1) = every.amin(0).tolist(), every.amax(0).tolist()
    margin = max(_LEAST_MARGIN, _MARGIN * max(x1 - x0, y1 - y0))
    left, right = (int(min(max(x, 0), width)) for x in (x0 - margin, x1 + margin + 1))
    top, bottom = (int(min(max(y, 0), height)) for y in (y0 - margin, y1 + margin + 1))
    rows = max(1, _PIECE // max(right - left, 1))
    for start in range(top, bottom, rows):
        if right > left:
            yield start, min(start + rows, bottom), left, right


def _as_bytes(image: Float[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
    pieces = torch.split(image, max(1, _PIECE // image.shape[-1]), dim=-2)
    return torch.cat([(piece.clamp(0, 1) * 255).round().to(torch.uint8) for piece in pieces], dim=-2)
