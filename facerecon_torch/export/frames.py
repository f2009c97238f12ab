"""Fitted meshes in the frame of the face model or of the camera, and the depth of a face in its image."""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt16
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.projection import project_with_depth, rotate_to_view
from facerecon_torch.structures import Camera

__all__ = ["DEPTH_STEPS_PER_MM", "DEPTH_ZERO", "depth_map", "in_camera_frame"]

DEPTH_STEPS_PER_MM, DEPTH_ZERO = 100, 32768
"""A pixel of a depth map is DEPTH_ZERO + DEPTH_STEPS_PER_MM * depth; 0 where there is no face."""


def in_camera_frame(vertices: Float[Tensor, "vertices 3"], camera: Camera) -> Float[Tensor, "vertices 3"]:
    """The vertices in mm in the axes of the camera: +x right, +y up, +z towards the viewer.

    The origin lies at the centre of the image's first pixel and at the depth of the model's origin, so that s x and
    -s y are px of the image, with the scale s of the camera.

    Args:
        vertices: in mm, model frame.
        camera: of one face.

    Example:
        vertices = in_camera_frame(face.vertices, face.camera)
    """
    shift = camera.translation / camera.scale
    return rotate_to_view(vertices, camera) + torch.stack([shift[0], -shift[1], torch.zeros_like(shift[0])])


def depth_map(
    vertices: Float[Tensor, "vertices 3"], triangles: Tensor, camera: Camera, size: tuple[int, int]
) -> UInt16[np.ndarray, "height width"]:
    """The depth of one face towards the viewer at every pixel of its image, in 0.01 mm; 0 where there is no face.

    Args:
        vertices: in mm, model frame.
        triangles: corners.
        camera: of the face.
        size: height and width of the image, px.

    Returns:
        DEPTH_ZERO + DEPTH_STEPS_PER_MM * (R v)_z, where the model's origin has the depth 0 mm.

    Example:
        depth = depth_map(face.vertices, mesh.triangles, face.camera, (480, 640))
    """
    height, width = size
    depth: NDArray[np.uint16] = np.zeros((height, width), dtype=np.uint16)
    points = project_with_depth(vertices, camera)
    low, high = (getattr(points[:, :2], name)(0).tolist() for name in ("amin", "amax"))
    left, top = (max(0, math.floor(v)) for v in low)
    right, bottom = min(width, math.floor(high[0]) + 1), min(height, math.floor(high[1]) + 1)
    if left >= right or top >= bottom:
        return depth
    moved = points - points.new_tensor([left, top, 0])
    raster = get_backend().rasterise(moved, triangles, bottom - top, right - left)
    steps = (raster.depth * (DEPTH_STEPS_PER_MM / camera.scale)).round() + DEPTH_ZERO
    drawn = torch.where(raster.triangle >= 0, steps.clamp(1, 2 * DEPTH_ZERO - 1), 0.0)
    depth[top:bottom, left:right] = drawn.int().cpu().numpy().astype(np.uint16)
    return depth
