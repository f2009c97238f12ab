"""One identity for several pictures of a person, from the cascade's answers to each of them.

A ridge shrinks its answers towards the mean face, by the share of its answers' spread that changes from picture to
picture of one person. A mean over N pictures has less of that spread, and the shrinkage is undone as far:

    alpha = mu + (1 + r) / (1 + r / N) (mean - mu),    N = sum_i w_i,    mean = sum_i w_i alpha_i / N

with r the variance between pictures of one person over that between people, and w_i the precision of a picture by its
yaw. One picture keeps its answer. The figures are measured by `python -m benchmarks.people` on people that the cascade
was not trained on and that no published figure is from (docs/people_and_videos.md).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import TensorRecord

__all__ = ["JointIdentity", "join_identities"]

_SHRINKAGE = 0.17  # r
_TURNED = 45.0  # degrees of yaw at which a picture's error variance is 1 + _STEEPNESS times that of a frontal one
_STEEPNESS = 2.0
_WITHIN = 0.13  # error variance of a frontal picture among those of one person, in parts of the prior's variance
_LEAST = 1e-9  # of a weight that is divided by
_STRANGER = 1.6  # distance from which on a picture is not of the person of the others
_MIXED = 1.35  # root mean square distance from which on pictures are of several people


@dataclass(frozen=True, kw_only=True)
class JointIdentity(TensorRecord):
    """The identity of each picture's person, one row per picture.

    Attributes:
        identity: alpha, the same for all pictures of a person.
        pictures: number of the person's pictures.
        distance: of a picture's own alpha to the others' mean, in standard deviations of pictures of one person: about
            1 for the same person; 0 where there is no other picture.
        spread: root mean square of the distances of the person's pictures.

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
        far: Tensor = self.distance > _STRANGER
        return far

    @property
    def mixed(self) -> Bool[Tensor, "b"]:
        """Whether the pictures of this person are of several people."""
        mixed: Tensor = self.spread > _MIXED
        return mixed


def join_identities(
    identity: Float[Tensor, "b identities"],
    rotation: Float[Tensor, "b 3 3"],
    subject: Int[Tensor, "b"],
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
        ValueError: not one subject per picture.

    Example:
        >>> join_identities(faces.parameters.identity, faces.camera.rotation, subject, model).identity
    """
    if subject.shape != identity.shape[:1]:
        raise ValueError(f"subject must be [{len(identity)}], one per picture; got {list(subject.shape)}")
    mean, variance = (t.to(identity.device, torch.float64) for t in (model.identity_mean, model.identity_variance))
    names, index = torch.unique(subject.to(identity.device), return_inverse=True)
    weight = _precision(rotation)
    if known is not None:
        weight = weight * known
    off = identity.double() - mean

    def total(values: Tensor) -> Tensor:
        """The sums over each person's pictures, at every picture."""
        return values.new_zeros(len(names), *values.shape[1:]).index_add_(0, index, values)[index]

    weights, sums = total(weight), total(weight[:, None] * off)
    gain = (1 + _SHRINKAGE) / (weights + _SHRINKAGE)  # times the sum: the mean's (1 + r) / (1 + r / N)
    others = weights - weight
    there = (weight > 0) & (others > 0)
    apart = off - (sums - weight[:, None] * off) / others.clamp_min(_LEAST)[:, None]
    expected = _WITHIN * (1 / weight.clamp_min(_LEAST) + 1 / others.clamp_min(_LEAST))
    square = ((apart.square() / variance).mean(-1) / expected).masked_fill(~there, 0.0)
    spread = (total(square) / total(there.double()).clamp_min(1)).sqrt()
    joint = mean + gain[:, None] * sums
    return JointIdentity(
        identity=joint, pictures=total(torch.ones_like(index)), distance=square.sqrt(), spread=spread
    ).to(identity.dtype)


def _precision(rotation: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b"]:
    """1 over the error variance of a picture, in parts of that of a frontal one."""
    yaw = torch.rad2deg(matrix_to_euler(rotation.double())[0])
    return 1 / (1 + _STEEPNESS * (yaw / _TURNED).square())
