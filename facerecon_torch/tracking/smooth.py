"""Pose and expression of a track without jitter: One-Euro filters over its frames."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.geometry.projection import project
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, FaceParameters
from facerecon_torch.tracking.one_euro import OneEuroSpec, one_euro

__all__ = ["SmoothingSpec", "smooth_track"]


@dataclass(frozen=True, kw_only=True)
class SmoothingSpec:
    """Settings of the smoothing of a track; measured by `python -m benchmarks.clip` (docs/people_and_videos.md).

    Attributes:
        enabled: False leaves tracks as they are.
        rotation: of the rotation matrix; its speed is sqrt(2) times the angular speed in rad/s.
        place: of translation over scale, in mm, and of 100 log(scale).
        expression: of beta, in standard deviations of the face model.
        weights: of each named expression's weight, which are filtered as well: small ones are 0, and the weights of a
            smooth beta would jump there.
    """

    enabled: bool = True
    rotation: OneEuroSpec = field(default_factory=lambda: OneEuroSpec(min_cutoff=2.0, speed=3.0))
    place: OneEuroSpec = field(default_factory=lambda: OneEuroSpec(min_cutoff=2.0, speed=0.05))
    expression: OneEuroSpec = field(default_factory=lambda: OneEuroSpec(min_cutoff=2.0, speed=1.0))
    weights: OneEuroSpec = field(default_factory=lambda: OneEuroSpec(min_cutoff=2.0, speed=3.0))


@torch.no_grad()
@in_own_precision
def smooth_track(
    faces: Reconstruction, seconds: Float[Tensor, "frames"], model: FaceReconstructor, spec: SmoothingSpec
) -> Reconstruction:
    """The faces of one track with smoothed rotation, place, size in the image, beta and named weights; alpha stays.

    Args:
        faces: one per frame in which the face was seen, in order, of the model's size.
        seconds: time of each.
        model: that made them.
        spec: the filters.

    Raises:
        ValueError: not one time per face, or times that do not increase.

    Example:
        >>> smooth = smooth_track(faces, torch.arange(len(faces)) / 30, model, SmoothingSpec())
    """
    if not (len(faces) and spec.enabled):
        return faces
    face_model = model.face_model
    deviation = face_model.expression_variance.double().sqrt()
    middle = face_model.expression_mean.double()
    beta = (faces.parameters.expression.double() - middle) / deviation
    beta = one_euro(beta, seconds, spec.expression) * deviation + middle
    parameters = FaceParameters(faces.parameters.identity, beta.to(faces.parameters.expression.dtype))
    parameters = FaceParameters(*face_model.fix_gauge(parameters.identity, parameters.expression))
    camera = _smooth_camera(faces.camera, seconds, spec)
    points, _ = model.solvers.fitter.landmarks(parameters, camera)
    smooth = replace(
        faces, parameters=parameters, camera=camera, landmarks_3d=points, projected_2d=project(points, camera)
    )
    weights = list(faces.expression_weights.values())
    if not weights:
        return smooth
    signals = torch.stack(weights, dim=-1)[..., None]
    return smooth.with_expression_weights(one_euro(signals, seconds, spec.weights)[..., 0])


def _smooth_camera(camera: Camera, seconds: Float[Tensor, "frames"], spec: SmoothingSpec) -> Camera:
    wide = camera.to(torch.float64)
    rotation = one_euro(wide.rotation.flatten(-2), seconds, spec.rotation).reshape(-1, 3, 3)
    place = torch.cat([wide.translation / wide.scale[:, None], 100 * wide.scale.log()[:, None]], dim=-1)
    place = one_euro(place, seconds, spec.place)
    scale = (place[:, 2] / 100).exp()
    smooth = replace(wide, rotation=_nearest(rotation), scale=scale, translation=place[:, :2] * scale[:, None])
    return smooth.to(camera.scale.dtype)


def _nearest(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotations nearest to means of rotations."""
    left, _, right = torch.linalg.svd(matrices)
    sign = torch.det(left @ right).sign()
    signs = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    nearest: Tensor = left * signs[..., None, :] @ right
    return nearest
