"""A face model as eos's files, so that eos fits the same face: the model (.bin) and its landmark tables.

eos's model is linear: identity at the mean expression, and expression at the mean identity, each a mean, an orthonormal
basis and eigenvalues. Of a bilinear model these are the two slices through its mean; their products are lost, which is
the difference between the models. Landmarks are named 1 to 68, as in eos's own files. The contour of the side that
turns to the viewer is sought among the model's fixed contour vertices, that of the other among all occluding edges.
"""

import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.errors import MissingExtraError, ModelFileError
from facerecon_torch.files import replacing, write_bytes
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_CONTOUR, N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.topology import FaceTopology

__all__ = ["EosFiles", "import_eos", "write_eos_model"]

_CHIN = 8  # iBUG; the contour points before it are the person's right ones, the image's left
_NEGLIGIBLE = 1e-6  # of the largest singular value


@dataclass(frozen=True)
class EosFiles:
    """The files of one model. Without `contour` and `edges` eos fits the inner landmarks alone.

    Attributes:
        model: morphable model (.bin), with expressions.
        mapping: landmark names to vertices, and the names on the contour (ibug_to_sfm.txt of eos).
        contour: vertices of the model's contour (sfm_model_contours.json of eos).
        edges: edge topology (sfm_3448_edge_topology.json of eos).
    """

    model: Path
    mapping: Path
    contour: Path | None = None
    edges: Path | None = None

    def __post_init__(self) -> None:
        for file in (self.model, self.mapping, self.contour, self.edges):
            if file is not None and not file.is_file():
                raise ModelFileError(f"eos needs an existing file; nothing is at {file}")


def import_eos() -> ModuleType:
    """The module eos. Raises MissingExtraError where eos-py is not installed."""
    try:
        return importlib.import_module("eos")
    except ImportError as error:
        raise MissingExtraError("runs with peers=[eos]", "eos-py", "peers") from error


def write_eos_model(model: FaceModel, folder: str | os.PathLike[str]) -> EosFiles:
    """The files of a face model, written to a folder.

    Args:
        model: with its topology.
        folder: is made if it is missing.

    Raises:
        ValueError: eos-py is not installed, or the model has no topology.

    Example:
        >>> write_eos_model(load_default_face(), "eos").model
        PosixPath('eos/face.bin')
    """
    topology = model.whole_topology("eos needs a whole model").to("cpu")
    eos, target = import_eos(), Path(folder)
    files = [target / name for name in ("face.bin", "mapping.txt", "contour.json", "edges.json")]
    with replacing(files[0]) as aside:
        eos.morphablemodel.save_model(_morphable(eos, model, topology), str(aside))
    write_bytes(files[1], _mapping(topology).encode("ascii"))
    right, left = _contour_sides(topology)
    contour = {"model_contour": {"right_contour": right, "left_contour": left}}
    write_bytes(files[2], json.dumps(contour).encode("ascii"))
    adjacent, corners = _edges(topology.triangles)
    with replacing(files[3]) as aside:
        eos.morphablemodel.save_edge_topology(eos.morphablemodel.EdgeTopology(adjacent, corners), str(aside))
    return EosFiles(*files)


def _morphable(eos: ModuleType, model: FaceModel, topology: FaceTopology) -> Any:
    triangles = topology.triangles.tolist()
    mean = model.vertices(model.identity_mean, model.expression_mean).cpu().reshape(-1, 1).float()
    identity, _ = model.identity_design(model.expression_mean)
    expression, _ = model.expression_design(model.identity_mean)
    parts = [
        eos.morphablemodel.PcaModel(centre.numpy(), basis.numpy(), values.numpy(), triangles)
        for centre, (basis, values) in (
            (mean, _principal(identity, model.identity_variance)),
            (torch.zeros_like(mean), _principal(expression, model.expression_variance)),
        )
    ]
    return eos.morphablemodel.MorphableModel(*parts, eos.morphablemodel.PcaModel())


def _principal(
    design: Float[Tensor, "V 3 k"], variance: Float[Tensor, "k"]
) -> tuple[Float[Tensor, "V*3 m"], Float[Tensor, "m 1"]]:
    """Orthonormal basis and eigenvalues of the shapes that weights of these variances give."""
    spread = (design.cpu().double() * variance.cpu().double().sqrt()).reshape(-1, len(variance))
    basis, values, _ = torch.linalg.svd(spread, full_matrices=False)
    used = values > _NEGLIGIBLE * values[0]
    return basis[:, used].float().contiguous(), values[used].square().float()[:, None]


def _mapping(topology: FaceTopology) -> str:
    """eos's table of landmarks (TOML), which are counted from 1."""
    rows = topology.landmark_vertices.tolist()
    inner = [f"{IBUG_OF_PAPER[k] + 1} = {rows[k]}" for k in range(N_INNER)]
    chin = f"{_CHIN + 1} = {rows[N_INNER + _CHIN]}"
    right, left = range(1, _CHIN + 1), range(_CHIN + 2, N_CONTOUR + 1)
    contour = [f"{side} = [ {', '.join(map(str, names))} ]" for side, names in (("right", right), ("left", left))]
    return "\n".join(["[landmark_mappings]", *inner, chin, "", "[contour_landmarks]", *contour, ""])


def _contour_sides(topology: FaceTopology) -> tuple[list[int], list[int]]:
    contour = topology.landmark_vertices[N_INNER:].tolist()
    return contour[:_CHIN], contour[_CHIN + 1 :]


def _edges(triangles: Int[Tensor, "T 3"]) -> tuple[list[list[int]], list[list[int]]]:
    """Of every edge its two triangles (0 where it has one alone) and its two vertices, both counted from 1."""
    pairs = torch.cat([triangles[:, [0, 1]], triangles[:, [0, 2]], triangles[:, [1, 2]]]).sort(dim=-1).values
    owner = torch.arange(1, len(triangles) + 1).repeat(3)
    corners, edge = torch.unique(pairs, dim=0, return_inverse=True)
    adjacent = torch.zeros(len(corners), 2, dtype=torch.int64)
    order = edge.argsort(stable=True)
    edge, owner = edge[order], owner[order]
    second = torch.cat([torch.zeros(1, dtype=torch.bool), edge[1:] == edge[:-1]])
    adjacent[edge[~second], 1] = owner[~second]
    adjacent[edge[second], 0] = owner[second]
    return adjacent.tolist(), (corners + 1).tolist()
