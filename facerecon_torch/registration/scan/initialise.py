"""Where the fit to scans starts: the mean face moved onto 3D landmarks, and both factors fitted to them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import GROUPS_66
from facerecon_torch.registration.scan.fitted_face import FitState, FittedFace
from facerecon_torch.registration.scan.gauss_newton import Groups, Residuals, make_priors, take_step
from facerecon_torch.registration.scan.icp_spec import IcpSpec, landmark_weights

__all__ = ["FEWEST_LANDMARKS", "LandmarkTargets", "fit_landmarks"]

FEWEST_LANDMARKS = 4
_YAW_GUESSES = (0.0, -40.0, 40.0, -80.0, 80.0)  # degrees
_EYES, _BROWS = GROUPS_66["eyes"], GROUPS_66["brows"]
_COVERED_GUESSES = (  # landmarks behind a hand: both eyes, either of them, the mouth
    _EYES + _BROWS,
    _EYES[:6] + _BROWS[:5],
    _EYES[6:] + _BROWS[5:],
    GROUPS_66["mouth"] + GROUPS_66["contour"],
)
_N = 66


@dataclass(frozen=True)
class LandmarkTargets:
    """Labelled and lifted landmarks as one list; what is not known has weight 0 and stands at the origin."""

    points: Float[Tensor, "b 132 3"]
    weights: Float[Tensor, "b 132"]

    @classmethod
    def of(
        cls,
        labelled: Float[Tensor, "b 66 3"],
        lifted: Float[Tensor, "b 66 3"],
        spec: IcpSpec,
        *,
        at_start: bool = False,
    ) -> "LandmarkTargets":
        points = torch.cat([labelled, lifted], 1)
        known = torch.isfinite(points).all(-1)
        weights = torch.where(known, landmark_weights(spec, points, at_start=at_start), 0.0)
        # A scan without a start takes no part, so that it can't spoil its group.
        weights = torch.where(_enough(weights)[:, None], weights, 0.0)
        return cls(torch.where(known[..., None], points, 0.0), weights)

    @property
    def enough(self) -> Bool[Tensor, "b"]:
        """Scans with at least four different landmarks that count."""
        return _enough(self.weights)

    def robust(
        self, offsets: Float[Tensor, "*g b 132 3"], scale: float, depth: float = 1.0
    ) -> Float[Tensor, "*g b 132"]:
        """Weights times that of Geman and McClure: a quarter at `scale` mm, falling with the fourth power. An offset
        in depth counts `depth` times."""
        squared = offsets[..., :2].square().sum(-1) + (depth * offsets[..., 2]).square()
        return self.weights * (scale**2 / (scale**2 + squared)).square()

    def residuals(
        self, face: FittedFace, state: FitState, scale: float, *, first: int, depth: float = 1.0
    ) -> Residuals:
        """Three rows a landmark, one for every axis; `first` is the model's row of the first landmark. The depth of a
        landmark is that of whatever the sensor met there, a lash or an eyeball: its rows are multiplied by `depth`."""
        vertices = face.marks.vertices(state.identity, state.expression).repeat(1, 2, 1)
        offsets = state.pose(vertices) - self.points
        weights = self.robust(offsets, scale, depth) / _N
        trust = offsets.new_tensor([1.0, 1.0, depth**2])
        axes = torch.eye(3, dtype=offsets.dtype, device=offsets.device).repeat(2 * _N, 1)
        marks = torch.arange(first, first + _N, device=offsets.device).repeat(2)
        return Residuals(
            marks.repeat_interleave(3),
            axes.expand(len(offsets), -1, -1),
            offsets.flatten(1),
            (weights[..., None] * trust).flatten(1),
        )


def _enough(weights: Float[Tensor, "b 132"]) -> Bool[Tensor, "b"]:
    used = weights > 0
    return (used[:, :_N] | used[:, _N:]).sum(1) >= FEWEST_LANDMARKS


def fit_landmarks(
    face: FittedFace,
    labelled: Float[Tensor, "b 66 3"],
    lifted: Float[Tensor, "b 66 3"],
    spec: IcpSpec,
    groups: Groups,
) -> FitState:
    """The mean face moved onto the landmarks, then steps on all unknowns with a strong prior."""
    targets = LandmarkTargets.of(labelled, lifted, spec, at_start=True)
    state = _aligned(face, targets, spec)
    # Weights are brought to those of 66 sure landmarks, so that the penalty means the same whatever they are.
    share = targets.weights.amax(1, keepdim=True).clamp_min(1e-12)
    targets = LandmarkTargets(targets.points, targets.weights / share)
    priors = make_priors(face.marks, spec.start_penalty, spec.start_penalty)
    for scale in spec.start_scales:
        state = take_step(face.marks, state, [targets.residuals(face, state, scale, first=0)], priors, groups)
    return state


def _aligned(face: FittedFace, targets: LandmarkTargets, spec: IcpSpec) -> FitState:
    """Robust alignment from several guesses of the yaw and of what is covered, each starting with the landmarks that
    can be seen under it: detectors guess where hidden ones are, and those guesses, lifted onto what hides them, may
    outnumber the rest. The guess that most landmarks agree with wins."""
    seen = _seen(face)
    n, guesses = len(targets.points), len(seen)
    mean = face.marks.vertices(face.marks.identity_mean, face.marks.expression_mean).double()
    source = mean.repeat(2, 1).expand(guesses, n, -1, -1)
    goal = targets.points.double().expand(guesses, -1, -1, -1)
    weights = targets.weights.double() * seen[:, None].repeat(1, 1, 2)
    for scale in spec.align_scales:
        motion = align_rigid(source, goal, weights)
        weights = targets.robust(motion.apply(source) - goal, scale)
    best = weights.sum(2).argmax(0)
    each = torch.arange(n, device=best.device)
    start, enough = face.start(n), targets.enough
    return start._replace(
        rotation=torch.where(enough[:, None, None], motion.rotation[best, each], start.rotation),
        translation=torch.where(enough[:, None], motion.translation[best, each], start.translation),
    )


def _seen(face: FittedFace) -> Float[Tensor, "guesses 66"]:
    """1 for the landmarks that can be seen under each guess, else 0."""
    yaw = torch.deg2rad(face.mark_normals.new_tensor(_YAW_GUESSES))
    turned = face.mark_normals @ euler_to_matrix(yaw, torch.zeros_like(yaw), torch.zeros_like(yaw)).mT
    uncovered = torch.ones(len(_COVERED_GUESSES), _N, dtype=torch.float64, device=yaw.device)
    for row, covered in zip(uncovered, _COVERED_GUESSES):
        row[list(covered)] = 0.0
    return torch.cat([(turned[..., 2] > 0).double(), uncovered])
