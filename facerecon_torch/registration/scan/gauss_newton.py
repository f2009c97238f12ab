"""The part of a face model that is fitted to scans, the state of a fit, and its Gauss-Newton step.

A step solves for pose, expression and identity together, from weighted residuals. With x = R v + T and v = A alpha =
B beta (each for the current value of the other factor), a turn by the small vector w about the centre c, a shift t and
changes of both factors move x by  w x (x - c) + t + R (A da + B db). An opening jaw and a nodding head look alike, so
that alternating steps would converge slowly.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel

__all__ = ["FitState", "FittedFace", "Groups", "Priors", "Residuals", "make_groups", "make_priors", "take_step"]

_POSE = 6
_POSE_RIDGE = 1e-9  # mm^2: keeps the pose of a scan without any residual where it is
_MARGIN_SAMPLES = 500  # vertices of the face that the distance to it is measured from
_GAUGE_STIFFNESS = 1e9  # mm^2: beta's component along the gauge direction does not move


class FitState(NamedTuple):
    """Weights of both factors, and the rigid motion scan = R v + T in float64 (mm)."""

    identity: Float[Tensor, "b identities"]
    expression: Float[Tensor, "b expressions"]
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]

    def pose(self, vertices: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Vertices moved from the model frame to the sensor's frame, in their own dtype."""
        rotation, translation = self.rotation.to(vertices), self.translation.to(vertices)
        return vertices @ rotation.mT + translation[:, None]


class FittedFace:
    """A model restricted to the fitted vertices, the landmarks and the vertices around, which the normals need.

    The fitted vertices are the topology's whole set and every other vertex within `margin` mm of it on the mean face:
    temples, forehead and jaw separate turns of the head from expressions. They are thinned out to at most `most`.
    Raises ValueError for a model without topology.
    """

    def __init__(self, model: FaceModel, most: int, margin: float, like: Tensor) -> None:
        topology = model.topology
        if topology is None:
            raise ValueError("model must have a topology (a restricted model has none)")
        face_set = topology.whole_vertices
        face = _thinned(torch.cat([face_set, _margin(model, face_set, margin)[::2]]), most)
        self.n_face = len(face)
        used = torch.zeros(model.n_vertices, dtype=torch.bool, device=face.device)
        used[face] = True
        triangles = topology.triangles[used[topology.triangles].any(1)]
        around = torch.unique(triangles)
        rows = torch.cat([face, around[~used[around]]])
        place = torch.zeros(model.n_vertices, dtype=torch.int64, device=face.device)
        place[rows] = torch.arange(len(rows), device=face.device)
        self._triangles: Int[Tensor, "t 3"] = place[triangles]
        self._around = model.restrict(rows).to(like)
        marks = topology.landmark_vertices
        self.model = model.restrict(torch.cat([face, marks])).to(like)
        """The model of the fitted vertices, followed by the 66 landmarks."""
        self.marks = model.restrict(marks).to(like)
        """The model of the 66 landmarks."""
        mean = model.vertices(model.identity_mean, model.expression_mean)
        self.mark_normals: Float[Tensor, "66 3"] = vertex_normals(mean, topology.triangles)[marks].to(like)
        """Unit normals of the landmarks on the mean face, in the model frame."""

    def surface(self, state: FitState) -> tuple[Float[Tensor, "b face 3"], Float[Tensor, "b face 3"]]:
        """Posed vertices of the face and their unit normals, in the sensor's frame."""
        vertices = self._around.vertices(state.identity, state.expression)
        normals = vertex_normals(vertices, self._triangles)[:, : self.n_face]
        return state.pose(vertices[:, : self.n_face]), normals @ state.rotation.to(normals).mT

    def start(self, n: int) -> FitState:
        """n times the mean face in the model frame."""
        model = self.model
        eye = torch.eye(3, dtype=torch.float64, device=model.device).expand(n, 3, 3)
        still = torch.zeros(n, 3, dtype=torch.float64, device=model.device)
        return FitState(model.identity_mean.expand(n, -1), model.expression_mean.expand(n, -1), eye, still)


def _thinned(rows: Int[Tensor, "n"], most: int) -> Int[Tensor, "m"]:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()]


def _margin(model: FaceModel, face_set: Int[Tensor, "w"], width: float) -> Int[Tensor, "n"]:
    """Vertices outside `face_set` and at most about `width` mm away from it."""
    mean = model.vertices(model.identity_mean, model.expression_mean)
    outside = torch.ones(len(mean), dtype=torch.bool, device=mean.device)
    outside[face_set] = False
    rows = torch.nonzero(outside)[:, 0]
    face = mean[_thinned(face_set, _MARGIN_SAMPLES)]
    return rows[torch.cdist(mean[rows], face).amin(1) <= width]


class Residuals(NamedTuple):
    """Terms weight_i (direction_i . x_vertex(i) - goal_i)^2; `offset` is the current value of the bracket, in mm."""

    vertex: Int[Tensor, "m"] | slice  # rows of the model
    direction: Float[Tensor, "b m 3"]
    offset: Float[Tensor, "b m"]
    weight: Float[Tensor, "b m"]


class Priors(NamedTuple):
    """Penalty matrices and means of both factors (Eq. 7), float64."""

    identity: Float[Tensor, "identities identities"]
    identity_mean: Float[Tensor, "identities"]
    expression: Float[Tensor, "expressions expressions"]
    expression_mean: Float[Tensor, "expressions"]


