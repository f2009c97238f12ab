"""The files of 300W-LP and AFLW2000-3D: photographs, each beside a MATLAB 5 file with landmarks, pose and weights.

    300W_LP/{AFW,HELEN,IBUG,LFPW}[_Flip]/NAME.jpg, NAME.mat        AFLW2000/NAME.jpg, NAME.mat

Coordinates count from 1 in the files; here the centre of the first pixel is (0, 0). Weights multiply the basis of BFM
2009 in its own unit of 1/1000 mm, without its standard deviations.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.formats.format_errors import format_error, require_range
from facerecon_torch.formats.matlab5 import MatVariable, iter_variables

__all__ = ["LP_SETS", "FittedPhoto", "PhotoFiles", "iter_aflw2000", "iter_lp", "read_fitted_photo"]

LP_SETS = tuple(f"{name}{flip}" for name in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip"))
_LARGEST = 1e12  # beyond every weight of these files, and far below float32's overflow
_FIT_SHAPES = {"Shape_Para": (199, 1), "Exp_Para": (29, 1), "Pose_Para": (1, 7)}
_POINTS = {"w300lp": ("pt2d", (2, 68)), "aflw2000": ("pt3d_68", (3, 68))}


@dataclass(frozen=True, slots=True)
class PhotoFiles:
    """The two files of one photograph; `part` is the folder in 300W-LP, and empty in AFLW2000-3D."""

    part: str
    image: Path
    mat: Path


@dataclass(frozen=True, slots=True)
class FittedPhoto:
    """The landmarks and fitted weights of one photograph.

    `points` are the 68 iBUG points in px, y down. `pose` is pitch, yaw and roll in rad, t_x, t_y and t_z in px (y up,
    counted from 1), and the scale in px per 1/1000 mm.
    """

    points: Float[Tensor, "68 2"]
    shape: Float[Tensor, "199"]
    expression: Float[Tensor, "29"]
    pose: Float[Tensor, "7"]


def iter_aflw2000(root: str | os.PathLike[str]) -> Iterator[PhotoFiles]:
    """The photographs of AFLW2000-3D by name. Raises DataFileError for an empty folder and a missing partner file."""
    yield from _pairs(Path(root), "")


def iter_lp(root: str | os.PathLike[str]) -> Iterator[PhotoFiles]:
    """The photographs of 300W-LP by folder and name, of the folders of LP_SETS that exist. Raises DataFileError."""
    top = Path(root)
    parts = [part for part in LP_SETS if (top / part).is_dir()]
    if not parts:
        actual = "none of them" if top.is_dir() else "no folder"
        raise format_error(top, "folder", f"one of {', '.join(LP_SETS)}", actual)
    for part in parts:
        yield from _pairs(top / part, part)


def _pairs(folder: Path, part: str) -> Iterator[PhotoFiles]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stems = sorted({file.stem for file in files if file.suffix in (".jpg", ".mat")})
    if not stems:
        actual = "none of them" if folder.is_dir() else "no folder"
        raise format_error(folder, "folder", "NAME.jpg with NAME.mat", actual)
    for stem in stems:
        pair = PhotoFiles(part=part, image=folder / f"{stem}.jpg", mat=folder / f"{stem}.mat")
        for file in (pair.image, pair.mat):
            if not file.is_file():
                raise format_error(file, "partner file", f"one beside the other file of {stem}", "nothing")
        yield pair


def read_fitted_photo(path: str | os.PathLike[str], data_set: Literal["w300lp", "aflw2000"]) -> FittedPhoto:
    """The landmarks and weights in the .mat file of one photograph, in float64.

    The landmarks are `pt2d` in 300W-LP and x, y of `pt3d_68` in AFLW2000-3D. Other variables are skipped.

    Raises:
        DataFileError: The file is not MATLAB 5, lacks or repeats a variable, holds one that is not a real numeric array
            of its shape, a NaN or a number beyond 1e12, or its scale is not positive.
    """
    file = Path(path)
    name, shape = _POINTS[data_set]
    arrays = _read_arrays(file, {name: shape, **_FIT_SHAPES})
    pose, scale = arrays["Pose_Para"].ravel(), float(arrays["Pose_Para"][0, 6])
    if not scale > 0:
        raise format_error(file, "Pose_Para", "a positive scale in its last place", f"{scale:g}")
    return FittedPhoto(
        points=torch.from_numpy(arrays[name][:2].T - 1).contiguous(),
        shape=torch.from_numpy(arrays["Shape_Para"].ravel()),
        expression=torch.from_numpy(arrays["Exp_Para"].ravel()),
        pose=torch.from_numpy(pose),
    )


def _read_arrays(file: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, NDArray[np.float64]]:
    arrays: dict[str, NDArray[np.float64]] = {}
    names: list[str] = []
    for variable in iter_variables(file):
        names.append(variable.name)
        if variable.name in arrays:
            raise format_error(file, variable.name, "one variable of this name", "two")
        if variable.name in shapes:
            arrays[variable.name] = _checked(file, variable, shapes[variable.name])
    for name in shapes:
        if name not in arrays:
            raise format_error(file, name, "a variable of this name", ", ".join(names[:12]) or "no variable at all")
    return arrays


def _checked(file: Path, variable: MatVariable, shape: tuple[int, int]) -> NDArray[np.float64]:
    if variable.values is None or variable.shape != shape:
        kind = "no such array" if variable.values is None else str(variable.values.dtype)
        actual = f"{kind} of shape {variable.shape}"
        raise format_error(file, variable.name, f"a real numeric array of shape {shape}", actual)
    with np.errstate(invalid="ignore"):  # NaN is refused below; its conversion would warn
        values = variable.values.astype(np.float64)
    require_range(file, variable.name, values, -_LARGEST, _LARGEST)
    return values
