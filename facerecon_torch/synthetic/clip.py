"""Synthetic clips: one person who turns the head and changes expression, with the truth of every frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.structures import Camera, TensorRecord
from facerecon_torch.synthetic.people.head import load_head, true_landmarks
from facerecon_torch.synthetic.people.person import DefaultPerson
from facerecon_torch.synthetic.people.sampling import draw_camera, draw_expression, draw_gaze, draw_subject
from facerecon_torch.synthetic.procedural import uniform
from facerecon_torch.synthetic.render.lighting import draw_light
from facerecon_torch.synthetic.render.photograph import draw_background, draw_camera_settings, expose
from facerecon_torch.synthetic.render.subject import paint_head, render_head
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["ClipFrame", "ClipSpec", "render_clip"]

_TURNS = 25.0, 10.0, 6.0  # degrees of yaw, pitch and roll at key frames


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The content of a clip. It depends on these numbers alone; the person is that of the same number in a set of the
    same family and seed.

    Attributes:
        subject: number of the person.
        frames: length.
        key_frames: frames from one pose and expression to the next.
        seed: of all random draws.
        size: of a frame, px.
        family: of the person, as in `SyntheticSpec`.

    Raises:
        ValueError: a number out of range, or another family.
    """

    subject: int = 0
    frames: int = 60
    key_frames: int = 15
    seed: int = 0
    size: int = 448
    family: str = "test"

    def __post_init__(self) -> None:
        if self.subject < 0 or min(self.frames, self.key_frames) < 1:
            raise ValueError(f"subject must be at least 0, frames and key_frames at least 1; got {self}")
        self.people()

    def people(self) -> SyntheticSpec:
        """The set that the person is of. Raises ValueError for a size, family or number that it cannot have."""
        return SyntheticSpec(
            subjects=self.subject + 1, images_per_subject=1, seed=self.seed, size=self.size, family=self.family
        )


@dataclass(frozen=True, kw_only=True)
class ClipFrame(TensorRecord):
    """One frame and its truth: mesh in mm (model frame), camera, landmarks in px, angles in rad (yaw, pitch, roll) and
    weights of the source's expressions; `neutral` is the person's face at rest."""

    image: UInt8[Tensor, "*b 3 height width"]
    vertices: Float[Tensor, "*b v 3"]
    neutral: Float[Tensor, "*b v 3"]
    camera: Camera
    landmarks: Float[Tensor, "*b 66 2"]
    angles: Float[Tensor, "*b 3"]
    expression_weights: Float[Tensor, "*b exps"]


def render_clip(spec: ClipSpec) -> Iterator[ClipFrame]:
    """The frames in order. Pose and expression move smoothly from key frame to key frame; light, background and camera
    settings stay, the grain of the picture changes.

    Example:
        >>> frames = list(render_clip(ClipSpec(subject=3, frames=60)))
    """
    people, head = spec.people(), load_head()
    identity, appearance = people.generator(spec.subject, "identity"), people.generator(spec.subject, "appearance")
    shifted = spec.family == "shifted"
    person = DefaultPerson(head, draw_subject(head.source, identity, appearance, shifted=shifted))
    painted = paint_head(head, person.drawn.look, people.generator(spec.subject, "texture"))
    generator = people.generator(spec.subject, "clip")
    weights, angles = _motion(spec, head.source.expression_names, generator)
    camera = draw_camera(torch.zeros(3), person.with_expression(weights[0]).framing, spec.size, generator)
    light, gaze = draw_light(generator, shifted=shifted), draw_gaze(generator)
    background, settings = draw_background(spec.size, generator), draw_camera_settings(generator, shifted=shifted)
    for k in range(spec.frames):
        posed = person.with_expression(weights[k])
        turned = replace(camera, rotation=euler_to_matrix(*angles[k].unbind()))
        radiance, mean = render_head(
            head, painted, (posed.neutral, posed.head), person.head_camera(turned), light=light, gaze=gaze,
            background=background, generator=people.generator(spec.subject, "shadow"),
        )  # fmt: skip
        shown = expose(radiance, mean, settings, people.generator(spec.subject, "grain", k))
        yield ClipFrame(
            image=(shown * 255).round().to(torch.uint8),
            vertices=posed.face,
            neutral=posed.neutral[: head.source.n_face],
            camera=turned,
            landmarks=true_landmarks(posed.face, turned)[0],
            angles=angles[k],
            expression_weights=weights[k],
        )


def _motion(
    spec: ClipSpec, names: tuple[str, ...], generator: torch.Generator
) -> tuple[Float[Tensor, "frames exps"], Float[Tensor, "frames 3"]]:
    """Expression weights and angles of every frame. Between two key frames they follow half a cosine; every second
    expression is neutral."""
    keys = math.ceil(spec.frames / spec.key_frames) + 1
    most = torch.tensor(_TURNS) * (math.pi / 180)
    poses = torch.stack([torch.tensor([uniform(generator, -1.0, 1.0) for _ in range(3)]) * most for _ in range(keys)])
    faces = torch.stack([draw_expression(names, generator) * (k % 2) for k in range(keys)])
    place = torch.arange(spec.frames) / spec.key_frames
    key = place.long()
    share = ((1 - torch.cos(math.pi * (place - key))) / 2)[:, None]
    return torch.lerp(faces[key], faces[key + 1], share), torch.lerp(poses[key], poses[key + 1], share)
