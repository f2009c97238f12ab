"""Pose_Para <-> Camera: P = f R V + t with R = Rx(pitch) Ry(yaw) Rz(roll), image x = P_x - 1, y = H - P_y.

The files write x from 1 and y = H + 1 - P_y; here the first pixel's centre is (0, 0). The factors turn by the
negative of the usual angle:

    Rx = [1 0 0; 0 c s; 0 -s c]   Ry = [c 0 -s; 0 1 0; s 0 c]   Rz = [c s 0; -s c 0; 0 0 1]
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.structures import Camera

__all__ = ["camera_from_pose", "pose_from_camera"]

RAW_PER_MM = 1000.0  # BFM 2009 counts in micrometres


def camera_from_pose(pose: Float[Tensor, "*b 7"], *, height: int = 450) -> Camera:
    """The Camera that takes BFM vertices in mm to px of a photograph of `height` rows; t_z has no part in it."""
    shift = torch.stack([pose[..., 3] - 1, height - pose[..., 4]], dim=-1)
    scale = pose[..., 6] * RAW_PER_MM
    degenerate = torch.zeros(scale.shape, dtype=torch.bool, device=pose.device)
    return Camera(rotation=_rotation(pose), scale=scale, translation=shift, degenerate=degenerate)


def _rotation(pose: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b 3 3"]:
    (cp, cy, cr), (sp, sy, sr) = pose[..., :3].cos().unbind(-1), pose[..., :3].sin().unbind(-1)
    rows = [
        torch.stack([cy * cr, cy * sr, -sy], -1),
        torch.stack([sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy], -1),
        torch.stack([cp * sy * cr + sp * sr, cp * sy * sr - sp * cr, cp * cy], -1),
    ]
    return torch.stack(rows, dim=-2)


def pose_from_camera(
    camera: Camera, *, height: int = 450, depth: Float[Tensor, "*b"] | None = None
) -> Float[Tensor, "*b 7"]:
    """Inverse of `camera_from_pose` with the yaw in [-pi/2, pi/2], and pitch 0 where the yaw is +-pi/2; t_z is
    `depth` in px, or 0."""
    matrix = camera.rotation
    across = torch.hypot(matrix[..., 1, 2], matrix[..., 2, 2])
    locked = across < 1e-6
    zero = torch.zeros_like(across)
    pitch = torch.where(locked, zero, torch.atan2(matrix[..., 1, 2], matrix[..., 2, 2]))
    yaw = torch.atan2(-matrix[..., 0, 2], across)
    roll = torch.where(
        locked,
        torch.atan2(-matrix[..., 1, 0], matrix[..., 1, 1]),
        torch.atan2(matrix[..., 0, 1], matrix[..., 0, 0]),
    )
    t_x, t_y = camera.translation[..., 0] + 1, height - camera.translation[..., 1]
    t_z = zero if depth is None else depth
    return torch.stack([pitch, yaw, roll, t_x, t_y, t_z, camera.scale / RAW_PER_MM], dim=-1)
