"""Eq. 7: identity and expression weights from 66 landmarks, alternating with the camera of Eq. 6.

minimise  sum_i w_i |l_i - p_i|^2 / s^2  +  lambda_1 |alpha - mu_a|^2_Qa  +  lambda_2 |beta - mu_b|^2_Qb

with residuals in mm in the image plane (px / s) and Q = 1 / variance. With the camera held still the shape is
linear in beta for a given alpha and in alpha for a given beta: every step is one small ridge solve per face.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.fitting.contour import ContourSpec, contour_normals
from facerecon_torch.fitting.landmark_rows import CONTOURS, LandmarkRows
from facerecon_torch.fitting.small_ridge import solve_ridge
from facerecon_torch.geometry.projection import project
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.protocol import FaceModel
from facerecon_torch.model.topology import N_CONTOUR
from facerecon_torch.structures import Camera, FaceParameters, LandmarkFit

__all__ = ["FitSpec", "LandmarkFitter"]

_COMPONENTS = ("normal", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSpec:
    """How landmarks are fitted. A penalty in mm^2 is the variance of a landmark at which the prior weighs
    as it should if landmark errors were independent."""

    rounds: int = 4
    identity_penalty: float = 4.0  # lambda_1, mm^2
    expression_penalty: float = 4.0  # lambda_2, mm^2
    contour: str = "marching"  # or "fixed", for parity
    contour_component: str = "normal"  # of the contour residuals; "full" for parity
    inner_weight: float = 1.0
    contour_weight: float = 0.3  # detectors place the contour less surely than eyes, nose and mouth
    marching: ContourSpec = field(default_factory=ContourSpec)
    chunk: int = 128  # faces solved together: bounds memory, changes no result

    def __post_init__(self) -> None:
        if min(self.rounds, self.chunk) < 1:
            raise ValueError(f"rounds and chunk must be at least 1; got {self.rounds} and {self.chunk}")
        for name in ("identity_penalty", "expression_penalty", "inner_weight", "contour_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")
        for name, choice in (("contour", CONTOURS), ("contour_component", _COMPONENTS)):
            if getattr(self, name) not in choice:
                raise ValueError(f"{name} must be one of {choice}; got {getattr(self, name)!r}")


class _Target(NamedTuple):
    """What a chunk is fitted to; float64."""

    landmarks: Float[Tensor, "b 66 2"]  # px
    weights: Float[Tensor, "b 66"]
    scale: Float[Tensor, "b"] | None  # px/mm, where the size is known

    def rows(self, part: slice) -> "_Target":
        scale = None if self.scale is None else self.scale[part]
        return _Target(self.landmarks[part], self.weights[part], scale)


class _System(NamedTuple):
    """axes (R_xy v_i) = goal for every landmark, in mm: the same for alpha and for beta."""

    axes: Float[Tensor, "b 66 2 3"]  # B_i R_xy, B_i the weighted directions in which landmark i counts
    goal: Float[Tensor, "b 66 2"]  # B_i F (l_i - t) / s


class LandmarkFitter:
    """Fits one model to landmarks; holds only the rows it needs, in float64, on the model's device.

    Raises ValueError for a model without topology.
    """

    def __init__(self, model: FaceModel, spec: FitSpec) -> None:
        self.spec = spec
        self._rows = LandmarkRows(model, spec.contour, spec.marching)
        self._model = model.restrict(self._rows.vertices).to(torch.float64)
        weights = [spec.inner_weight] * N_INNER + [spec.contour_weight] * N_CONTOUR
        self._weights = torch.tensor(weights, dtype=torch.float64, device=model.device)

    @torch.no_grad()
    def fit(
        self,
        landmarks: Float[Tensor, "b 66 2"],
        weights: Float[Tensor, "b 66"] | None = None,
        *,
        scale: Float[Tensor, "b"] | None = None,
    ) -> LandmarkFit:
        """Eq. 7 for landmarks in px (paper order). `weights` (non-negative) multiply those of the spec; a
        landmark of weight zero is ignored, whatever it holds. `scale` (px/mm) is the known size of every
        face.

        A face with a degenerate camera (see `solve_camera`) gets the mean parameters. The residuals are RMS
        distances in mm over the landmarks in use, for the contour along the spec's component. Not
        differentiable.
        """
        target = self._target(landmarks, weights, scale)
        if len(landmarks) <= self.spec.chunk:  # no loop over chunks, which torch.export would unroll
            return self._fit_chunk(target).to(landmarks.dtype)
        starts = range(0, len(landmarks), self.spec.chunk)
        fits = [self._fit_chunk(target.rows(slice(k, k + self.spec.chunk))) for k in starts]
        return _joined(fits).to(landmarks.dtype)

    def landmarks(
        self, parameters: FaceParameters, camera: Camera
    ) -> tuple[Float[Tensor, "*b 66 3"], Int[Tensor, "*b 17"]]:
        """The 66 landmarks in mm (model frame) as `camera` sees this face, and the model's vertex behind
        every contour landmark. Differentiable in the parameters, for the vertices chosen."""
        points = self._points(parameters)
        slots = self._rows.march(points.detach(), camera)
        chosen = self._rows.take(points, slots).to(parameters.identity.dtype)
        return chosen, self._rows.contour_vertices(slots)

    @torch.no_grad()
    def refine_camera(
        self,
        parameters: FaceParameters,
        landmarks: Float[Tensor, "b 66 2"],
        camera: Camera,
        weights: Float[Tensor, "b 66"] | None = None,
        *,
        scale: Float[Tensor, "b"] | None = None,
    ) -> Camera:
        """Eq. 6 again for new parameters, starting with the contour that the old camera sees."""
        points = self._points(parameters)
        slots = self._rows.march(points, camera)
        camera, _ = self._look(points, slots, self._target(landmarks, weights, scale))
        return camera.to(landmarks.dtype)

    def _target(self, landmarks: Float[Tensor, "b 66 2"], weights: Tensor | None, scale: Tensor | None) -> _Target:
        given = self._weights if weights is None else weights * self._weights
        size = None if scale is None else scale.double()
        return _Target(landmarks.double(), given.expand(landmarks.shape[:-1]), size)

    def _points(self, parameters: FaceParameters) -> Float[Tensor, "*b rows 3"]:
        return self._model.vertices(parameters.identity.double(), parameters.expression.double())

    def _fit_chunk(self, target: _Target) -> LandmarkFit:
        model, spec = self._model, self.spec
        n = len(target.landmarks)
        alpha, beta = model.identity_mean.expand(n, -1), model.expression_mean.expand(n, -1)
        slots = self._rows.first_slots((n,))
        for _ in range(spec.rounds):
            design = model.expression_design(alpha)
            points = _shape(*design, beta)
            camera, slots = self._look(points, slots, target)
            system = self._system(points, camera, slots, target)
            penalty = spec.expression_penalty / model.expression_variance
            beta = self._solve(design, slots, system, penalty, model.expression_mean)
            alpha, beta = model.fix_gauge(alpha, beta)
            design = model.identity_design(beta)
            penalty = spec.identity_penalty / model.identity_variance
            alpha = self._solve(design, slots, system, penalty, model.identity_mean)
            alpha, beta = model.fix_gauge(alpha, beta)
        return self._answer(FaceParameters(alpha, beta), slots, target)

    def _look(
        self, points: Float[Tensor, "b rows 3"], slots: Int[Tensor, "b 17"], target: _Target
    ) -> tuple[Camera, Int[Tensor, "b 17"]]:
        """The camera of the given contour, the contour under that camera, and the camera of that contour."""
        camera = self._camera(points, slots, target)
        if self.spec.contour == "fixed":
            return camera, slots
        slots = self._rows.march(points, camera)
        return self._camera(points, slots, target), slots

    def _camera(self, points: Float[Tensor, "b rows 3"], slots: Int[Tensor, "b 17"], target: _Target) -> Camera:
        seen = self._rows.take(points, slots)
        return solve_camera(seen, target.landmarks, target.weights, scale=target.scale)

    def _system(
        self,
        points: Float[Tensor, "b rows 3"],
        camera: Camera,
        slots: Int[Tensor, "b 17"],
        target: _Target,
    ) -> _System:
        directions = self._directions(project(self._rows.take(points, slots), camera))
        used = (target.weights > 0) & ~camera.degenerate[:, None]
        root = torch.where(used, target.weights, 0.0).sqrt()
        directions = root[..., None, None] * directions
        measured = (target.landmarks - camera.translation[:, None]) / camera.scale[:, None, None]
        measured = torch.where(used[..., None], measured, 0.0) * measured.new_tensor([1.0, -1.0])
        axes = directions @ camera.rotation[:, None, :2, :]
        return _System(axes, (directions @ measured[..., None])[..., 0])

    def _directions(self, seen: Float[Tensor, "b 66 2"]) -> Float[Tensor, "b 66 2 2"]:
        """Rows that a residual (+y up) is measured along: both axes, or for the contour its normal alone."""
        unit = torch.eye(2, dtype=seen.dtype, device=seen.device)
        if self.spec.contour_component == "full":
            return unit.expand(*seen.shape, 2)
        normal = contour_normals(seen[:, N_INNER:] * seen.new_tensor([1.0, -1.0]))
        contour = torch.stack([normal, torch.zeros_like(normal)], dim=-2)
        return torch.cat([unit.expand(len(seen), N_INNER, 2, 2), contour], dim=1)

    def _solve(
        self,
        design: tuple[Float[Tensor, "b rows 3 k"], Float[Tensor, "b rows 3"]],
        slots: Int[Tensor, "b 17"],
        system: _System,
        penalty: Float[Tensor, "k"],
        mean: Float[Tensor, "k"],
    ) -> Float[Tensor, "b k"]:
        matrix, offset = (self._rows.take(part, slots) for part in design)
        seen = _turned(system.axes, matrix)
        goal = system.goal - (system.axes @ offset[..., None])[..., 0]
        return solve_ridge(seen.flatten(1, 2), goal.flatten(1), penalty, mean)

    def _answer(self, parameters: FaceParameters, slots: Int[Tensor, "b 17"], target: _Target) -> LandmarkFit:
        points = self._points(parameters)
        camera, slots = self._look(points, slots, target)
        used = (target.weights > 0).double()
        system = self._system(points, camera, slots, target._replace(weights=used))
        seen = (system.axes @ self._rows.take(points, slots)[..., None])[..., 0]
        square = (system.goal - seen).square().sum(-1)
        inner = _root_mean(square[:, :N_INNER], used[:, :N_INNER])
        contour = _root_mean(square[:, N_INNER:], used[:, N_INNER:])
        return LandmarkFit(parameters, camera, self._rows.contour_vertices(slots), inner, contour)


def _turned(axes: Float[Tensor, "b n 2 3"], matrix: Float[Tensor, "b n 3 k"]) -> Float[Tensor, "b n 2 k"]:
    """axes @ matrix, term by term: thousands of 2x3 products are slow as matrix products."""
    seen = axes[..., 0, None] * matrix[..., None, 0, :]
    for axis in (1, 2):
        seen.addcmul_(axes[..., axis, None], matrix[..., None, axis, :])
    return seen


def _shape(
    matrix: Float[Tensor, "b rows 3 k"], offset: Float[Tensor, "b rows 3"], weights: Float[Tensor, "b k"]
) -> Float[Tensor, "b rows 3"]:
    flat = matrix.flatten(1, 2) @ weights[..., None]
    return flat.reshape(offset.shape) + offset


def _root_mean(square: Float[Tensor, "b n"], used: Float[Tensor, "b n"]) -> Float[Tensor, "b"]:
    return ((square * used).sum(-1) / used.sum(-1).clamp_min(1.0)).sqrt()


def _joined(fits: list[LandmarkFit]) -> LandmarkFit:
    def cat(pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def camera(name: str) -> Tensor:
        return cat([getattr(fit.camera, name) for fit in fits])

    return LandmarkFit(
        FaceParameters(
            cat([fit.parameters.identity for fit in fits]), cat([fit.parameters.expression for fit in fits])
        ),
        Camera(camera("rotation"), camera("scale"), camera("translation"), camera("degenerate")),
        *(
            cat([getattr(fit, name) for fit in fits])
            for name in ("contour_vertices", "inner_residual", "contour_residual")
        ),
    )
