"""300W-LP and AFLW2000-3D as training reads them: photographs whose true meshes follow from fitted weights."""

import logging
import math
import re

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.aflw.faces import BfmFit, read_aflw2000, read_lp
from facerecon_torch.data.aflw.folders import PhotoFiles, iter_aflw2000, iter_lp
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.specs import FittedPhotos
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.importers.bfm2009 import coefficients_from_300wlp
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.structures import FaceParameters

__all__ = ["load_fitted_faces"]

_log = logging.getLogger(__name__)
_IDENTITIES, _EXPRESSIONS = 199, 29
_PIECE = 64


def load_fitted_faces(data: FittedPhotos, model: FaceModel) -> FaceSet:
    """The photographs of `data.root` with their 68 points and the meshes that their fitted weights make of `model`.

    All copies of one photograph (turned and mirrored ones in 300W-LP) count as one subject, so that no fold has it on
    both sides. Raises DataFileError for another folder or a damaged file, ValueError for a model that is not BFM 2009
    with 199 identities and 29 expressions.
    """
    _require_bfm(model)
    is_lp = data.name == "w300lp"
    files = list((iter_lp if is_lp else iter_aflw2000)(data.require_root()))
    files = _spread(files, data.images)
    points, fits = zip(*map(_read_lp if is_lp else _read_aflw2000, files))
    yaw = torch.stack([fit.pose[1] for fit in fits]).abs()
    rows = torch.nonzero(yaw <= math.radians(data.max_yaw)).flatten()
    _log.info("%s: %d of %d photographs turned by at most %g degrees", data.name, len(rows), len(files), data.max_yaw)
    raw = (torch.stack([fit.shape for fit in fits])[rows], torch.stack([fit.expression for fit in fits])[rows])
    parameters = FaceParameters(*coefficients_from_300wlp(*raw)).to(model.dtype)
    return FaceSet(
        name=data.name,
        images=tuple(files[k].image for k in rows.tolist()),
        subjects=_photographs([files[k] for k in rows.tolist()]),
        landmarks=to_paper66(torch.stack(points))[rows].float(),
        meshes=_vertices(model, parameters),
        parameters=parameters,
    )


def _vertices(model: FaceModel, parameters: FaceParameters) -> Float[Tensor, "n vertices 3"]:
    """Made on the model's device in pieces, kept on the CPU: they are large."""
    pieces = [parameters[k : k + _PIECE].to(model.device) for k in range(0, len(parameters.identity), _PIECE)]
    return torch.cat([model.vertices(piece.identity, piece.expression).cpu() for piece in pieces])


def _require_bfm(model: FaceModel) -> None:
    counts = (model.n_identity, model.n_expression)
    if not isinstance(model, LinearModel) or counts != (_IDENTITIES, _EXPRESSIONS):
        raise ValueError(
            f"the weights of 300W-LP and AFLW2000-3D are those of BFM 2009 with {_IDENTITIES} identities and "
            f"{_EXPRESSIONS} expressions; this model is a {type(model).__name__} with {counts[0]} and {counts[1]}. "
            "Import one with facerecon import-model bfm2009 and give model.path"
        )


def _spread(files: list[PhotoFiles], most: int | None) -> list[PhotoFiles]:
    """At most `most` of them, evenly spread over the list."""
    if most is None or len(files) <= most:
        return files
    return [files[k * len(files) // most] for k in range(most)]


def _read_lp(files: PhotoFiles) -> tuple[Tensor, BfmFit]:
    face = read_lp(files.mat)
    return face.points, face.fit


def _read_aflw2000(files: PhotoFiles) -> tuple[Tensor, BfmFit]:
    face = read_aflw2000(files.mat)
    return face.points[:, :2], face.fit


def _photographs(files: list[PhotoFiles]) -> Tensor:
    """A number for every source photograph: 300W-LP names its turned copies NAME_0, NAME_1 ..., and mirrored ones lie
    in a folder SET_Flip."""
    sources = [
        (f.part.removesuffix("_Flip"), re.sub(r"_\d+$", "", f.image.stem) if f.part else f.image.stem) for f in files
    ]
    place = {source: k for k, source in enumerate(sorted(set(sources)))}
    return torch.tensor([place[source] for source in sources])
