"""Eq. 7: identity and expression weights from 66 landmarks, alternating with the camera of Eq. 6.

minimise  sum_i w_i |l_i - p_i|^2 / s^2  +  lambda_1 |alpha - mu_a|^2_Qa  +  lambda_2 |beta - mu_b|^2_Qb

with residuals in mm in the image plane (px / s) and Q = 1 / variance. With the camera held still the shape is
linear in beta for a given alpha and in alpha for a given beta: every step is one small ridge solve per face.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.checks import require_positive
from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.fitting.contour import ContourSpec, contour_normals
from facerecon_torch.fitting.designs import CONTOURS, Design, LandmarkRows, build_designs, solve_positive
from facerecon_torch.landmarks.scheme import N_INNER, is_present
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.topology import N_CONTOUR, N_LANDMARKS
from facerecon_torch.runtime.memory import free_bytes, halve_on_out_of_memory
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, FaceParameters, LandmarkFit, TensorRecord

__all__ = ["FitSpec", "LandmarkFitter"]

_COMPONENTS = ("normal", "full")
_CPU_CHUNK = 256  # measured: fewer faces pay more for calls, more gain nothing
_LARGEST_CHUNK = 16384  # beyond it a GPU gains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSpec:
    """Settings of the landmark fit. A penalty in mm^2 is the variance of a landmark at which the prior weighs
    as it should if landmark errors were independent."""

    rounds: int = 4
    identity_penalty: float = 4.0  # lambda_1, mm^2
    expression_penalty: float = 4.0  # lambda_2, mm^2
    contour: str = "marching"  # or "fixed", for parity
    contour_component: str = "normal"  # of the contour residuals; "full" for parity
    inner_weight: float = 1.0
    contour_weight: float = 0.3  # detectors place the contour less surely than eyes, nose and mouth
    marching: ContourSpec = field(default_factory=ContourSpec)
    chunk: int | None = None  # faces solved together: bounds memory, changes no result; None: by device and free memory

    def __post_init__(self) -> None:
        if min(self.rounds, 1 if self.chunk is None else self.chunk) < 1:
            raise ValueError(f"rounds and chunk must be at least 1; got {self.rounds} and {self.chunk}")
        require_positive(self, "identity_penalty", "expression_penalty", "inner_weight", "contour_weight")
        for name, choice in (("contour", CONTOURS), ("contour_component", _COMPONENTS)):
            if getattr(self, name) not in choice:
                raise ValueError(f"{name} must be one of {choice}; got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class _Target(TensorRecord):
    """The landmarks that a batch is fitted to; float64."""

    landmarks: Float[Tensor, "b 66 2"]  # px
    weights: Float[Tensor, "b 66"]
    scale: Float[Tensor, "b"] | None  # px/mm, where the size is known


class _System(NamedTuple):
    """The equations of the landmarks in mm, for any design, the same for alpha and for beta. Inner landmark i gives
    root_i F R_xy v_i = goal_i; contour landmark i gives axes_i v_i = contour_goal_i along its normal, or along both
    axes."""

    view: Float[Tensor, "b 2 3"]  # F R_xy
    root: Float[Tensor, "b 1 49"]  # of the weights
    goal: Float[Tensor, "b 2 49"]
    axes: Float[Tensor, "b 17 c 3"]
    contour_goal: Float[Tensor, "b 17 c"]

    def residual(self, points: Float[Tensor, "b 66 3"]) -> tuple[Float[Tensor, "b 2 49"], Float[Tensor, "b 17 c"]]:
        """Both goals minus the landmarks at `points`."""
        inner = self.goal - self.root * (self.view @ points[:, :N_INNER].mT)
        return inner, self.contour_goal - (self.axes @ points[:, N_INNER:, :, None])[..., 0]


class _Prior(NamedTuple):
    penalty: Float[Tensor, "k k"]  # diagonal
    pull: Float[Tensor, "*b k"]  # penalty times mean


class _People(NamedTuple):
    """The person of every picture, numbered from 0."""

    numbers: Int[Tensor, "b"]
    total: int

    def sums(self, values: Float[Tensor, "b *k"]) -> Float[Tensor, "people *k"]:
        """The values of each person's pictures, added up."""
        return values.new_zeros(self.total, *values.shape[1:]).index_add_(0, self.numbers, values)


