"""Settings of the fit to scans, and its start: the mean face aligned with 3D landmarks, then both factors fitted."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.checks import require_positive
from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import GROUPS_66, N_CONTOUR, N_INNER
from facerecon_torch.registration.scan.gauss_newton import (
    FitState,
    FittedFace,
    Groups,
    Residuals,
    make_priors,
    take_step,
)

__all__ = ["IcpSpec", "LandmarkTargets", "fit_landmarks"]

CHIN = N_INNER + 8
_FEWEST_LANDMARKS = 4
_YAW_GUESSES = (0.0, -40.0, 40.0, -80.0, 80.0)  # degrees
_EYES, _BROWS = GROUPS_66["eyes"], GROUPS_66["brows"]
_COVERED_GUESSES = (  # landmarks behind a hand: both eyes, one eye, the mouth
    _EYES + _BROWS,
    _EYES[:6] + _BROWS[:5],
    _EYES[6:] + _BROWS[5:],
    GROUPS_66["mouth"] + GROUPS_66["contour"],
)
_N = 66


@dataclass(frozen=True, slots=True, kw_only=True)
class IcpSpec:
    """Weights and penalties of E = mean_v w_v r_v^2 + sum_l w_l |d_l|^2 / 66 + penalties (fit_scans), all in mm^2.

    With a landmark weight of 1, 66 exact landmarks count as much as the whole surface.

    Raises:
        ValueError: a number outside its range.
    """

    align_scales: tuple[float, ...] = (14.0, 10.0, 8.0, 6.0, 6.0, 6.0)  # mm, of the landmarks' robust weight while
    # the mean face is aligned with them; one round each
    start_scales: tuple[float, ...] = (8.0, 7.0, 6.0, 6.0)  # mm, the same while both factors are fitted to landmarks
    distances: tuple[float, ...] = (15.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 4.0, 3.0, 3.0)  # mm, gate; one round each
    normal_degrees: float | int = 50.0
    landmark_scale: float | int = 2.5  # mm, of the landmarks' robust weight once the surface is used
    start_penalty: float | int = 0.06  # mm^2, of both factors while only landmarks are used
    identity_penalty: float | int = 3e-4  # mm^2
    expression_penalty: float | int = 1e-4  # mm^2
    labelled_weight: float | int = 0.05
    lifted_weight: float | int = 0.02
    eyelid_weight: float | int = 0.005  # of lifted points; detectors open closed eyes, the surface is more exact
    mouth_weight: float | int = 0.03
    landmark_depth: float | int = 0.1  # factor on their offsets in depth once the surface is used
    chin_weight: float | int = 0.1  # of a labelled chin, relative to other labels; its definition differs from iBUG's
    margin: float | int = 30.0  # mm around the face's whole set that are fitted; beyond lies hair
    vertices: int = 4000  # largest number in the last rounds
    coarse_vertices: int = 900  # in the rounds before
    fine_rounds: int = 4

    def __post_init__(self) -> None:
        for name in ("align_scales", "start_scales", "distances"):
            values = getattr(self, name)
            if not values or not all(0 < value < float("inf") for value in values):
                raise ValueError(f"{name} must hold positive, finite mm; got {values}")
        require_positive(self, "landmark_scale", "start_penalty", "identity_penalty", "expression_penalty")
        weights = ("labelled_weight", "lifted_weight", "eyelid_weight", "mouth_weight", "chin_weight", "landmark_depth")
        for name in weights:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative; got {getattr(self, name)}")
        if not 0 < self.normal_degrees <= 90:
            raise ValueError(f"normal_degrees must lie in (0, 90]; got {self.normal_degrees}")
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"margin must be finite and not negative; got {self.margin} mm")
        if not 100 <= self.coarse_vertices <= self.vertices:
            raise ValueError(
                f"vertices must be at least coarse_vertices, and those at least 100; got {self.vertices}, "
                f"{self.coarse_vertices}"
            )
        if self.fine_rounds < 0:
            raise ValueError(f"fine_rounds must not be negative; got {self.fine_rounds}")


def _landmark_weights(spec: IcpSpec, like: Tensor, *, at_start: bool = False) -> Float[Tensor, "132"]:
    """Weights of the 66 labelled points, then of the 66 lifted ones, in the dtype and on the device of `like`.

    Lifted contour points have weight 0: they lie on the rim of the scan, which depends on the view. At the start all
    lifted points weigh the same, so that a hand in front of the eyes does not pull the face away.
    """
    labelled = torch.full((N_INNER + N_CONTOUR,), spec.labelled_weight)
    labelled[CHIN] *= spec.chin_weight
    lifted = torch.full((N_INNER + N_CONTOUR,), spec.lifted_weight)
    if not at_start:
        lifted[list(GROUPS_66["eyes"])] = spec.eyelid_weight
        lifted[list(GROUPS_66["mouth"])] = spec.mouth_weight
    lifted[N_INNER:] = 0.0
    return torch.cat([labelled, lifted]).to(like)


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
        weights = torch.where(finite, _landmark_weights(spec, points, at_start=at_start), 0.0)
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
    return (used[:, :_N] | used[:, _N:]).sum(1) >= _FEWEST_LANDMARKS


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
