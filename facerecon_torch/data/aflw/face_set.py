"""300W-LP and AFLW2000-3D as labelled sets: the true mesh of a photograph follows from its fitted weights."""

import logging
import math
import re

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.aflw.files import PhotoFiles, iter_aflw2000, iter_lp, read_fitted_photo
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
