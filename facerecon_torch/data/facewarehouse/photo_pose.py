"""The pose of a mesh in the frame of the camera that took its photograph, from landmarks in 3D and 2D.

Camera frame: mm, +x image right, +y up, the camera in the origin looking along -z, so that z < 0 before it. With
X = R v + T: x = cx + f X / -Z, y = cy - f Y / -Z (px).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.geometry.rotation import axis_angle_to_matrix

__all__ = ["PinholePose", "solve_pinhole"]

_ROUNDS = 15
_TRUSTED_PX = 4.0  # residual beyond which a point counts less


@dataclass(frozen=True)
class PinholePose:
    """The rotation and translation of a mesh, and the camera's focal length and principal point in px."""

    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    focal: float
    centre: Float[Tensor, "2"]

    def project(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
        """The pixels of points that are given in mm in the mesh's frame."""
        return _pixels(points @ self.rotation.mT + self.translation, self)


def solve_pinhole(
    points: Float[Tensor, "n 3"], pixels: Float[Tensor, "n 2"], *, focal: float | int, height: int, width: int
) -> PinholePose:
    """The pose that projects `points` onto `pixels`, for a camera whose axis meets the middle of the picture.

    The scaled orthographic camera of Eq. 6 is refined by Gauss-Newton steps in float64; residuals above 4 px are
    weighted by 1 / residual (Huber).

    Args:
        points: Points in mm in the mesh's frame.
        pixels: Their pixels.
        focal: Focal length in px.
        height: Height of the picture in px.
        width: Width of the picture in px.

    Raises:
        ValueError: The points do not determine a pose, or lie behind the camera.
    """
    solid, flat = points.double(), pixels.double()
    camera = solve_camera(solid, flat)
    if bool(camera.degenerate):
        raise ValueError(f"at least 4 points that span space are required; got {len(points)}")
    centre = flat.new_tensor([(width - 1) / 2, (height - 1) / 2])
    shift = (camera.translation - centre) / camera.scale * flat.new_tensor([1.0, -1.0])
    distance = -focal / camera.scale
    pose = PinholePose(camera.rotation, torch.cat([shift, distance[None]]), float(focal), centre)
    for _ in range(_ROUNDS):
        pose = _step(solid, flat, pose)
    if not bool(torch.isfinite(pose.project(solid)).all() & (pose.translation[2] < 0)):
        raise ValueError("points and pixels must belong to one rigid body before the camera")
    return pose


def _pixels(seen: Float[Tensor, "*n 3"], pose: PinholePose) -> Float[Tensor, "*n 2"]:
    scaled = pose.focal * seen[..., :2] / -seen[..., 2:]
    return pose.centre + scaled * scaled.new_tensor([1.0, -1.0])


def _step(points: Tensor, pixels: Tensor, pose: PinholePose) -> PinholePose:
    turned = points @ pose.rotation.mT
    seen = turned + pose.translation
    residual = pixels - _pixels(seen, pose)
    x, y, depth = seen[:, 0], seen[:, 1], -seen[:, 2]
    zero = torch.zeros_like(x)
    by_place = pose.focal * torch.stack(  # d pixel / d X, [n, 2, 3]
        [
            torch.stack([1 / depth, zero, x / depth**2], dim=-1),
            torch.stack([zero, -1 / depth, -y / depth**2], dim=-1),
        ],
        dim=1,
    )
    a, b, c = turned.unbind(-1)
    by_turn = torch.stack(  # d (exp(w) R v) / d w = -[R v]_x, [n, 3, 3]
        [
            torch.stack([zero, c, -b], dim=-1),
            torch.stack([-c, zero, a], dim=-1),
            torch.stack([b, -a, zero], dim=-1),
        ],
        dim=1,
    )
    jacobian = torch.cat([by_place @ by_turn, by_place], dim=2)
    weight = (_TRUSTED_PX / torch.linalg.vector_norm(residual, dim=1).clamp_min(1e-9)).clamp_max(1.0)
    normal = torch.einsum("n,nki,nkj->ij", weight, jacobian, jacobian)
    right = torch.einsum("n,nki,nk->i", weight, jacobian, residual)
    update, failed = torch.linalg.solve_ex(normal, right)
    if int(failed) or not bool(torch.isfinite(update).all()):
        return pose
    rotation = axis_angle_to_matrix(update[:3]) @ pose.rotation
    return PinholePose(rotation, pose.translation + update[3:], pose.focal, pose.centre)
