"""Correspondence of the default face with a model: for its vertices, points on the triangles of the model's mesh.

The default face is registered to the model's neutral face; each vertex of its outer skin corresponds to the nearest
point that faces the same way. Where lips or lids meet, only the surface of the same side is searched. A model on the
default face's own mesh corresponds vertex by vertex.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.errors import ModelFileError
from facerecon_torch.geometry.align import Alignment, align_similarity
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.surface_parts import NearestPoints, Surface
from facerecon_torch.registration.topology.complete import register_default_face
from facerecon_torch.registration.topology.fit import TopologyFitSpec
from facerecon_torch.registration.topology.sides import slit_sides

__all__ = ["Correspondence", "CorrespondenceSpec", "find_correspondence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrespondenceSpec:
    """Settings of the registration, and the limits of a correspondence."""

    fit: TopologyFitSpec = field(default_factory=TopologyFitSpec)
    distance: float = 3.0  # mm from the registered face to the mesh at most
    rim_distance: float = 1.5  # mm, the same where the nearest point lies on the rim of the mesh
    cosine: float = 0.5  # of the angle between the normals at least
    share: float = 0.75  # of the default face's vertex set `whole` that must correspond
    residual: float = 3.0  # mm, median distance of the fitted default face at most


@dataclass(frozen=True)
class Correspondence:
    """Points on a model's mesh for vertices of the default face.

    Attributes:
        vertices: of the default face, in rising order.
        corners: the model's vertices around each point.
        weights: barycentric, of these.
        alignment: from the default face's frame to the model's, mm; it has no batch axes.
    """

    vertices: Int[Tensor, "c"]
    corners: Int[Tensor, "c 3"]
    weights: Float[Tensor, "c 3"]
    alignment: Alignment

    def points(self, meshes: Float[Tensor, "*n v 3"]) -> Float[Tensor, "*n c 3"]:
        """The points of the vertices on meshes of the model, mm in its frame."""
        located: Tensor = (meshes[..., self.corners, :] * self.weights[:, :, None]).sum(-2)
        return located


_DEFAULT = CorrespondenceSpec()


@torch.no_grad()
def find_correspondence(
    neutral: Float[Tensor, "v 3"],
    topology: FaceTopology,
    *,
    spec: CorrespondenceSpec = _DEFAULT,
    default: FaceModel | None = None,
) -> Correspondence:
    """The correspondence of the default face with a model. Runs on the CPU.

    Args:
        neutral: the model's mean person with a neutral expression, mm.
        topology: of the model.
        spec: settings and limits.
        default: the default face in float64 on the CPU; the package's own if not given.

    Raises:
        ModelFileError: the default face does not fit to the mesh, or the mesh lies under too little of it.

    Example:
        >>> find_correspondence(neutral, model.topology).points(model.vertices(alpha, beta))
    """
    topology = topology.to("cpu")
    if torch.equal(topology.triangles, load_topology().triangles):
        return _of_default_mesh(neutral.detach().cpu())
    known = {IBUG_OF_PAPER[k]: int(topology.landmark_vertices[k]) for k in range(N_INNER)}
    made = register_default_face(neutral, topology.triangles, known, spec=spec.fit, default=default)
    if made.fit.residual > spec.residual:
        raise ModelFileError(
            f"the default face must fit to the mean face within {spec.residual:g} mm (median distance); "
            f"got {made.fit.residual:.1f} mm"
        )
    face, placed = made.face, made.placed(spec.fit)
    normals = face.normals(placed)
    own = slit_sides(placed, face.topology.triangles, face.topology.landmark_vertices)
    other = slit_sides(made.skin.vertices, made.skin.triangles, topology.landmark_vertices)
    nearest, near = _nearest_on_side(made.skin, placed[face.skin], normals[face.skin], own[:, face.skin], other, spec)
    share = _share(face.topology.whole_vertices, face.skin[near])
    if share < spec.share:
        raise ModelFileError(
            f"the mesh must lie under at least {spec.share:.0%} of the default face's vertex set `whole`, so that its "
            f"people can be drawn; {1 - share:.0%} of it have no correspondence"
        )
    corners = made.skin.triangles[nearest.triangles[near]]
    alignment = made.fit.alignment
    weights = nearest.barycentric[near].float()
    return Correspondence(face.skin[near], corners, weights, alignment.to(torch.float32))


def _nearest_on_side(
    target: Surface,
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    own: Int[Tensor, "slits n"],
    other: Int[Tensor, "slits v"],
    spec: CorrespondenceSpec,
) -> tuple[NearestPoints, Bool[Tensor, "n"]]:
    """The nearest points of the target on the same side of every slit, and whether each corresponds."""
    result = target.nearest(points, normals, gate=spec.distance, cosine=spec.cosine)
    for slit, sides in enumerate(own):
        for side in (1, -1):
            rows = torch.nonzero(sides == side).flatten()
            opposite = (other[slit] == -side)[target.triangles].any(-1)
            if not len(rows) or not bool(opposite.any()) or bool(opposite.all()):
                continue
            part = replace(target, triangles=target.triangles[~opposite])
            found = part.nearest(points[rows], normals[rows], gate=spec.distance, cosine=spec.cosine)
            numbers = torch.nonzero(~opposite).flatten()
            found = replace(found, triangles=numbers[found.triangles])
            result = NearestPoints(
                *(
                    getattr(result, name).index_copy(0, rows, getattr(found, name))
                    for name in NearestPoints.__dataclass_fields__
                )
            )
    agree = (result.normals * normals).sum(-1) >= spec.cosine
    return result, (result.weights > 0) | (agree & (result.distances <= spec.rim_distance))


def _of_default_mesh(neutral: Float[Tensor, "v 3"]) -> Correspondence:
    """The correspondence of the default face's own mesh: every vertex with itself."""
    rows = torch.arange(len(neutral))
    weights = torch.tensor([1.0, 0.0, 0.0]).expand(len(rows), 3).clone()
    mean = load_source().mean[: len(rows)]
    alignment = align_similarity(mean, neutral.to(mean.dtype))
    return Correspondence(rows, rows[:, None].repeat(1, 3), weights, alignment)


def _share(members: Int[Tensor, "w"], corresponding: Int[Tensor, "c"]) -> float:
    return float(torch.isin(members, corresponding).double().mean())