class Groups(NamedTuple):
    """The group of every scan, from 0; scans of one group share their identity."""

    of_scan: Int[Tensor, "b"]
    number: int


def make_groups(labels: Int[Tensor, "b"] | None, n: int, device: torch.device) -> Groups:
    """Groups of scans with equal labels; without labels, one group per scan."""
    if labels is None:
        return Groups(torch.arange(n, device=device), n)
    names, index = torch.unique(labels.to(device), return_inverse=True)
    return Groups(index, len(names))


def make_priors(model: FaceModel, identity_penalty: float, expression_penalty: float) -> Priors:
    """Priors from the penalties, in mm^2, of weights one standard deviation away from their means."""
    expression = torch.diag(expression_penalty / model.expression_variance.double())
    if isinstance(model, BilinearModel) and model.gauge == "fixed":
        along = model.gauge_direction.double()
        expression = expression + _GAUGE_STIFFNESS * torch.outer(along, along) / along.square().sum()
    return Priors(
        torch.diag(identity_penalty / model.identity_variance.double()),
        model.identity_mean.double(),
        expression,
        model.expression_mean.double(),
    )


def take_step(model: FaceModel, state: FitState, terms: list[Residuals], priors: Priors, groups: Groups) -> FitState:
    """The state after one Gauss-Newton step on all terms and the priors. The small systems are solved in float64.

    Identity is solved once per group: each scan's own pose and expression are eliminated (Schur complement), and the
    remaining equations of the group's scans are summed.
    """
    designs = (model.identity_design(state.expression), model.expression_design(state.identity))
    (identity_matrix, offset), (expression_matrix, _) = designs
    vertices = offset + (identity_matrix @ state.identity[:, None, :, None])[..., 0]
    posed = state.pose(vertices)
    centre = posed.mean(1, keepdim=True)
    size = _POSE + model.n_expression + model.n_identity
    normal = torch.zeros(len(posed), size, size, dtype=torch.float64, device=posed.device)
    right = normal.new_zeros(len(posed), size)
    for term in terms:
        arm = (posed - centre)[:, term.vertex]
        turned = (term.direction @ state.rotation.to(posed))[..., None]
        columns = [
            torch.linalg.cross(arm, term.direction),
            term.direction,
            (turned * expression_matrix[:, term.vertex]).sum(-2),
            (turned * identity_matrix[:, term.vertex]).sum(-2),
        ]
        root = term.weight.sqrt()
        rows = torch.cat(columns, -1) * root[..., None]
        normal = normal + (rows.mT @ rows).double()
        right = right - (rows.mT @ (root * term.offset)[..., None])[..., 0].double()
    change = _solve(normal, right, state, priors, groups)
    return _moved(state, change, centre[:, 0].double())


class _Change(NamedTuple):
    turn: Float[Tensor, "b 3"]
    shift: Float[Tensor, "b 3"]
    expression: Float[Tensor, "b expressions"]
    identity: Float[Tensor, "b identities"]


def _solve(
    normal: Float[Tensor, "b p p"], right: Float[Tensor, "b p"], state: FitState, priors: Priors, groups: Groups
) -> _Change:
    """The solution of the normal equations with the priors; unknowns are pose, expression, identity, in this order."""
    n_expression = state.expression.shape[1]
    own = _POSE + n_expression
    ridge = torch.zeros(own, own, dtype=torch.float64, device=normal.device)
    ridge[:_POSE, :_POSE] = _POSE_RIDGE * torch.eye(_POSE, dtype=torch.float64, device=normal.device)
    ridge[_POSE:, _POSE:] = priors.expression
    pull = (priors.expression_mean - state.expression.double()) @ priors.expression
    pull = torch.cat([pull.new_zeros(len(pull), _POSE), pull], 1)
    shared = normal[:, :own, own:]
    factor = torch.linalg.cholesky_ex(normal[:, :own, :own] + ridge)[0]
    freed = torch.cholesky_solve(torch.cat([shared, (right[:, :own] + pull)[..., None]], -1), factor)
    reduced = torch.cat([normal[:, own:, own:], right[:, own:, None]], -1) - shared.mT @ freed
    summed = reduced.new_zeros(groups.number, *reduced.shape[1:]).index_add(0, groups.of_scan, reduced)
    identity = state.identity.double()
    current = identity.new_zeros(groups.number, identity.shape[1]).index_copy(0, groups.of_scan, identity)
    pull = (priors.identity_mean - current) @ priors.identity
    factor = torch.linalg.cholesky_ex(summed[..., :-1] + priors.identity)[0]
    step = torch.cholesky_solve(summed[..., -1:] + pull[..., None], factor)[..., 0][groups.of_scan]
    rest = freed[..., -1] - (freed[..., :-1] @ step[..., None])[..., 0]
    return _Change(rest[:, :3], rest[:, 3:_POSE], rest[:, _POSE:], step)


def _moved(state: FitState, change: _Change, centre: Float[Tensor, "b 3"]) -> FitState:
    turn = axis_angle_to_matrix(change.turn)
    about = (turn @ (state.translation - centre)[..., None])[..., 0]
    return FitState(
        state.identity + change.identity.to(state.identity.dtype),
        state.expression + change.expression.to(state.expression.dtype),
        turn @ state.rotation,
        about + centre + change.shift,
    )
