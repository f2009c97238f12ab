"""300W-LP and AFLW2000-3D: photographs, each beside a MATLAB 5 file with landmarks, pose and weights of BFM 2009.

    300W_LP/{AFW,HELEN,IBUG,LFPW}[_Flip]/NAME.jpg, NAME.mat        AFLW2000/NAME.jpg, NAME.mat

Coordinates count from 1 in the files; here the centre of the first pixel is (0, 0). Weights multiply the basis of BFM
2009 in its own unit of 1/1000 mm, without its standard deviations. The true mesh of a photograph follows from them.
"""

import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.specs import FittedPhotos
from facerecon_torch.formats.format_errors import format_error, require_range
from facerecon_torch.formats.matlab5 import MatVariable, iter_variables
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.importers.bfm2009 import coefficients_from_300wlp
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.structures import FaceParameters

__all__ = ["LP_SETS", "FittedPhoto", "PhotoFiles", "iter_aflw2000", "iter_lp", "read_fitted_photo", "load_fitted_faces"]

LP_SETS = tuple(f"{name}{flip}" for name in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip"))
_LARGEST = 1e12  # beyond every weight of these files, and far below float32's overflow
_FIT_SHAPES = {"Shape_Para": (199, 1), "Exp_Para": (29, 1), "Pose_Para": (1, 7)}
_POINTS = {"w300lp": ("pt2d", (2, 68)), "aflw2000": ("pt3d_68", (3, 68))}
_log = logging.getLogger(__name__)
_IDENTITIES, _EXPRESSIONS = 199, 29
_PIECE = 64


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


def load_fitted_faces(data: FittedPhotos, model: FaceModel) -> FaceSet:
    """The photographs below `data.root` with their landmarks and the meshes of `model` with their fitted weights.

    All copies of one photograph (rotated and mirrored ones in 300W-LP) count as one subject, so that no fold has
    copies of one photograph in both of its parts.

    Args:
        data: The data set, its folder, the largest number of photographs and the largest yaw.
        model: BFM 2009 with 199 identities and 29 expressions.

    Raises:
        DataFileError: The folder is not that of the data set, or a file is damaged.
        ValueError: The model is another one.
    """
    _require_bfm(model)
    is_lp = data.name == "w300lp"
    files = _spread(list((iter_lp if is_lp else iter_aflw2000)(data.require_root())), data.images)
    pairs = [(file, read_fitted_photo(file.mat, "w300lp" if is_lp else "aflw2000")) for file in files]
    chosen = [(file, photo) for file, photo in pairs if abs(float(photo.pose[1])) <= math.radians(data.max_yaw)]
    _log.info(
        "%s: %d of %d photographs with a yaw of at most %g degrees", data.name, len(chosen), len(files), data.max_yaw
    )
    if not chosen:
        raise ValueError(f"data.max_yaw must admit at least one photograph; got {data.max_yaw} for {len(files)}")
    shapes, expressions = (torch.stack([getattr(p, name) for _, p in chosen]) for name in ("shape", "expression"))
    identity, expression = coefficients_from_300wlp(shapes, expressions)
    parameters = FaceParameters(identity=identity, expression=expression).to(model.dtype)
    return FaceSet(
        name=data.name,
        images=tuple(file.image for file, _ in chosen),
        subjects=_photographs([file for file, _ in chosen]),
        landmarks=to_paper66(torch.stack([photo.points for _, photo in chosen])).float(),
        meshes=_vertices(model, parameters),
        parameters=parameters,
    )


def _vertices(model: FaceModel, parameters: FaceParameters) -> Float[Tensor, "n vertices 3"]:
    """The meshes of the weights on the CPU, computed on the model's device piece by piece."""
    pieces = [parameters[k : k + _PIECE].to(model.device) for k in range(0, len(parameters), _PIECE)]
    return torch.cat([model(piece.identity, piece.expression).cpu() for piece in pieces])


def _require_bfm(model: FaceModel) -> None:
    counts = (model.n_identity, model.n_expression)
    if not isinstance(model, LinearModel) or counts != (_IDENTITIES, _EXPRESSIONS):
        raise ValueError(
            f"the weights of 300W-LP and AFLW2000-3D are those of BFM 2009 with {_IDENTITIES} identities and "
            f"{_EXPRESSIONS} expressions; this model is a {type(model).__name__} with {counts[0]} and {counts[1]}. "
            "Import one with facerecon import-model bfm2009 and give model.path"
        )


def _spread(files: list[PhotoFiles], most: int | None) -> list[PhotoFiles]:
    """At most `most` files, evenly spread over the list."""
    if most is None or len(files) <= most:
        return files
    return [files[k * len(files) // most] for k in range(most)]


def _photographs(files: list[PhotoFiles]) -> Tensor:
    """The number of the source photograph of every file. 300W-LP names rotated copies NAME_0, NAME_1 ..., and keeps
    mirrored copies in a folder SET_Flip."""
    sources = [
        (f.part.removesuffix("_Flip"), re.sub(r"_\d+$", "", f.image.stem) if f.part else f.image.stem) for f in files
    ]
    place = {source: k for k, source in enumerate(sorted(set(sources)))}
    return torch.tensor([place[source] for source in sources])
