"""The .mat beside a photograph of 300W-LP or AFLW2000-3D <-> tensors in float64.

Coordinates in the files count from 1, as MATLAB does; here the centre of the first pixel is (0, 0). Weights multiply
the basis of BFM 2009 in its raw unit, 1/1000 mm, not times its standard deviations.
"""

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.data.aflw.mat import ArraySpec, read_arrays, save_arrays
from facerecon_torch.formats.format_errors import damaged

__all__ = ["Aflw2000Face", "BfmFit", "LpFace", "read_aflw2000", "read_lp", "save_aflw2000", "save_lp"]

_HIDDEN = -1.0  # both coordinates of a point of pt2d that cannot be seen
_FIRST = np.array([1.0, 1.0, 0.0])  # x and y count from 1, z does not
_FIT = {
    "roi": ArraySpec((1, 4), "int16"),
    "Illum_Para": ArraySpec((1, 10), "float32"),
    "Color_Para": ArraySpec((1, 7), "float32"),
    "Tex_Para": ArraySpec((199, 1)),
    "Shape_Para": ArraySpec((199, 1)),
    "Exp_Para": ArraySpec((29, 1)),
    "Pose_Para": ArraySpec((1, 7), "float32"),
}
_LP = {"pt2d": ArraySpec((2, 68)), **_FIT}
_AFLW = {"pt2d": ArraySpec((2, 21)), **_FIT, "pt3d_68": ArraySpec((3, 68), "float32")}


@dataclass(frozen=True, slots=True)
class BfmFit:
    """The fitted face of one photograph.

    `pose` is pitch, yaw, roll in rad, then t_x, t_y, t_z in px (y up, from 1), then f in px per raw unit
    (`aflw.projection` makes a Camera of it). `crop` is the photograph's rectangle in its source image, px from 0.
    """

    pose: Float[Tensor, "7"]
    shape: Float[Tensor, "199"]
    expression: Float[Tensor, "29"]
    texture: Float[Tensor, "199"] = field(default_factory=lambda: torch.zeros(199, dtype=torch.float64))
    colour: Float[Tensor, "7"] = field(default_factory=lambda: torch.zeros(7, dtype=torch.float64))
    illumination: Float[Tensor, "10"] = field(default_factory=lambda: torch.zeros(10, dtype=torch.float64))
    crop: Float[Tensor, "4"] = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class LpFace:
    """300W-LP: 68 iBUG points in px, y down."""

    points: Float[Tensor, "68 2"]
    fit: BfmFit


@dataclass(frozen=True, slots=True)
class Aflw2000Face:
    """AFLW2000-3D: 68 iBUG points in px, y down, with z on the same scale, and the 21 points of AFLW, zero
    where `visible` is False."""

    points: Float[Tensor, "68 3"]
    aflw_points: Float[Tensor, "21 2"]
    visible: Bool[Tensor, "21"]
    fit: BfmFit


def read_lp(path: str | os.PathLike[str]) -> LpFace:
    """The .mat of a photograph of 300W-LP. Raises DataFileError (see `read_arrays`), also for a scale that is not
    positive."""
    file = Path(path)
    arrays = read_arrays(file, _LP)
    return LpFace(points=torch.from_numpy(arrays["pt2d"].T - 1).contiguous(), fit=_fit(file, arrays))


def read_aflw2000(path: str | os.PathLike[str]) -> Aflw2000Face:
    """The .mat of a photograph of AFLW2000-3D. Raises DataFileError as `read_lp` does."""
    file = Path(path)
    arrays = read_arrays(file, _AFLW)
    aflw = arrays["pt2d"].T
    visible = ~(aflw == _HIDDEN).all(axis=1)
    return Aflw2000Face(
        points=torch.from_numpy(arrays["pt3d_68"].T - _FIRST),
        aflw_points=torch.from_numpy(np.where(visible[:, None], aflw - 1, 0.0)),
        visible=torch.from_numpy(visible),
        fit=_fit(file, arrays),
    )


def _fit(file: Path, arrays: dict[str, NDArray[np.float64]]) -> BfmFit:
    flat = {key: torch.from_numpy(arrays[key].ravel()) for key in _FIT}
    scale = float(flat["Pose_Para"][6])
    if not scale > 0:
        raise damaged(file, "Pose_Para", "a positive scale in its last place", f"{scale:g}")
    return BfmFit(
        pose=flat["Pose_Para"],
        shape=flat["Shape_Para"],
        expression=flat["Exp_Para"],
        texture=flat["Tex_Para"],
        colour=flat["Color_Para"],
        illumination=flat["Illum_Para"],
        crop=flat["roi"] - 1,
    )


def save_lp(face: LpFace, path: str | os.PathLike[str]) -> Path:
    """Write the .mat of 300W-LP: points and weights in float64, the pose rounded to float32. Returns the path.

    Raises ValueError for another shape, NaN and a scale that is not positive.
    """
    require_shape("points", face.points, (68, 2))
    require_finite("points", face.points)
    return save_arrays({"pt2d": _array(face.points).T + 1, **_fit_arrays(face.fit)}, path, _LP)


def save_aflw2000(face: Aflw2000Face, path: str | os.PathLike[str]) -> Path:
    """Write the .mat of AFLW2000-3D: the 68 points and the pose rounded to float32. Returns the path.

    Raises ValueError as `save_lp` does, and for a visible point at (-2, -2), which the file uses for hidden ones.
    """
    require_shape("points", face.points, (68, 3))
    require_shape("aflw_points", face.aflw_points, (21, 2))
    require_finite("points", face.points)
    visible = face.visible.detach().cpu().numpy()[:, None]
    aflw = np.where(visible, _array(face.aflw_points) + 1, _HIDDEN)
    if bool((visible[:, 0] & (aflw == _HIDDEN).all(axis=1)).any()):
        raise ValueError("aflw_points must not be visible at (-2, -2), which marks hidden points in the file")
    arrays = {"pt2d": aflw.T, "pt3d_68": (_array(face.points) + _FIRST).T, **_fit_arrays(face.fit)}
    return save_arrays(arrays, path, _AFLW)


def _fit_arrays(fit: BfmFit) -> dict[str, NDArray[np.float64]]:
    for each in fields(fit):
        require_finite(each.name, getattr(fit, each.name))
    if not float(fit.pose[6]) > 0:
        raise ValueError(f"pose must end in a positive scale; got {float(fit.pose[6])}")
    stored = replace(fit, crop=fit.crop + 1)
    return {
        "roi": _array(stored.crop),
        "Illum_Para": _array(stored.illumination),
        "Color_Para": _array(stored.colour),
        "Tex_Para": _array(stored.texture),
        "Shape_Para": _array(stored.shape),
        "Exp_Para": _array(stored.expression),
        "Pose_Para": _array(stored.pose),
    }


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
