"""Meshes of occluders in front of a given head: a hand, glasses, locks of hair. Model frame, mm."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.synthetic.people.appearance import Colour
from facerecon_torch.synthetic.procedural import uniform

__all__ = ["Occluder", "make_glasses", "make_hand", "make_locks", "sweep"]

_SIDES = 12  # corners of a tube's cross-section
_HEAD_RADIUS = 75.0  # mm, bending radius of a hand


@dataclass(frozen=True)
class Occluder:
    """Mesh with triangles counter-clockwise seen from outside, its colour and its response to a range sensor.

    `colour` is linear RGB reflectance; `reflectance` is the share of its cells that a range sensor measures.
    """

    vertices: Float[Tensor, "v 3"]
    triangles: Int[Tensor, "t 3"]
    colour: Colour
    reflectance: float


def sweep(path: Float[Tensor, "n 3"], radius: Float[Tensor, "n"], *, flat: float = 1.0) -> tuple[Tensor, Tensor]:
    """Vertices and triangles of a tube along a path; `flat` scales its cross-section along z."""
    along = normalize(torch.gradient(path, dim=0)[0], dim=1)
    helper = torch.where(along[:, 2:].abs() > 0.9, torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 0, 1.0]]))
    first = normalize(torch.linalg.cross(along, helper), dim=1)
    second = torch.linalg.cross(along, first)
    turn = torch.arange(_SIDES) * (2 * math.pi / _SIDES)
    ring = turn.cos()[:, None, None] * first + turn.sin()[:, None, None] * second
    points = radius[:, None] * ring * torch.tensor([1.0, 1.0, flat]) + path
    at = torch.arange(_SIDES * len(path)).reshape(_SIDES, len(path))
    beside = at.roll(-1, 0)
    a, b, c, d = at[:, :-1], at[:, 1:], beside[:, 1:], beside[:, :-1]
    triangles = torch.cat([torch.stack([a, d, c], -1), torch.stack([a, c, b], -1)]).reshape(-1, 3)
    return points.reshape(-1, 3), triangles


def _joined(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    starts = torch.tensor([0, *(len(points) for points, _ in pieces)]).cumsum(0)
    triangles = [faces + start for (_, faces), start in zip(pieces, starts)]
    return torch.cat([points for points, _ in pieces]), torch.cat(triangles)


def _round_ends(length: int, radius: float, last: float) -> Tensor:
    """The radii of a tube with rounded ends."""
    share = torch.linspace(-1, 1, length)
    return (radius + (last - radius) * (share + 1) / 2) * (1 - share.abs() ** 6).clamp_min(0).sqrt()


def _line(start: tuple[float, ...], end: tuple[float, ...], length: int = 24) -> Tensor:
    share = torch.linspace(0, 1, length)[:, None]
    return torch.tensor(start) * (1 - share) + torch.tensor(end) * share


def make_hand(
    target: Float[Tensor, "3"], angle: float, skin: Colour, generator: torch.Generator, *, mirrored: bool = False
) -> Occluder:
    """A hand bent around the head, with its fingers over `target` and pointing along `angle` (rad from +x to +y).

    `mirrored` gives the other hand, pointing along pi - angle.
    """
    pieces = []
    reach = (30.0, 38.0, 41.0, 34.0)
    for finger, tip in enumerate(reach):
        y = 15.6 * (finger - 1.5) + uniform(generator, -0.8, 0.8)
        bent = uniform(generator, -3.0, 3.0)
        path = _line((-52.0, 0.94 * y, 0.0), (tip + uniform(generator, -3.0, 3.0), y + bent, -1.0))
        pieces.append(sweep(path, _round_ends(24, 9.0, 7.6)))
    pieces.append(sweep(_line((-100.0, -2.0, 0.0), (-32.0, 0.0, 0.0)), _round_ends(24, 35.0, 36.0), flat=0.36))
    pieces.append(sweep(_line((-88.0, 26.0, 3.0), (-22.0, 47.0, 2.0)), _round_ends(24, 12.0, 8.5)))
    pieces.append(sweep(_line((-260.0, 0.0, -20.0), (-80.0, 0.0, 0.0)), torch.linspace(34.0, 26.0, 24)))
    points, triangles = _joined(pieces)
    points[:, 2] -= points[:, 0].clamp(-100, 60) ** 2 / (2 * _HEAD_RADIUS) - 9.0
    cos, sin = math.cos(angle), math.sin(angle)
    turned = points @ torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    if mirrored:
        turned, triangles = turned * torch.tensor([-1.0, 1.0, 1.0]), triangles.flip(1)
    return Occluder(turned + target, triangles, skin, 1.0)


def make_glasses(
    eyes: Float[Tensor, "2 3"], ears: Float[Tensor, "2 3"], generator: torch.Generator
) -> tuple[Occluder, Float[Tensor, "2 3"]]:
    """Spectacles in front of the eye centres (image left, right) with temples to the ears, and the lens centres.

    The lenses have half axes of 25 and 18 mm.
    """
    thick = uniform(generator, 1.1, 2.2)
    square = uniform(generator, 2.0, 4.0)
    front = float(eyes[:, 2].amax()) + 19.0
    turn = torch.linspace(0, 2 * math.pi, 41)
    cos, sin = turn.cos(), turn.sin()
    size = (cos.abs() ** square + sin.abs() ** square) ** (-1 / square)
    pieces, centres = [], []
    for side, (eye, ear) in zip((-1.0, 1.0), zip(eyes, ears)):
        centre = torch.tensor([float(eye[0]) + side * 1.5, float(eye[1]) - 2.0, front])
        centres.append(centre)
        rim = torch.stack([25.0 * size * cos, 18.0 * size * sin, -0.004 * (25.0 * size * cos) ** 2], dim=1) + centre
        pieces.append(sweep(rim, torch.full((41,), thick)))
        hinge = (float(centre[0]) + side * 25.0, float(centre[1]) + 6.0, front - 3.0)
        bend = (float(ear[0]) + side * 2.0, hinge[1], hinge[2] - 12.0)
        pieces.append(sweep(_line(hinge, bend, 6), torch.full((6,), thick)))
        pieces.append(sweep(_line(bend, (bend[0], float(ear[1]) + 8.0, float(ear[2])), 12), torch.full((12,), thick)))
    inner = [(float(c[0]) - s * 25.0, float(c[1]) + 3.0, front) for s, c in zip((-1.0, 1.0), centres)]
    pieces.append(sweep(_line(inner[0], inner[1], 6), torch.full((6,), thick)))
    points, triangles = _joined(pieces)
    level = uniform(generator, 0.01, 0.12)
    return Occluder(points, triangles, (level, 0.8 * level, 0.7 * level), 0.6), torch.stack(centres)


def make_locks(face: Float[Tensor, "v 3"], hair: Colour, generator: torch.Generator) -> Occluder:
    """Locks of hair that hang from the forehead over a brow, an eye and a cheek."""
    side = 1.0 if uniform(generator) < 0.5 else -1.0
    pieces = []
    for _ in range(int(torch.randint(9, 16, (), generator=generator))):
        begin = side * uniform(generator, -15.0, 48.0)
        end = begin + side * uniform(generator, 4.0, 26.0)
        bottom = uniform(generator, -40.0, 25.0)
        share = torch.linspace(0, 1, 20)
        x = begin + (end - begin) * share**1.6 + 2.0 * torch.sin(5 * share + uniform(generator, 0.0, 6.0))
        y = 108.0 + (bottom - 108.0) * share
        z = _surface(face, torch.stack([x, y], dim=1)) + 2.5 + uniform(generator, 0.0, 4.0)
        radius = uniform(generator, 2.0, 4.2) * (1 - share**3)
        pieces.append(sweep(torch.stack([x, y, z], dim=1), radius, flat=0.5))
    points, triangles = _joined(pieces)
    return Occluder(points, triangles, hair, 0.35)


def _surface(face: Float[Tensor, "v 3"], places: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
    """The depth of the front of the face at `places`."""
    far = torch.cdist(places, face[:, :2])
    depth = torch.where(far < 9.0, face[:, 2], -torch.inf).amax(1)
    nearest = face[:, 2][far.argmin(1)]
    return torch.where(depth.isfinite(), depth, nearest)
