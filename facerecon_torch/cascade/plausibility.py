"""Measures that tell a face from something that is none and a good answer from a poor one, and their limits.

The limits of faces are measured by `python -m benchmarks.accuracy.plausibility`, those of trust by
`python -m benchmarks.accuracy.trust`; docs/plausibility.md and docs/trust.md hold the tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.landmarks.scheme import CONVENTIONS, N_INNER, check_convention, is_present
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import Camera, FaceParameters, TensorRecord

__all__ = ["TRAINED_DEGREES", "Plausibility", "is_unsure", "measure_plausibility"]

# The first number of a pair marks a face as doubtful, the second as impossible.
_RESIDUAL_MM = 9.0, 14.0  # faces: up to 6.4; points in a wrong order: from 15
_SHAPE_DISTANCE = 4.0, 10.0  # landmark fits of faces: up to 1.2; of points in a wrong order: up to 126
_VIEW_DEGREES = 95.0, 110.0  # faces: up to 90 in full profile; mirrored points: from 125
_PROPORTION = 0.61  # faces: from 0.60; points stretched by 2: about 0.5. A stretched face is a face: only doubtful
_TURNED_DEGREES = 55.0  # view angle from which on landmark errors make the proportion unsure
# Of trust, from people that the cascades were not trained on (docs/trust.md); they mark a face as doubtful.
TRAINED_DEGREES = 60.0, 25.0, 15.0
"""Yaw, pitch and roll up to which the shipped cascades were trained."""
_POSE_EXCESS = 4.0  # degrees
_DISAGREEMENT = 9.5  # mm
_SCORE = {"mediapipe": 0.75, "ibug": 0.0}  # dlib's scores are margins from 0 on; for face_alignment none was measured
_PREDICTED = 2.8  # mm
# log(error / mm) = the number + the sum of slope times measure: mm, standard deviations, degrees; by the convention of
# the landmarks.
_ERROR: Mapping[str, tuple[float, Mapping[str, float]]] = {
    "mediapipe": (0.101, {
        "residual": 0.189, "contour_residual": 0.0241, "shape_distance": 0.132, "view_angle": 0.0007,
        "disagreement": -0.0144,
    }),
    "ibug": (0.037, {
        "residual": 0.101, "contour_residual": 0.0114, "shape_distance": 0.075, "view_angle": -0.0035,
        "disagreement": 0.0197,
    }),
}  # fmt: skip
_LEAST_EXTENT = 1e-12  # px^2 per mm^2, of points that are one place
_mean_faces: WeakKeyDictionary[FaceModel, Float[Tensor, "49 3"]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class Plausibility(TensorRecord):
    """The agreement of landmarks with a face, by measures that do not depend on the size of the image.

    Attributes:
        residual: root mean square distance of the 49 inner landmarks to those of the fitted face, in mm of the face
            model in the image plane; 0 where all are missing.
        contour_residual: the same of the 17 contour landmarks.
        shape_distance: Mahalanobis distance from the mean face per parameter, sqrt(mean((alpha - mu)^2 / variance)), of
            identity or expression, whichever is larger.
        view_angle: between the direction that the face looks in and the viewer, degrees; above 90 the face looks away.
        proportion: of the affine map from the mean face's inner landmarks to those given, the smaller scale over the
            larger one; 1 for a scaled rotation, 0.5 where an axis is stretched by 2.
        reprojection: root mean square distance of all landmarks to those of the fitted face, in px of the camera's
            frame.
        disagreement: of the cascade with the landmark fit that it started from: root mean square distance of their
            inner landmarks in mm of the face model, in space; 0 for a landmark fit.
        pose_excess: degrees by which yaw, pitch or roll is beyond the range of the shipped cascades' training; 0
            inside.
        score: of the detection; 1 for given landmarks. mediapipe's lie in [0, 1]; dlib's are margins, from 0 to about
            2.5.
        predicted_error: of the mesh in mm, from the other measures (docs/trust.md).
        unsure: a score below that of faces, for mediapipe 0.75; other detectors have no such limit.
        degenerate: landmarks that fix no camera.

    Example:
        >>> measures = faces.plausibility
        >>> faces[measures.plausible]
    """

    residual: Float[Tensor, "*b"]
    contour_residual: Float[Tensor, "*b"]
    shape_distance: Float[Tensor, "*b"]
    view_angle: Float[Tensor, "*b"]
    proportion: Float[Tensor, "*b"]
    reprojection: Float[Tensor, "*b"]
    disagreement: Float[Tensor, "*b"]
    pose_excess: Float[Tensor, "*b"]
    score: Float[Tensor, "*b"]
    predicted_error: Float[Tensor, "*b"]
    unsure: Bool[Tensor, "*b"]
    degenerate: Bool[Tensor, "*b"]

    @property
    def plausible(self) -> Bool[Tensor, "*b"]:
        """Whether every measure is that of a face whose answer can be trusted."""
        trusted = (
            (self.disagreement <= _DISAGREEMENT)
            & (self.pose_excess <= _POSE_EXCESS)
            & ~self.unsure
            & (self.predicted_error <= _PREDICTED)
        )
        return self._within(0) & ~self._stretched & trusted

    @property
    def impossible(self) -> Bool[Tensor, "*b"]:
        """Whether some measure is farther off than any mistake about a real face can put it."""
        return ~self._within(1)

    def reasons(self) -> list[str]:
        """Why one face is not plausible, with the likely mistake; empty for a plausible face. Raises ValueError for a
        batch."""
        if self.residual.ndim:
            raise ValueError(f"reasons are those of one face; this is a batch of {len(self)}")
        if bool(self.degenerate):
            return ["the landmarks are degenerate: they fix no pose"]
        residual, distance, angle, proportion = (
            float(value) for value in (self.residual, self.shape_distance, self.view_angle, self.proportion)
        )
        listed = []
        if not residual <= _RESIDUAL_MM[0]:
            listed.append(f"the landmarks fit no face: residual {residual:.1f} mm; are the points in another order?")
        if not angle <= _VIEW_DEGREES[0]:
            listed.append(
                f"the face looks away from the viewer: view angle {angle:.0f} degrees; are x and y exchanged, is y "
                "counted upwards, or are the points mirrored?"
            )
        if bool(self._stretched):
            listed.append(
                f"the landmarks are a stretched face: proportion {proportion:.2f}; was the picture resized, or do the "
                "points belong to another size of it?"
            )
        if not distance <= _SHAPE_DISTANCE[0]:
            listed.append(f"the shape is no face's: {distance:.1f} standard deviations from the mean face")
        return listed + self._doubts()

    def _doubts(self) -> list[str]:
        """Why the answer for one face, whose landmarks may be right, is not trusted."""
        disagreement, excess, score, predicted = (
            float(value) for value in (self.disagreement, self.pose_excess, self.score, self.predicted_error)
        )
        listed = []
        if not disagreement <= _DISAGREEMENT:
            listed.append(f"cascade and landmark fit disagree by {disagreement:.1f} mm")
        if not excess <= _POSE_EXCESS:
            listed.append(f"the pose is {excess:.0f} degrees outside of the training range")
        if bool(self.unsure):
            listed.append(f"the detection is unsure: score {score:.2f}")
        if not predicted <= _PREDICTED:
            listed.append(f"the mesh is probably {predicted:.1f} mm off")
        return listed

    @property
    def _stretched(self) -> Bool[Tensor, "*b"]:
        stretched: Tensor = (self.proportion < _PROPORTION) & (self.view_angle < _TURNED_DEGREES)
        return stretched

    def _within(self, limit: int) -> Bool[Tensor, "*b"]:
        """Whether the measures are inside the first or second limits; False for a measure that is NaN."""
        within: Tensor = (
            (self.residual <= _RESIDUAL_MM[limit])
            & (self.shape_distance <= _SHAPE_DISTANCE[limit])
            & (self.view_angle <= _VIEW_DEGREES[limit])
            & ~self.degenerate
        )
        return within


def is_unsure(scores: Float[Tensor, "*b"], convention: str | None) -> Bool[Tensor, "*b"]:
    """Whether scores of detections are below those of faces, by the convention of the detector; None: mediapipe's, as
    of results that name none."""
    return ~(scores >= _SCORE[convention or CONVENTIONS[0]])


def measure_plausibility(
    parameters: FaceParameters,
    camera: Camera,
    projected: Float[Tensor, "*b 66 2"],
    landmarks: Float[Tensor, "*b 66 2"],
    size: Float[Tensor, "*b"],
    model: FaceModel,
    *,
    scores: Float[Tensor, "*b"] | None = None,
    disagreement: Float[Tensor, "*b"] | None = None,
    convention: str = CONVENTIONS[0],
) -> Plausibility:
    """The measures of fitted faces, in the dtype of the landmarks; nothing waits for the device.

    Args:
        parameters: of the faces.
        camera: of the faces, for shapes at their size.
        projected: landmarks of the fitted faces, px.
        landmarks: that were given or detected, px; NaN where missing.
        size: factor by which the shapes are larger than the model's.
        model: with topology.
        scores: of the detections; None: 1, as of given landmarks.
        disagreement: of cascade and landmark fit, mm of the face model; None: 0, as of a landmark fit.
        convention: of the landmarks, one of `scheme.CONVENTIONS`; the predicted error and the limit of the score depend
            on it.

    Raises:
        ValueError: a model without topology, or an unknown convention.

    Example:
        >>> measure_plausibility(faces.parameters, faces.camera, faces.projected_2d, points, faces.size, model)
    """
    check_convention(convention)
    model_scale = camera.scale.double() * size.double()  # px per mm of the face model
    present = is_present(landmarks)
    offset = (projected.double() - landmarks.double()) / model_scale[..., None, None]
    square = offset.square().sum(-1).masked_fill(~present, 0.0)
    distances = [
        _distance(parameters.identity, model.identity_mean, model.identity_variance),
        _distance(parameters.expression, model.expression_mean, model.expression_variance),
    ]
    facing = camera.rotation[..., 2, 2].double().clamp(-1, 1)
    inner = landmarks[..., :N_INNER, :]
    known = {
        "residual": _root_mean(square[..., :N_INNER], present[..., :N_INNER]),
        "contour_residual": _root_mean(square[..., N_INNER:], present[..., N_INNER:]),
        "shape_distance": torch.maximum(*distances),
        "view_angle": torch.rad2deg(torch.acos(facing)),
        "disagreement": torch.zeros_like(model_scale) if disagreement is None else disagreement.double(),
    }
    score = torch.ones_like(model_scale) if scores is None else scores.double()
    measures = Plausibility(
        **known,
        proportion=_proportion(_inner_landmarks(model), inner.double()),
        reprojection=_root_mean(square, present) * model_scale,
        pose_excess=_pose_excess(camera.rotation),
        score=score,
        unsure=is_unsure(score, convention),
        predicted_error=_predicted_error(known, convention),
        degenerate=camera.degenerate,
    )
    return measures.to(landmarks.dtype)


def _pose_excess(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    angles = torch.rad2deg(torch.stack(matrix_to_euler(rotation.double()), dim=-1))
    excess: Tensor = (angles.abs() - angles.new_tensor(TRAINED_DEGREES)).amax(-1).clamp_min(0)
    return excess


def _predicted_error(measures: Mapping[str, Float[Tensor, "*b"]], convention: str) -> Float[Tensor, "*b"]:
    """The mean vertex error in mm after a similarity, by a log-linear regression on the measures."""
    at_rest, slopes = _ERROR[convention]
    return torch.as_tensor(at_rest + sum(slope * measures[name] for name, slope in slopes.items())).exp()


def _inner_landmarks(model: FaceModel) -> Float[Tensor, "49 3"]:
    """The inner landmarks of the mean face in mm, model frame, float64 on the model's device; kept as long as the model
    is. Raises ValueError for a model without topology."""
    topology = model.whole_topology("plausibility needs a whole face model")
    points = _mean_faces.get(model)
    if points is None or points.device != model.device:
        with torch.inference_mode(False), torch.no_grad():
            rows = model.restrict(topology.landmark_vertices[:N_INNER])
            points = rows.vertices(rows.identity_mean, rows.expression_mean).double()
        _mean_faces[model] = points
    return points


def _root_mean(square: Float[Tensor, "*b n"], present: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    return (square.sum(-1) / present.sum(-1).clamp_min(1)).sqrt()


def _distance(
    weights: Float[Tensor, "*b k"], mean: Float[Tensor, "k"], variance: Float[Tensor, "k"]
) -> Float[Tensor, "*b"]:
    """The Mahalanobis distance from the mean per weight; 0 where there are none."""
    mean, variance = (table.to(weights.device, torch.float64) for table in (mean, variance))
    return ((weights.double() - mean).square() / variance).sum(-1).div(max(len(mean), 1)).sqrt()


def _proportion(mean: Float[Tensor, "n 3"], landmarks: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b"]:
    """The ratio of the singular values of the least-squares affine map from `mean` to `landmarks`, a 2 x 3 matrix; 1
    where points are missing or coincide so that there is no such map."""
    weights = is_present(landmarks).double()
    points = torch.nan_to_num(landmarks)
    weights = (weights / weights.sum(-1, keepdim=True).clamp_min(1))[..., None]
    mean = mean.to(landmarks.device)
    shape, seen = mean - (weights * mean).sum(-2, keepdim=True), points - (weights * points).sum(-2, keepdim=True)
    weighted = shape * weights
    gram, failed = torch.linalg.inv_ex(weighted.mT @ shape)
    affine = (weighted.mT @ seen).mT @ gram
    moment = affine @ affine.mT
    half_trace = (moment[..., 0, 0] + moment[..., 1, 1]) / 2
    determinant = moment[..., 0, 0] * moment[..., 1, 1] - moment[..., 0, 1] * moment[..., 1, 0]
    spread = (half_trace.square() - determinant).clamp_min(0).sqrt()
    missing = (failed != 0) | ~(half_trace > _LEAST_EXTENT)
    ratio = (half_trace - spread).clamp_min(0) / (half_trace + spread).masked_fill(missing, 1.0)
    proportion: Tensor = ratio.sqrt().masked_fill(missing, 1.0)
    return proportion
