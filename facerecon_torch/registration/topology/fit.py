"""Registration of the default face to the mean face of another model: similarity, weights, smooth displacement.

Computations are in the default face's frame, to which the other face is moved by the inverse similarity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, csc_matrix, diags, identity
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from facerecon_torch.fitting.designs import solve_normal
from facerecon_torch.geometry.align import Alignment, align_similarity
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.surface_parts import Surface, mesh_edges, mesh_parts, outer_skin
from facerecon_torch.structures import TensorRecord

__all__ = [
    "Constraints",
    "DefaultFace",
    "ModelFit",
    "TopologyFitSpec",
    "deform_to",
    "factor_symmetric",
    "fit_model_to",
]

_ANCHOR = 1e-4  # weight that keeps every vertex near the fit, against 1 of a partner
_LINKS = 4  # nearest skin vertices that each vertex of an eyeball is linked to


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyFitSpec:
    """Settings of the registration. Lengths in mm, penalties in mm^2 against the mean squared distance.

    Raises:
        ValueError: a number outside its range.
    """

    rounds: int = 30
    first_gate: float = 20.0  # largest distance of a correspondence in the first round
    last_gate: float = 5.0  # the same in the last round, and for the displacement
    tangential: float = 0.05  # weight of a distance along the surface, against 1 across it
    identity_penalty: float = 3e-3
    expression_penalty: float = 2e-2
    landmark_share: float = 0.3  # weight of all landmarks together, against 1 for the surface
    stiffness: Sequence[float] = (100.0, 30.0, 10.0, 3.0, 1.0, 1.0)  # of the displacement, one round each
    landmark_weight: float = 10.0  # of one landmark in these rounds, against 1 for a vertex
    landmark_hold: float = 1e-3  # weight of all other vertices in a first round with landmarks only

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.stiffness:
            raise ValueError(f"rounds must be at least 1 and stiffness not empty; got {self}")
        if not self.first_gate >= self.last_gate > 0 or not min(self.stiffness) > 0:
            raise ValueError(f"gates must fall and be positive, stiffness positive; got {self}")


@dataclass(frozen=True, kw_only=True)
class Constraints(TensorRecord):
    """Vertices of the default face and their places on the other face (mm, its frame)."""

    vertices: Int[Tensor, "n"]
    points: Float[Tensor, "n 3"]


class DefaultFace:
    """The default model in float64 with the skin of its mesh. Raises ValueError for a restricted model."""

    def __init__(self, model: FaceModel) -> None:
        self.model = model
        self.topology = model.whole_topology("the default model must be whole")
        self.mean = model.vertices(model.identity_mean, model.expression_mean)
        self.skin = outer_skin(self.mean, self.topology.triangles)
        self.bending = _bending(self.mean, self.topology.triangles)

    def normals(self, shape: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3"]:
        """Unit vertex normals of a shape of this model."""
        return vertex_normals(shape, self.topology.triangles)


@dataclass(frozen=True)
class ModelFit:
    """`vertices` of the fitted default face in its own frame, mm; `alignment` leads from there to the other face."""

    vertices: Float[Tensor, "v 3"]
    alignment: Alignment
    residual: float  # median distance to the other surface, mm of the other face

    def placed(self) -> Float[Tensor, "v 3"]:
        """The default face's vertices in the other face's frame."""
        return self.alignment.apply(self.vertices)


def fit_model_to(face: DefaultFace, target: Surface, anchors: Constraints, spec: TopologyFitSpec) -> ModelFit:
    """Similarity, alpha and beta of the default model by iterated closest points, started by the landmarks `anchors`.

    Parts that only one of the faces has are left out by the falling gate and its robust weight.
    """
    model = face.model
    alpha, beta, shape = model.identity_mean, model.expression_mean, face.mean
    alignment = align_similarity(shape[anchors.vertices], anchors.points)
    rows = torch.cat([face.skin, anchors.vertices])
    part = model.restrict(rows)
    residual = float("inf")
    for gate in np.geomspace(spec.first_gate, spec.last_gate, spec.rounds):
        back = alignment.inverse()
        normals = face.normals(shape)[face.skin]
        nearest = target.moved(back).nearest(shape[face.skin], normals, gate=float(gate))
        goals = torch.cat([nearest.points, back.apply(anchors.points)])
        metric = _metric(nearest.weights, normals, len(anchors.vertices), spec)
        step = align_similarity(shape[rows], goals, metric.diagonal(dim1=-2, dim2=-1).sum(-1))
        alignment = _chained(alignment, step)
        goals = step.inverse().apply(goals)
        alpha, beta = _weights(part, alpha, beta, goals, metric, spec)
        shape = model.vertices(alpha, beta)
        used = nearest.weights > 0
        residual = float(nearest.distances[used].median() * alignment.scale) if bool(used.any()) else residual
    return ModelFit(shape, alignment, residual)


def _metric(
    weights: Float[Tensor, "skin"], normals: Float[Tensor, "skin 3"], n_anchors: int, spec: TopologyFitSpec
) -> Float[Tensor, "rows 3 3"]:
    """Weight matrices of the rows (skin, then landmarks): 1 across the surface, less along it; sums are normalised."""
    eye = torch.eye(3, dtype=normals.dtype)
    across = normals[:, :, None] * normals[:, None, :]
    surface = weights[:, None, None] * (across + spec.tangential * (eye - across)) / weights.sum().clamp_min(1.0)
    return torch.cat([surface, (spec.landmark_share / n_anchors * eye).expand(n_anchors, 3, 3)])


def _weights(
    part: FaceModel,
    alpha: Float[Tensor, "identities"],
    beta: Float[Tensor, "expressions"],
    goals: Float[Tensor, "rows 3"],
    metric: Float[Tensor, "rows 3 3"],
    spec: TopologyFitSpec,
) -> tuple[Float[Tensor, "identities"], Float[Tensor, "expressions"]]:
    """alpha and beta after one ridge step each around their means, beta first."""
    for name in ("expression", "identity"):
        design, offset = part.expression_design(alpha) if name == "expression" else part.identity_design(beta)
        weighted = (metric @ design).flatten(0, 1)
        normal = design.flatten(0, 1).mT @ weighted
        right = weighted.mT @ (goals - offset).flatten()
        variance, mean = getattr(part, f"{name}_variance"), getattr(part, f"{name}_mean")
        solved = solve_normal(normal, right, getattr(spec, f"{name}_penalty") / variance, mean)
        alpha, beta = part.fix_gauge(*((alpha, solved) if name == "expression" else (solved, beta)))
    return alpha, beta


def _chained(outer: Alignment, inner: Alignment) -> Alignment:
    """The alignment `inner` followed by `outer`."""
    turned = outer.scale * (outer.rotation @ inner.translation)
    return Alignment(outer.scale * inner.scale, outer.rotation @ inner.rotation, turned + outer.translation)


def _bending(vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"]) -> csc_matrix:
    """L'L of the graph Laplacian L, a vertex minus the mean of its neighbours; eyeballs are linked to nearby skin."""
    parts = mesh_parts(vertices, triangles)
    main = parts == parts[triangles.flatten()].mode().values
    inside, loose = (torch.nonzero(mask).flatten() for mask in (main, ~main))
    near = torch.cdist(vertices[loose], vertices[inside]).topk(_LINKS, largest=False).indices
    links = torch.stack([loose[:, None].expand_as(near), inside[near]], -1).flatten(0, 1)
    a, b = torch.cat([mesh_edges(triangles).unique(dim=0), links]).numpy().T  # type: ignore[no-untyped-call]
    n = len(vertices)
    ones = np.ones(2 * len(a))
    adjacency = coo_matrix((ones, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n, n)).tocsr()
    degree = np.asarray(adjacency.sum(1)).ravel()
    laplacian = identity(n) - diags(1 / np.maximum(degree, 1)) @ adjacency
    return csc_matrix(laplacian.T @ laplacian)


