"""Where the fit to scans starts: the mean face moved onto 3D landmarks, then both factors fitted to them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.registration.fitted_face import FitState, FittedFace
from facerecon_torch.registration.gauss_newton import Groups, Residuals, make_priors, take_step
from facerecon_torch.registration.icp_spec import IcpSpec, landmark_weights

__all__ = ["FEWEST_LANDMARKS", "LandmarkTargets", "fit_landmarks"]

FEWEST_LANDMARKS = 4
_ALIGN_ROUNDS = 5
_N = 66


@dataclass(frozen=True)
class LandmarkTargets:
    """Labelled and lifted landmarks as one list; what is not known has weight 0 and stands at the origin."""

    points: Float[Tensor, "b 132 3"]
    weights: Float[Tensor, "b 132"]

    @classmethod
    def of(cls, labelled: Float[Tensor, "b 66 3"], lifted: Float[Tensor, "b 66 3"], spec: IcpSpec) -> "LandmarkTargets":
        points = torch.cat([labelled, lifted], 1)
        known = torch.isfinite(points).all(-1)
        weights = torch.where(known, landmark_weights(spec, points), 0.0)
        return cls(torch.where(known[..., None], points, 0.0), weights)

    @property
    def enough(self) -> Bool[Tensor, "b"]:
        """Scans with at least four different landmarks that count."""
        used = self.weights > 0
        return (used[:, :_N] | used[:, _N:]).sum(1) >= FEWEST_LANDMARKS

    def robust(self, offsets: Float[Tensor, "b 132 3"], scale: float) -> Float[Tensor, "b 132"]:
        """Weights times that of Geman and McClure: a quarter at `scale` mm, and falling with the fourth power."""
        squared = offsets.square().sum(-1)
        return self.weights * (scale**2 / (scale**2 + squared)).square()

    def residuals(self, face: FittedFace, state: FitState, scale: float, *, first: int) -> Residuals:
        """Three rows a landmark, one for every axis; `first` is the model's row of the first landmark."""
        vertices = face.marks.vertices(state.identity, state.expression).repeat(1, 2, 1)
        offsets = state.pose(vertices) - self.points
        weights = self.robust(offsets, scale) / _N
        axes = torch.eye(3, dtype=offsets.dtype, device=offsets.device).repeat(2 * _N, 1)
        marks = torch.arange(first, first + _N, device=offsets.device).repeat(2)
        return Residuals(
            marks.repeat_interleave(3),
            axes.expand(len(offsets), -1, -1),
            offsets.flatten(1),
            weights.repeat_interleave(3, dim=1),
        )


def fit_landmarks(face: FittedFace, targets: LandmarkTargets, spec: IcpSpec, groups: Groups) -> FitState:
    """Robust rigid alignment of the mean face's landmarks, then steps on all unknowns with a strong prior."""
    state = _aligned(face, targets, spec)
    # Weights are brought to those of 66 sure landmarks, so that the penalty means the same whatever they are.
    share = targets.weights.amax(1, keepdim=True).clamp_min(1e-12)
    targets = LandmarkTargets(targets.points, targets.weights / share)
    priors = make_priors(face.marks, spec.start_penalty, spec.start_penalty)
    for scale in spec.start_scales:
        state = take_step(face.marks, state, [targets.residuals(face, state, scale, first=0)], priors, groups)
    return state


def _aligned(face: FittedFace, targets: LandmarkTargets, spec: IcpSpec) -> FitState:
    state = face.start(len(targets.points))
    mean = face.marks.vertices(face.marks.identity_mean, face.marks.expression_mean)
    source = mean.repeat(2, 1).expand(len(targets.points), -1, -1)
    weights = targets.weights
    for _ in range(_ALIGN_ROUNDS):
        motion = align_rigid(source.double(), targets.points.double(), weights.double())
        weights = targets.robust(motion.apply(source.double()) - targets.points, spec.start_scales[0] / 2)
    enough = targets.enough
    rotation = torch.where(enough[:, None, None], motion.rotation, state.rotation)
    return state._replace(
        rotation=rotation, translation=torch.where(enough[:, None], motion.translation, state.translation)
    )