class LandmarkFitter:
    """The landmark fit (Eq. 7) of one face model. Holds only the rows of the model that it needs, in float64.

    Args:
        model: bilinear or linear; the fitter works on its device.
        spec: penalties, weights and contour.

    Raises:
        ValueError: a model without topology.
        TypeError: a model that is neither bilinear nor linear.

    Example:
        >>> fit = LandmarkFitter(load_default_face(), FitSpec()).fit(landmarks)
        >>> fit.parameters.identity.shape
        torch.Size([8, 50])
    """

    def __init__(self, model: FaceModel, spec: FitSpec) -> None:
        self.spec = spec
        self._rows = LandmarkRows(model, spec.contour, spec.marching)
        self._model = model.restrict(self._rows.vertices).to(torch.float64)
        self._designs = build_designs(self._model)
        weights = [spec.inner_weight] * N_INNER + [spec.contour_weight] * N_CONTOUR
        self._weights = torch.tensor(weights, dtype=torch.float64, device=model.device)
        self._flip = torch.tensor([1.0, -1.0], dtype=torch.float64, device=model.device)[:, None]
        whole = self._model
        self._identity = _prior(spec.identity_penalty / whole.identity_variance, whole.identity_mean)
        self._expression = _prior(spec.expression_penalty / whole.expression_variance, whole.expression_mean)

    @torch.no_grad()
    @in_own_precision
    def fit(
        self,
        landmarks: Float[Tensor, "b 66 2"],
        weights: Float[Tensor, "b 66"] | None = None,
        *,
        scale: Float[Tensor, "b"] | None = None,
    ) -> LandmarkFit:
        """The parameters and camera of each face (Eq. 7). Not differentiable.

        Chunks of faces are solved one after the other, smaller ones where memory runs out.

        Args:
            landmarks: in px, paper order; NaN where missing, which is a weight of 0.
            weights: non-negative, multiplied by those of the spec; a landmark of weight 0 is ignored, whatever it
                holds.
            scale: size of every face in px/mm, where it is known.

        Returns:
            The fits in the dtype of the landmarks. Residuals are RMS distances in mm over the landmarks in use, for the
            contour along the spec's component; 0 where none is. A face with a degenerate camera (see `solve_camera`)
            has the mean parameters.

        Example:
            >>> fit = fitter.fit(landmarks, scale=torch.full((8,), 1.4))
        """
        chunk = self.spec.chunk or _CPU_CHUNK
        if len(landmarks) > chunk and self.spec.chunk is None:
            chunk = self._chunk(landmarks.device)  # asks the device, which a few faces need not wait for
        if len(landmarks) <= chunk:
            return self.fit_batch(landmarks, weights, scale=scale)
        target = self._target(landmarks, weights, scale)
        fits = halve_on_out_of_memory(lambda part: self._fit(target[part]), range(len(landmarks)), chunk)
        return LandmarkFit.cat(fits).to(landmarks.dtype)

    @torch.no_grad()
    def fit_batch(
        self,
        landmarks: Float[Tensor, "b 66 2"],
        weights: Float[Tensor, "b 66"] | None = None,
        *,
        scale: Float[Tensor, "b"] | None = None,
    ) -> LandmarkFit:
        """`fit` of all faces at once: no step depends on what the tensors hold, so that it can be traced and never
        waits for the device."""
        return self._fit(self._target(landmarks, weights, scale)).to(landmarks.dtype)

    @torch.no_grad()
    @in_own_precision
    def fit_joint(
        self,
        landmarks: Float[Tensor, "b 66 2"],
        subject: Int[Tensor, "pictures"],
        weights: Float[Tensor, "b 66"] | None = None,
    ) -> LandmarkFit:
        """The fits of several pictures of each person (Eq. 7) with one alpha per person, solved from the stacked rows
        of all their pictures; beta and camera are those of each picture. All people are solved together.

        Args:
            landmarks: in px, paper order; NaN where missing.
            subject: number of each picture's person, in any order.
            weights: non-negative, multiplied by those of the spec.

        Returns:
            One row per picture, as `fit` gives it; alpha is the same for all pictures of a person. The prior of alpha
            counts once per person.

        Raises:
            ValueError: not one subject per picture.

        Example:
            >>> fit = fitter.fit_joint(landmarks, torch.tensor([0, 0, 0, 1, 1, 1]))
        """
        if subject.shape != landmarks.shape[:1]:
            raise ValueError(f"subject must be [{len(landmarks)}], one per picture; got {list(subject.shape)}")
        names, index = torch.unique(subject.to(landmarks.device), return_inverse=True)
        target = self._target(landmarks, weights, None)
        return self._fit(target, _People(index, len(names))).to(landmarks.dtype)

    @torch.no_grad()
    @in_own_precision
    def fit_expression(
        self, parameters: FaceParameters, landmarks: Float[Tensor, "b 66 2"], camera: Camera, penalty: float | int
    ) -> Float[Tensor, "b expressions"]:
        """beta for the given alpha and cameras: one solve of Eq. 7 whose prior has its mean at the given beta.

        Args:
            parameters: alpha, and the beta to stay close to.
            landmarks: in px, paper order; NaN where missing.
            camera: of the faces, for the landmarks.
            penalty: of the expression, mm^2, as in the spec.

        Example:
            >>> beta = fitter.fit_expression(parameters, landmarks, camera, 256)
        """
        alpha, beta = parameters.identity.double(), parameters.expression.double()
        points = self._points(parameters)
        places = self._rows.march(points, camera.rotation)
        system = self._system(
            self._rows.take(points, places), camera.to(torch.float64), self._target(landmarks, None, None)
        )
        weight = penalty / self._model.expression_variance
        solved = self._solve(self._designs.expression(alpha, places), system, _Prior(torch.diag(weight), weight * beta))
        return solved.to(parameters.expression.dtype)

    @in_own_precision
    def landmarks(
        self, parameters: FaceParameters, camera: Camera
    ) -> tuple[Float[Tensor, "*b 66 3"], Int[Tensor, "*b 17"]]:
        """The 66 landmarks in mm (model frame) of faces seen by `camera`, and the model's vertex behind every contour
        landmark. Differentiable in the parameters for the chosen vertices."""
        chosen, vertices = self._chosen(self._points(parameters), camera)
        return chosen.to(parameters.identity.dtype), vertices

    @torch.no_grad()
    @in_own_precision
    def refine(
        self,
        parameters: FaceParameters,
        landmarks: Float[Tensor, "b 66 2"],
        camera: Camera,
        weights: Float[Tensor, "b 66"] | None = None,
        *,
        scale: Float[Tensor, "b"] | None = None,
    ) -> tuple[Camera, Float[Tensor, "b 66 3"], Int[Tensor, "b 17"]]:
        """The camera of new parameters (Eq. 6), and the landmarks that it sees, from one evaluation of the model.

        Args:
            parameters: of the faces.
            landmarks: in px, paper order; NaN where missing.
            camera: the camera before, whose contour the search starts from.
            weights: non-negative, multiplied by those of the spec.
            scale: size of every face in px/mm, where it is known.

        Returns:
            The camera in px of the landmarks, the 66 landmarks in mm (model frame) and their contour vertices.

        Example:
            >>> camera, points, contour = fitter.refine(fit.parameters, landmarks, fit.camera)
        """
        points = self._points(parameters)
        places = self._rows.march(points, camera.rotation)
        camera = self._look(points, places, self._target(landmarks, weights, scale))[0].to(landmarks.dtype)
        chosen, contour = self._chosen(points, camera)
        return camera, chosen.to(parameters.identity.dtype), contour

    def _chunk(self, device: torch.device) -> int:
        """The number of faces whose arrays fit a CPU's caches, or a quarter of another device's free memory."""
        if device.type == "cpu":
            return _CPU_CHUNK
        model = self._model
        numbers = 3 * model.n_vertices * (model.n_identity + model.n_expression)
        per_face = 8 * (2 * numbers + 4 * N_LANDMARKS * model.n_identity + 4 * model.n_identity**2)
        return max(_CPU_CHUNK, min(_LARGEST_CHUNK, free_bytes(device) // (4 * per_face)))

    def _target(self, landmarks: Float[Tensor, "b 66 2"], weights: Tensor | None, scale: Tensor | None) -> _Target:
        given = self._weights if weights is None else weights * self._weights
        size = None if scale is None else scale.double()
        given = given.expand(landmarks.shape[:-1]).masked_fill(~is_present(landmarks), 0.0)
        return _Target(landmarks=landmarks.double(), weights=given, scale=size)

    def _points(self, parameters: FaceParameters) -> Float[Tensor, "*b rows 3"]:
        return self._model.vertices(parameters.identity.double(), parameters.expression.double())

    def _chosen(
        self, points: Float[Tensor, "*b rows 3"], camera: Camera
    ) -> tuple[Float[Tensor, "*b 66 3"], Int[Tensor, "*b 17"]]:
        places = self._rows.march(points.detach(), camera.rotation)
        return self._rows.take(points, places), self._rows.contour_vertices(places)

    def _fit(self, target: _Target, people: _People | None = None) -> LandmarkFit:
        model, n = self._model, len(target.landmarks)
        alpha, beta = model.identity_mean, model.expression_mean  # shared by all faces: so is the first design
        points = model.vertices(alpha, beta).expand(n, -1, -1)
        places = self._rows.first((n,))
        for _ in range(self.spec.rounds):
            camera, places, seen = self._look(points, places, target)
            system = self._system(seen, camera, target)
            beta = self._solve(self._designs.expression(alpha, places), system, self._expression)
            alpha, beta = model.fix_gauge(alpha.expand(n, -1), beta)
            alpha = self._solve(self._designs.identity(beta, places), system, self._identity, people)
            points = model.vertices(alpha, beta)
        return self._answer(FaceParameters(identity=alpha, expression=beta), points, places, target)

    def _look(
        self, points: Float[Tensor, "b rows 3"], places: Int[Tensor, "b 17"], target: _Target
    ) -> tuple[Camera, Int[Tensor, "b 17"], Float[Tensor, "b 66 3"]]:
        """Camera, contour and landmarks: the camera of the given contour, the contour under that camera, and the camera
        of that contour."""
        seen = self._rows.take(points, places)
        camera = self._camera(seen, target)
        if self.spec.contour == "marching":
            places = self._rows.march(points, camera.rotation)
            seen = self._rows.take(points, places)
            camera = self._camera(seen, target)
        return camera, places, seen

    def _camera(self, seen: Float[Tensor, "b 66 3"], target: _Target) -> Camera:
        return solve_camera(seen, target.landmarks, target.weights, scale=target.scale)

    def _system(self, seen: Float[Tensor, "b 66 3"], camera: Camera, target: _Target) -> _System:
        used = (target.weights > 0) & ~camera.degenerate[:, None]
        root = target.weights.masked_fill(~used, 0.0).sqrt()
        view = camera.rotation[:, :2] * self._flip
        measured = (target.landmarks - camera.translation[:, None]) / camera.scale[:, None, None]
        measured = measured.masked_fill(~used[..., None], 0.0) * root[..., None]
        axes, goal = root[:, N_INNER:, None, None] * view[:, None], measured[:, N_INNER:]
        if self.spec.contour_component == "normal":
            normal = contour_normals(seen[:, N_INNER:] @ view.mT)
            axes = normal[:, :, None] @ axes
            goal = (normal * goal).sum(-1, keepdim=True)
        return _System(view, root[:, None, :N_INNER], measured[:, :N_INNER].mT, axes, goal)

    def _solve(
        self, design: Design, system: _System, prior: _Prior, people: _People | None = None
    ) -> Float[Tensor, "b k"]:
        """The weights of each picture; of `people` the same for all pictures of a person."""
        n, k = len(system.view), prior.pull.shape[-1]
        inner = (system.view @ design.inner.flatten(-2)).reshape(n, 2, N_INNER, k)
        inner = inner.mul_(system.root[..., None]).flatten(1, 2)
        contour = (system.axes @ design.contour).flatten(1, 2)
        goal = system.goal, system.contour_goal
        if design.offset is not None:
            goal = system.residual(design.offset)
        start = prior.penalty if people is None else torch.zeros_like(prior.penalty)
        normal = torch.baddbmm(start, inner.mT, inner).baddbmm_(contour.mT, contour)
        right = (goal[0].flatten(1)[:, None] @ inner + goal[1].flatten(1)[:, None] @ contour)[:, 0]
        if people is None:
            return solve_positive(normal, right + prior.pull)
        return solve_positive(people.sums(normal) + prior.penalty, people.sums(right) + prior.pull)[people.numbers]

    def _answer(
        self,
        parameters: FaceParameters,
        points: Float[Tensor, "b rows 3"],
        places: Int[Tensor, "b 17"],
        target: _Target,
    ) -> LandmarkFit:
        camera, places, seen = self._look(points, places, target)
        used = (target.weights > 0).double()
        inner, contour = self._system(seen, camera, replace(target, weights=used)).residual(seen)
        return LandmarkFit(
            parameters=parameters,
            camera=camera,
            contour_vertices=self._rows.contour_vertices(places),
            inner_residual=_root_mean(inner.square().sum(1), used[:, :N_INNER]),
            contour_residual=_root_mean(contour.square().sum(-1), used[:, N_INNER:]),
        )


def _prior(penalty: Float[Tensor, "k"], mean: Float[Tensor, "k"]) -> _Prior:
    return _Prior(torch.diag(penalty), penalty * mean)


def _root_mean(square: Float[Tensor, "b n"], used: Float[Tensor, "b n"]) -> Float[Tensor, "b"]:
    return ((square * used).sum(-1) / used.sum(-1).clamp_min(1.0)).sqrt()
