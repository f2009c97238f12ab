"""Axis-angle vectors, Euler angles and rotation matrices, with finite gradients everywhere.

Angles in rad. Euler angles follow R = Rz(roll) Rx(pitch) Ry(yaw) in the model frame: yaw > 0 turns the nose
towards +x (image right), pitch > 0 lifts it, roll > 0 turns the head counter-clockwise as the viewer sees it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["axis_angle_to_matrix", "euler_to_matrix", "matrix_to_axis_angle", "matrix_to_euler"]


def _sinc(squared: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """sin(x)/x as a smooth function of x^2: a series near 0, where the square root has no derivative."""
    small = squared < 1e-4
    root = torch.where(small, torch.ones_like(squared), squared).sqrt()
    series = 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42))
    return torch.where(small, series, root.sin() / root)


def axis_angle_to_matrix(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation of an axis-angle vector: R = I + sin(t)/t K + (1 - cos(t))/t^2 K^2 (Rodrigues) with K v = vector x v
    and t = |vector| in rad."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape, 3)
    squared = vector.square().sum(-1)[..., None, None]
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return eye + _sinc(squared) * cross + 0.5 * _sinc(squared / 4).square() * (cross @ cross)


def matrix_to_axis_angle(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """The axis-angle vector of a rotation, its angle in [0, pi] rad; at pi either of the two axes is returned."""
    quaternion = _matrix_to_quaternion(matrix)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared = imaginary.square().sum(-1, keepdim=True)
    small = squared < 1e-8
    sine = torch.where(small, torch.ones_like(squared), squared).sqrt()
    cosine = torch.where(small, real, torch.ones_like(real))  # keeps the series finite where it is not used
    series = 2 / cosine * (1 - squared / (3 * cosine.square()))
    return imaginary * torch.where(small, series, 2 * torch.atan2(sine, real) / sine)


def _matrix_to_quaternion(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """(w, x, y, z) divided through by its largest component, of which 4 q^2 >= 1, so no root comes near 0."""
    m00, m11, m22 = matrix.diagonal(dim1=-2, dim2=-1).unbind(-1)
    difference = [matrix[..., j, i] - matrix[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1))]
    total = [matrix[..., j, i] + matrix[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1))]
    squares = torch.stack([1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], -1)
    rows = [
        [squares[..., 0], difference[0], difference[1], difference[2]],
        [difference[0], squares[..., 1], total[2], total[1]],
        [difference[1], total[2], squares[..., 2], total[0]],
        [difference[2], total[1], total[0], squares[..., 3]],
    ]
    candidates = torch.stack([torch.stack(row, -1) for row in rows], -2)
    candidates = candidates / (2 * squares.clamp_min(0.5).sqrt()[..., None])
    index = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return candidates.gather(-2, index).squeeze(-2)


@in_own_precision
def euler_to_matrix(
    yaw: Float[Tensor, "*b"], pitch: Float[Tensor, "*b"], roll: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3 3"]:
    """The rotation R = Rz(roll) Rx(pitch) Ry(yaw), angles in rad and signed as in the module's description.

    Example:
        >>> rotation = euler_to_matrix(torch.tensor(0.3), torch.zeros(()), torch.zeros(()))
    """
    sin_y, cos_y, sin_p, cos_p, sin_r, cos_r = (f(a) for a in (yaw, pitch, roll) for f in (torch.sin, torch.cos))
    upper = torch.stack([cos_y, torch.zeros_like(cos_y), sin_y], -1)
    middle = torch.stack([-sin_p * sin_y, cos_p, sin_p * cos_y], -1)
    lower = torch.stack([-cos_p * sin_y, -sin_p, cos_p * cos_y], -1)
    sin_r, cos_r = sin_r[..., None], cos_r[..., None]
    return torch.stack([cos_r * upper - sin_r * middle, sin_r * upper + cos_r * middle, lower], -2)


@in_own_precision
def matrix_to_euler(
    matrix: Float[Tensor, "*b 3 3"],
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """The angles (yaw, pitch, roll) in rad with pitch in [-pi/2, pi/2]; at |pitch| = pi/2 yaw and roll turn alike, and
    yaw is 0.

    Example:
        >>> yaw, pitch, roll = matrix_to_euler(torch.eye(3))
    """
    level = matrix[..., 2, 0].square() + matrix[..., 2, 2].square()
    locked = level < 1e-12
    zero, one = torch.zeros_like(level), torch.ones_like(level)
    cos_p = torch.where(locked, one, level).sqrt()
    pitch = torch.atan2(-matrix[..., 2, 1], torch.where(locked, zero, cos_p))
    yaw = torch.atan2(torch.where(locked, zero, -matrix[..., 2, 0]), torch.where(locked, one, matrix[..., 2, 2]))
    roll = torch.atan2(
        torch.where(locked, matrix[..., 1, 0], -matrix[..., 0, 1]),
        torch.where(locked, matrix[..., 0, 0], matrix[..., 1, 1]),
    )
    return yaw, pitch, roll
