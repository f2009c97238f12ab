"""Fit of g* to range scans by dense ICP (Section 4.1): scan = R v(alpha, beta) + T, without a scale.

minimise  mean_v w_v (n_v . (R v + T - q_v))^2  +  sum_l w_l |R v_l + T - y_l|^2 / 66
          + lambda_1 |alpha - mu_a|^2_Qa  +  lambda_2 |beta - mu_b|^2_Qb

over pose and both factors; q_v is the closest scan point of vertex v and n_v the scan's normal there. Both are looked
up again in every round, with shrinking gates.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.checks import require_shape
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.association import AssociationSpec, associate
from facerecon_torch.registration.scan.gauss_newton import (
    FitState,
    FittedFace,
    Residuals,
    make_groups,
    make_priors,
    take_step,
)
from facerecon_torch.registration.scan.initialise import IcpSpec, LandmarkTargets, fit_landmarks
from facerecon_torch.registration.scan.surface import ScanBatch
from facerecon_torch.structures import FaceParameters, TensorRecord

__all__ = ["ScanFit", "fit_scans"]

_INLIER_MM = 2.0
_FEWEST_INLIERS = 0.3
_DEFAULT = IcpSpec()


@dataclass(frozen=True, kw_only=True)
class ScanFit(TensorRecord):
    """Pose and weights of fitted scans, in the dtype of the scans.

    `inlier_share`: of the face's vertices that face the sensor, the share within 2 mm of the scan. `failed` marks scans
    with too few landmarks or inliers; their numbers are finite but mean nothing.
    """

    parameters: FaceParameters
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]
    inlier_share: Float[Tensor, "b"]
    failed: Bool[Tensor, "b"]


@torch.no_grad()
def fit_scans(
    model: FaceModel,
    scans: ScanBatch,
    labelled: Tensor,
    lifted: Tensor,
    spec: IcpSpec = _DEFAULT,
    groups: Tensor | None = None,
) -> ScanFit:
    """Pose and weights of every scan. Not differentiable.

    Scans are solved together, in some 10 MB each; a scan influences no other outside its group.

    Args:
        model: a model with topology.
        scans: depth grids.
        labelled: [b, 66, 3], the data set's own points in mm in the sensor's frame, NaN where not known.
        lifted: [b, 66, 3], detected points on the scan, likewise.
        spec: rounds, gates, weights and penalties.
        groups: [b]; scans with equal numbers share one identity.

    Raises:
        ValueError: shapes or devices that do not fit, or a model without topology.

    Example:
        >>> fit = fit_scans(model, scans, labelled, lifted)
        >>> fit.parameters.identity[~fit.failed]
    """
    _require(model, scans, labelled, lifted, groups)
    like = scans.points
    coarse, fine = (FittedFace(model, most, spec.margin, like) for most in (spec.coarse_vertices, spec.vertices))
    targets = LandmarkTargets.of(labelled.to(like), lifted.to(like), spec)
    members = make_groups(groups, len(scans), like.device)
    state = fit_landmarks(fine, labelled.to(like), lifted.to(like), spec, members)
    priors = make_priors(fine.model, spec.identity_penalty, spec.expression_penalty)
    for k, distance in enumerate(spec.distances):
        face = coarse if k < len(spec.distances) - spec.fine_rounds else fine
        surface = _surface_residuals(face, state, scans, _gates(spec, distance), targets.enough)
        marks = targets.residuals(face, state, spec.landmark_scale, first=face.n_face, depth=spec.landmark_depth)
        state = take_step(face.model, state, [surface, marks], priors, members)
    return _fit_of(fine, state, scans, spec, targets.enough)


def _gates(spec: IcpSpec, distance: float) -> AssociationSpec:
    return AssociationSpec(distance=distance, normal_degrees=spec.normal_degrees)


def _surface_residuals(
    face: FittedFace, state: FitState, scans: ScanBatch, spec: AssociationSpec, usable: Bool[Tensor, "b"]
) -> Residuals:
    partners = associate(*face.surface(state), scans, spec)
    weights = torch.where(usable[:, None], partners.weight, 0.0) / face.n_face
    return Residuals(slice(0, face.n_face), partners.normal, partners.distance, weights)


def _fit_of(face: FittedFace, state: FitState, scans: ScanBatch, spec: IcpSpec, usable: Bool[Tensor, "b"]) -> ScanFit:
    like = scans.points
    vertices, normals = face.surface(state)
    partners = associate(vertices, normals, scans, _gates(spec, spec.distances[0]))
    near = (partners.weight > 0) & (partners.distance.abs() <= _INLIER_MM)
    inlier_share = (near.sum(1) / (normals[..., 2] > 0).sum(1).clamp_min(1)).to(like.dtype)
    return ScanFit(
        parameters=FaceParameters(identity=state.identity, expression=state.expression),
        rotation=state.rotation.to(like),
        translation=state.translation.to(like),
        inlier_share=inlier_share,
        failed=~usable | (inlier_share < _FEWEST_INLIERS),
    )


def _require(model: FaceModel, scans: ScanBatch, labelled: Tensor, lifted: Tensor, groups: Tensor | None) -> None:
    n = len(scans)
    require_shape("labelled", labelled, (n, 66, 3))
    require_shape("lifted", lifted, (n, 66, 3))
    if groups is not None:
        require_shape("groups", groups, (n,))
    devices = {tensor.device for tensor in (scans.points, labelled, lifted)} | {model.device}
    if len(devices) > 1:
        raise ValueError(f"model, scans and landmarks must be on one device; got {sorted(map(str, devices))}")
