"""Start of the fit to scans: the mean face aligned with 3D landmarks, then both factors fitted to them."""

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
_COVERED_GUESSES = (  # landmarks behind a hand: both eyes, one eye, the mouth
    _EYES + _BROWS,
    _EYES[:6] + _BROWS[:5],
    _EYES[6:] + _BROWS[5:],
    GROUPS_66["mouth"] + GROUPS_66["contour"],
)
_N = 66


@dataclass(frozen=True)
class LandmarkTargets:
    """Labelled and lifted landmarks in one list; unknown ones are at the origin with weight 0."""

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
        """Targets with the weights of `spec`. A scan with too few landmarks has no weights, so that it cannot spoil its
        group."""
        points = torch.cat([labelled, lifted], 1)
        finite = torch.isfinite(points).all(-1)
        weights = torch.where(finite, landmark_weights(spec, points, at_start=at_start), 0.0)
        weights = torch.where(_enough(weights)[:, None], weights, 0.0)
        return cls(torch.where(finite[..., None], points, 0.0), weights)

    @property
    def enough(self) -> Bool[Tensor, "b"]:
        """Whether each scan has at least four different landmarks with a weight."""
        return _enough(self.weights)

    def robust(
        self, offsets: Float[Tensor, "*g b 132 3"], scale: float, depth: float = 1.0
    ) -> Float[Tensor, "*g b 132"]:
        """Weights times Geman and McClure's: a quarter at `scale` mm, falling with the fourth power. Offsets in depth
        are multiplied by `depth`."""
        squared = offsets[..., :2].square().sum(-1) + (depth * offsets[..., 2]).square()
        return self.weights * (scale**2 / (scale**2 + squared)).square()

    def residuals(
        self, face: FittedFace, state: FitState, scale: float, *, first: int, depth: float = 1.0
    ) -> Residuals:
        """Three residuals per landmark, one for every axis; `first` is the model's row of the first landmark.

        Residuals in depth are multiplied by `depth`: the sensor may have measured a lash or an eyeball there.
        """
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
    """The state after alignment of the mean face and steps on all unknowns with a strong prior."""
    targets = LandmarkTargets.of(labelled, lifted, spec, at_start=True)
    state = _aligned(face, targets, spec)
    # Weights are scaled to a largest one of 1, so that the penalty means the same for all kinds of landmarks.
    largest = targets.weights.amax(1, keepdim=True).clamp_min(1e-12)
    targets = LandmarkTargets(targets.points, targets.weights / largest)
    priors = make_priors(face.marks, spec.start_penalty, spec.start_penalty)
    for scale in spec.start_scales:
        state = take_step(face.marks, state, [targets.residuals(face, state, scale, first=0)], priors, groups)
    return state


def _aligned(face: FittedFace, targets: LandmarkTargets, spec: IcpSpec) -> FitState:
    """Robust alignment from several guesses of the yaw and of covered landmarks; the one with the largest sum of
    weights is taken.

    Each guess starts with the landmarks that are visible under it: detectors place hidden landmarks as well, and these,
    lifted onto whatever hides them, may outnumber the others.
    """
    visible = _visible(face)
    n, guesses = len(targets.points), len(visible)
    mean = face.marks.vertices(face.marks.identity_mean, face.marks.expression_mean).double()
    source = mean.repeat(2, 1).expand(guesses, n, -1, -1)
    goal = targets.points.double().expand(guesses, -1, -1, -1)
    weights = targets.weights.double() * visible[:, None].repeat(1, 1, 2)
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


def _visible(face: FittedFace) -> Float[Tensor, "guesses 66"]:
    """1 for the landmarks that are visible under each guess, else 0."""
    yaw = torch.deg2rad(face.mark_normals.new_tensor(_YAW_GUESSES))
    turned = face.mark_normals @ euler_to_matrix(yaw, torch.zeros_like(yaw), torch.zeros_like(yaw)).mT
    uncovered = torch.ones(len(_COVERED_GUESSES), _N, dtype=torch.float64, device=yaw.device)
    for row, covered in zip(uncovered, _COVERED_GUESSES):
        row[list(covered)] = 0.0
    return torch.cat([(turned[..., 2] > 0).double(), uncovered])
