"""Eq. 6 one face at a time with numpy: least squares by QR, rotation by SVD."""

import numpy as np
import torch

from facerecon_torch.structures import Camera


def solve_camera_slowly(points3d, points2d, weights, scale=None):
    batch = points2d.shape[:-2]
    n = points2d.shape[-2]
    rows = [
        _solve_one(solid, flat, weight, known)
        for solid, flat, weight, known in zip(
            points3d.reshape(-1, n, 3).numpy(),
            points2d.reshape(-1, n, 2).numpy(),
            weights.reshape(-1, n).numpy(),
            [None] * max(1, batch.numel()) if scale is None else scale.reshape(-1).numpy(),
        )
    ]
    rotation, size, shift = (torch.from_numpy(np.array(column)) for column in zip(*rows))
    return Camera(
        rotation=rotation.reshape(*batch, 3, 3),
        scale=size.reshape(batch),
        translation=shift.reshape(*batch, 2),
        degenerate=torch.zeros(batch, dtype=torch.bool),
    )


def _solve_one(solid, flat, weight, known):
    flip = np.array([1.0, -1.0])
    share = weight / weight.sum()
    mean3d, mean2d = share @ solid, share @ (flat * flip)
    x, y = solid - mean3d, flat * flip - mean2d
    x_unit = x / np.sqrt(share @ (x**2).sum(1))
    y_unit = y / np.sqrt(share @ (y**2).sum(1))
    root = np.sqrt(share)[:, None]
    affine = np.linalg.lstsq(root * x_unit, root * y_unit, rcond=None)[0].T
    u, _, vt = np.linalg.svd(affine, full_matrices=False)
    top = u @ vt
    rotation = np.stack([top[0], top[1], np.cross(top[0], top[1])])
    turned = x @ top.T
    size = (share @ (turned * y).sum(1)) / (share @ (turned**2).sum(1)) if known is None else known
    return rotation, size, (mean2d - size * top @ mean3d) * flip
