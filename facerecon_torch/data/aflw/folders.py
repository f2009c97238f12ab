"""The folders of 300W-LP and AFLW2000-3D: each photograph with its .mat, found one after the other.

300W_LP/{AFW,HELEN,IBUG,LFPW}[_Flip]/NAME.jpg, NAME.mat; landmarks/SET/NAME_pts.mat      AFLW2000/NAME.jpg, NAME.mat
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.data.aflw.mat import ArraySpec, read_arrays, save_arrays
from facerecon_torch.formats.format_errors import damaged

__all__ = ["LP_SETS", "PhotoFiles", "iter_aflw2000", "iter_lp", "read_lp_points", "save_lp_points"]

LP_SETS = tuple(f"{name}{flip}" for name in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip"))
_POINTS = {"pts_2d": ArraySpec((68, 2)), "pts_3d": ArraySpec((68, 2))}


@dataclass(frozen=True, slots=True)
class PhotoFiles:
    """One photograph; `part` is the folder of 300W-LP, or empty."""

    part: str
    image: Path
    mat: Path


def iter_aflw2000(root: str | os.PathLike[str]) -> Iterator[PhotoFiles]:
    """Photographs by name. Raises DataFileError for a folder without any and for a missing partner."""
    yield from _pairs(Path(root), "")


def iter_lp(root: str | os.PathLike[str]) -> Iterator[PhotoFiles]:
    """Photographs of the folders of LP_SETS that exist, by name. Raises DataFileError where there is none."""
    top = Path(root)
    parts = [part for part in LP_SETS if (top / part).is_dir()]
    if not parts:
        raise damaged(top, "folder", f"one of {', '.join(LP_SETS)}", "none of them" if top.is_dir() else "no folder")
    for part in parts:
        yield from _pairs(top / part, part)


def _pairs(folder: Path, part: str) -> Iterator[PhotoFiles]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stems = sorted({file.stem for file in files if file.suffix in (".jpg", ".mat")})
    if not stems:
        raise damaged(folder, "folder", "NAME.jpg with NAME.mat", "none of them" if folder.is_dir() else "no folder")
    for stem in stems:
        pair = PhotoFiles(part=part, image=folder / f"{stem}.jpg", mat=folder / f"{stem}.mat")
        for file in (pair.image, pair.mat):
            if not file.is_file():
                raise damaged(file, "partner file", f"one beside the other file of {stem}", "nothing")
        yield pair


def read_lp_points(path: str | os.PathLike[str]) -> tuple[Float[Tensor, "68 2"], Float[Tensor, "68 2"]]:
    """(pts_2d, pts_3d) of a NAME_pts.mat: the visible contour and the projected one, px from 0, y down.

    Raises DataFileError (see `read_arrays`).
    """
    arrays = read_arrays(path, _POINTS)
    return torch.from_numpy(arrays["pts_2d"] - 1), torch.from_numpy(arrays["pts_3d"] - 1)


def save_lp_points(visible: Tensor, projected: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write a NAME_pts.mat; returns the path. Raises ValueError for another shape or NaN."""
    arrays: dict[str, np.ndarray] = {}
    for name, points in (("pts_2d", visible), ("pts_3d", projected)):
        require_shape(name, points, (68, 2))
        require_finite(name, points)
        arrays[name] = points.detach().cpu().double().numpy() + 1
    return save_arrays(arrays, path, _POINTS)