def deform_to(
    face: DefaultFace, fit: ModelFit, target: Surface, anchors: Constraints, spec: TopologyFitSpec
) -> Float[Tensor, "v 3"]:
    """Vertices of the fitted default face bent onto the other one, mm in the other face's frame.

    argmin over d of  sum w_i |d_i - g_i|^2 + stiffness |L d|^2,  with d the displacement from the fit. g_i leads along
    the normal to the nearest point of the other face and, at an anchor, to its landmark.
    """
    back = fit.alignment.inverse()
    moved, goals = target.moved(back), back.apply(anchors.points)
    pull = goals - fit.vertices[anchors.vertices]
    weights = torch.full((len(fit.vertices),), spec.landmark_hold, dtype=torch.float64)
    shift = _bent(face, weights, torch.zeros_like(fit.vertices), 1.0, anchors, pull, spec)
    for stiffness in spec.stiffness:
        shape = fit.vertices + shift
        normals = face.normals(shape)
        nearest = moved.nearest(shape[face.skin], normals[face.skin], gate=spec.last_gate)
        across = ((nearest.points - shape[face.skin]) * normals[face.skin]).sum(-1, keepdim=True)
        weights = torch.full((len(shape),), _ANCHOR, dtype=torch.float64)
        weights[face.skin] += nearest.weights
        goal = shift.clone()
        goal[face.skin] += (nearest.weights > 0)[:, None] * across * normals[face.skin]
        shift = _bent(face, weights, goal, stiffness, anchors, pull, spec)
    return fit.alignment.apply(fit.vertices + shift)


def _bent(
    face: DefaultFace,
    weights: Float[Tensor, "v"],
    goal: Float[Tensor, "v 3"],
    stiffness: float,
    anchors: Constraints,
    pull: Float[Tensor, "n 3"],
    spec: TopologyFitSpec,
) -> Float[Tensor, "v 3"]:
    """The displacement for the given weights and goals; anchors have the goal `pull`."""
    weights, goal = weights.clone(), goal.clone()
    weights[anchors.vertices] = spec.landmark_weight
    goal[anchors.vertices] = pull
    matrix = csc_matrix(diags(weights.numpy()) + stiffness * face.bending)
    system = factor_symmetric(matrix)
    return torch.from_numpy(system.solve((weights[:, None] * goal).numpy()))


def factor_symmetric(matrix: csc_matrix) -> SuperLU:
    """The factors of a symmetric positive definite sparse matrix."""
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
