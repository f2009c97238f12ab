"""One identity for several pictures of a person, from the cascade's answers to each of them.

A ridge shrinks its answers towards the mean face, because a part of each is chance of its picture. A mean over N
pictures holds less chance, and the shrinkage is undone as far:

    alpha = mu + (1 + r) / (1 + r / N) (mean - mu),    N = (sum_i w_i)^2 / sum_i w_i^2

with mean = sum_i w_i alpha_i / sum_i w_i and w_i the precision of a picture by its yaw. One picture keeps its answer.
r has the least error of 8 pictures in `python -m benchmarks.accuracy.people choose=FOLDER`, on people that the cascade
was not trained on and that no reported figure is from; w_i is from the variances printed there
(docs/people_and_videos.md).
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import TensorRecord

__all__ = ["JOINT_PENALTY", "JointIdentity", "join_identities"]

JOINT_PENALTY = 256.0
"""mm^2, of the expression's distance from the cascade's, when it is solved again with the joint identity."""

SHRINKAGE = 0.17  # r
STEEPNESS = 0.45  # the error variance of a picture at 45 degrees of yaw is 1 + this times that of a frontal one
_TURNED = 45.0  # degrees
_LEAST = 1e-9  # of a weight that is divided by
_STRANGER_MM = 2.8
_MIXED_MM = 0.9, 2.3  # the first number and, over the root of the number of pictures, the second
_metrics: WeakKeyDictionary[FaceModel, Float[Tensor, "k k"]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class JointIdentity(TensorRecord):
    """The identity of each picture's person, one row per picture.

    Attributes:
        identity: alpha, the same for all pictures of a person.
        pictures: number of the person's pictures.
        distance: between the faces of a picture and of the others' mean: root mean square over the vertices in
            mm, as one frontal picture would have it to the truth; 0 where there is no other picture.
        spread: root mean square of the distances of the person's pictures, mm.

    Example:
        >>> joined, person = model.join(faces, subject)
        >>> person.stranger, person.mixed
    """

    identity: Float[Tensor, "b identities"]
    pictures: Int[Tensor, "b"]
    distance: Float[Tensor, "b"]
    spread: Float[Tensor, "b"]

    @property
    def stranger(self) -> Bool[Tensor, "b"]:
        """Whether the other pictures are not of this picture's person."""
        far: Tensor = self.distance > _STRANGER_MM
        return far

    @property
    def mixed(self) -> Bool[Tensor, "b"]:
        """Whether the pictures of this person are of several people."""
        level, share = _MIXED_MM
        mixed: Tensor = self.spread > level + share / self.pictures.clamp_min(1).sqrt()
        return mixed


def join_identities(
    identity: Float[Tensor, "b identities"],
    rotation: Float[Tensor, "b 3 3"],
    subject: Int[Tensor, "pictures"],
    model: FaceModel,
    known: Bool[Tensor, "b"] | None = None,
) -> JointIdentity:
    """One alpha per person, from those that the cascade gave for each picture; all people together.

    Args:
        identity: alpha of each picture, in the model's gauge.
        rotation: of each picture's camera.
        subject: number of each picture's person, in any order.
        model: the face model.
        known: pictures that tell something; the others get their person's alpha. None: all.

    Returns:
        In the dtype of `identity`.

    Raises:
        ValueError: not one subject per picture, or a model without topology.

    Example:
        >>> join_identities(faces.parameters.identity, faces.camera.rotation, subject, model).identity
    """
    if subject.shape != identity.shape[:1]:
        raise ValueError(f"subject must be [{len(identity)}], one per picture; got {list(subject.shape)}")
    mean = model.identity_mean.to(identity.device, torch.float64)
    names, index = torch.unique(subject.to(identity.device), return_inverse=True)
    weight = _precision(rotation)
    if known is not None:
        weight = weight * known
    off = identity.double() - mean

    def total(values: Tensor) -> Tensor:
        """The sums over each person's pictures, at every picture."""
        return values.new_zeros(len(names), *values.shape[1:]).index_add_(0, index, values)[index]

    weights, sums = total(weight), total(weight[:, None] * off)
    scattered = total(weight.square()) / weights.square().clamp_min(_LEAST)  # 1 / N
    gain = (1 + SHRINKAGE) / (1 + SHRINKAGE * scattered) / weights.clamp_min(_LEAST)
    others = weights - weight
    there = (weight > 0) & (others > 0)
    apart = off - (sums - weight[:, None] * off) / others.clamp_min(_LEAST)[:, None]
    expected = 1 / weight.clamp_min(_LEAST) + 1 / others.clamp_min(_LEAST)
    metric = _metric(model).to(identity.device)
    square = (((apart @ metric) * apart).sum(-1) / expected).clamp_min(0).masked_fill(~there, 0.0)
    spread = (total(square) / total(there.double()).clamp_min(1)).sqrt()
    joint = mean + gain[:, None] * sums
    return JointIdentity(
        identity=joint, pictures=total(torch.ones_like(index)), distance=square.sqrt(), spread=spread
    ).to(identity.dtype)


def _metric(model: FaceModel) -> Float[Tensor, "k k"]:
    """The matrix of alpha's mean square distance over the whole face's vertices, mm^2, float64; kept as long as
    the model is. Raises ValueError for a model without topology."""
    topology = model.whole_topology("a joint identity needs a whole face model")
    metric = _metrics.get(model)
    if metric is None or metric.device != model.device:
        with torch.inference_mode(False), torch.no_grad():
            rows = model.restrict(topology.whole_vertices)
            design = rows.identity_design(rows.expression_mean)[0].double()
            metric = design.flatten(0, 1).mT @ design.flatten(0, 1) / len(design)
        _metrics[model] = metric
    return metric


def _precision(rotation: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b"]:
    """1 over the error variance of a picture, in parts of that of a frontal one."""
    yaw = torch.rad2deg(matrix_to_euler(rotation.double())[0])
    return 1 / (1 + STEEPNESS * (yaw / _TURNED).square())
