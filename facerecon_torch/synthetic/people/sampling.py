"""Random people, poses, expressions, gaze directions and cameras."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.default_face import FaceSource
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.people.appearance import Appearance, Macro, draw_appearance
from facerecon_torch.synthetic.procedural import clipped_normal, uniform

__all__ = [
    "POSE_LIMIT_DEGREES",
    "Subject",
    "draw_camera",
    "draw_expression",
    "draw_gaze",
    "draw_mixture",
    "draw_pose",
    "draw_subject",
    "knows_posed_faces",
]

POSE_LIMIT_DEGREES = (60.0, 25.0, 15.0)  # yaw, pitch, roll
_PX_PER_MM = (1.0, 2.2)
_MARGIN = 0.13  # share of the side that is free around the landmarks

POSED_FACES: dict[str, dict[str, float]] = {
    "smile": {"mouthSmile": 0.75, "cheekSquint": 0.35, "mouthDimple": 0.2},
    "broad smile": {"mouthSmile": 0.9, "mouthUpperUp": 0.35, "cheekSquint": 0.5, "jawOpen": 0.12, "eyeSquint": 0.35},
    "laugh": {"mouthSmile": 0.9, "jawOpen": 0.45, "cheekSquint": 0.6, "eyeSquint": 0.5, "mouthUpperUp": 0.3},
    "open mouth": {"jawOpen": 0.7},
    "wide open mouth": {"jawOpen": 1.0, "browInnerUp": 0.3},
    "talk": {"jawOpen": 0.25, "mouthLowerDown": 0.25, "mouthFunnel": 0.2},
    "surprise": {"jawOpen": 0.55, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.8},
    "anger": {"browDown": 0.9, "eyeSquint": 0.4, "noseSneer": 0.45, "mouthPress": 0.4, "mouthFrown": 0.3},
    "disgust": {"noseSneer": 0.8, "mouthUpperUp": 0.5, "browDown": 0.5, "eyeSquint": 0.4},
    "sadness": {"browInnerUp": 0.8, "mouthFrown": 0.8, "mouthShrugLower": 0.3},
    "fear": {"browInnerUp": 0.7, "eyeWide": 0.7, "mouthStretch": 0.6, "jawOpen": 0.2},
    "blink": {"eyeBlink": 1.0},
    "wink": {"eyeBlinkLeft": 0.95, "mouthSmileLeft": 0.4, "cheekSquint": 0.3},
    "kiss": {"mouthPucker": 0.85},
    "funnel": {"mouthFunnel": 0.7, "jawOpen": 0.15},
    "puffed cheeks": {"cheekPuff": 0.9, "mouthPress": 0.4},
    "pressed lips": {"mouthPress": 0.6, "mouthRollLower": 0.5, "mouthRollUpper": 0.4},
    "jaw left": {"jawLeft": 0.8, "mouthLeft": 0.3},
    "jaw right": {"jawRight": 0.8, "mouthRight": 0.3},
    "jaw forward": {"jawForward": 0.8},
    "smirk": {"mouthSmileRight": 0.7, "mouthDimpleRight": 0.4, "browOuterUpRight": 0.3},
    "doubt": {"browOuterUpLeft": 0.8, "browDownRight": 0.5, "mouthLeft": 0.4, "mouthShrugUpper": 0.3},
}
"""Name -> expression weights at full intensity; a name without its side stands for both."""
_ALONE_LIMIT = {"jawOpen": 0.8, "eyeBlink": 0.9, "mouthClose": 0.4, "mouthLeft": 0.7, "mouthRight": 0.7}
_SIDES = ("Left", "Right")
_NEUTRAL_SHARE, _POSED_SHARE = 0.18, 0.45


@dataclass(frozen=True)
class Subject:
    """One person: identity sliders and appearance."""

    sliders: Float[Tensor, "targets"]
    macro: Macro
    look: Appearance


def draw_subject(
    source: FaceSource, identity: torch.Generator, appearance: torch.Generator, *, shifted: bool = False
) -> Subject:
    """A random person: shape from the source's sliders (not from the model's core) and appearance."""
    drawn = source.sample(1, identity, family="shifted" if shifted else "core")[0]
    african, asian, caucasian = drawn.ancestry.tolist()
    macro = Macro(gender=float(drawn.gender), age=float(drawn.age), african=african, asian=asian, caucasian=caucasian)
    return Subject(drawn.sliders, macro, draw_appearance(macro, appearance, shifted=shifted))


def draw_pose(generator: torch.Generator) -> Float[Tensor, "3"]:
    """Random yaw, pitch and roll in rad within the limits, denser near frontal."""
    most_yaw, most_pitch, most_roll = POSE_LIMIT_DEGREES
    yaw = clipped_normal(generator, 0.0, 17.0, -most_yaw, most_yaw)
    if uniform(generator) < 0.5:
        yaw = uniform(generator, -most_yaw, most_yaw)
    pitch = clipped_normal(generator, 0.0, 10.0, -most_pitch, most_pitch)
    roll = clipped_normal(generator, 0.0, 6.0, -most_roll, most_roll)
    return torch.tensor([yaw, pitch, roll]) * (math.pi / 180)


def draw_expression(names: tuple[str, ...], generator: torch.Generator) -> Float[Tensor, "exps"]:
    """Random weights of the expressions `names`: neutral, a posed face, or one to four expressions at once."""
    weights = dict.fromkeys(names, 0.0)
    kind = uniform(generator)
    if kind >= _NEUTRAL_SHARE:
        if kind < _NEUTRAL_SHARE + _POSED_SHARE:
            recipe = list(POSED_FACES.values())[int(torch.randint(0, len(POSED_FACES), (), generator=generator))]
            strength = uniform(generator, 0.45, 1.05)
            for stem, level in recipe.items():
                _set_level(weights, stem, level * strength * uniform(generator, 0.8, 1.15), generator)
        else:
            for _ in range(int(torch.randint(1, 5, (), generator=generator))):
                name = names[int(torch.randint(0, len(names), (), generator=generator))]
                stem = _stem(name)
                both = uniform(generator) < 0.75
                _set_level(weights, stem if both else name, _level(stem, generator), generator)
    if uniform(generator) < 0.3:
        _set_level(weights, "eyeSquint", uniform(generator, 0.0, 0.3), generator)
    return torch.tensor([min(1.0, w) for w in weights.values()])


def knows_posed_faces(names: tuple[str, ...]) -> bool:
    """Whether `names` have at least half of the units of the posed faces."""
    units = {_stem(unit) for recipe in POSED_FACES.values() for unit in recipe}
    return 2 * len(units & {_stem(name) for name in names}) >= len(units)


def draw_mixture(n: int, generator: torch.Generator) -> Float[Tensor, "n"]:
    """Random weights of n expressions that are poses of the whole face: neutral, or one to three with a sum of at most
    1."""
    weights = torch.zeros(n)
    if uniform(generator) < _NEUTRAL_SHARE or not n:
        return weights
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        weights[int(torch.randint(0, n, (), generator=generator))] = uniform(generator) ** 0.8
    return weights / weights.sum().clamp_min(1.0)


def pose_expression(
    names: tuple[str, ...], recipe: dict[str, float], strength: float | int, generator: torch.Generator
) -> Float[Tensor, "exps"]:
    """The weights of a recipe times `strength`, with random variation, at most 1."""
    weights = dict.fromkeys(names, 0.0)
    for stem, level in recipe.items():
        _set_level(weights, stem, level * strength * uniform(generator, 0.92, 1.08), generator)
    return torch.tensor([min(1.0, w) for w in weights.values()])


def _level(stem: str, generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator).pow(0.8)) * _ALONE_LIMIT.get(stem, 0.9)


def _set_level(weights: dict[str, float], stem: str, level: float, generator: torch.Generator) -> None:
    """Raise the weight of an expression; a stem with two sides raises both, with random variation. A side that the
    names do not tell apart stands for both; what they do not have is left out."""
    if stem not in weights and not any(f"{stem}{side}" in weights for side in _SIDES):
        stem = _stem(stem)
    if stem in weights:
        weights[stem] = max(weights[stem], level)
        return
    for name in (f"{stem}{side}" for side in _SIDES):
        if name in weights:
            weights[name] = max(weights[name], level * uniform(generator, 0.9, 1.1))


def _stem(name: str) -> str:
    """The name without its side."""
    return name.removesuffix("Left").removesuffix("Right")


def draw_gaze(generator: torch.Generator) -> Float[Tensor, "2 3"]:
    """Random gaze directions of both eyes at rest, unit vectors in the head's frame.

    The eyeLook expressions rotate the eyeballs.
    """
    sideways, upwards = clipped_normal(generator, 0.0, 0.14, -0.4, 0.4), clipped_normal(generator, 0.0, 0.07, -0.2, 0.2)
    toe_in = uniform(generator, 0.0, 0.06)
    return normalize(torch.tensor([[sideways - toe_in, upwards, 1.0], [sideways + toe_in, upwards, 1.0]]), dim=1)


def draw_camera(
    angles: Float[Tensor, "3"], face: Float[Tensor, "n 3"], size: int, generator: torch.Generator
) -> Camera:
    """A random scaled orthographic camera with the points of `face` inside an image of `size` x `size` px.

    The scale is 1.0 to 2.2 px/mm, less where the image is too small for that.
    """
    rotation = euler_to_matrix(*angles.unbind())
    flat = (face @ rotation.mT)[:, :2] * torch.tensor([1.0, -1.0])
    low, high = flat.amin(0), flat.amax(0)
    scale = math.exp(uniform(generator, math.log(_PX_PER_MM[0]), math.log(_PX_PER_MM[1])))
    room = size * (1 - 2 * _MARGIN)
    scale = min(scale, room / float((high - low).amax()))
    free = (room - scale * (high - low)) / 2
    jitter = (torch.rand(2, generator=generator) * 2 - 1) * torch.minimum(free, torch.tensor(0.16 * size))
    # the centre of the landmarks lies below that of the head
    drop = torch.tensor([0.0, min(0.05 * size, float(free[1] - jitter[1].abs()))])
    middle = torch.tensor([(size - 1) / 2, (size - 1) / 2]) + jitter + drop.clamp_min(0)
    return Camera(
        rotation=rotation,
        scale=torch.tensor(scale),
        translation=middle - scale * (low + high) / 2,
        degenerate=torch.tensor(False),
    )
