"""Random light, and the radiance of visible points towards the viewer. Linear RGB.

Light is second-order spherical harmonics for the surroundings and one shadow-casting key light. Directions are in the
viewer's frame (+x right, +y up, +z to the viewer). Irradiance follows Ramamoorthi and Hanrahan, "An efficient
representation for irradiance environment maps": E(n) = sum_l A_l sum_m L_lm Y_lm(n).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.synthetic.procedural import clipped_normal, uniform, unit
from facerecon_torch.synthetic.render.materials import Fragments, Materials

__all__ = ["Light", "draw_light", "harmonics", "shade", "surroundings"]

_BAND = torch.tensor([math.pi] + [2 * math.pi / 3] * 3 + [math.pi / 4] * 5)
_VIEW = torch.tensor([0.0, 0.0, 1.0])
_WRAP = torch.tensor([[0.22], [0.09], [0.06]])  # by how much the key light reaches around skin, per colour
_RELIEF = 0.6  # strength of the relief in the light of the surroundings


def harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 9"]:
    """The nine real spherical harmonics up to order 2 of unit directions."""
    x, y, z = directions.unbind(1)
    return torch.stack(
        [
            torch.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y,
            1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
        ],
        dim=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Light:
    """Light of one image.

    `radiance`: harmonics of the surroundings per colour; `key`: unit direction of the key light; `key_colour`: its
    irradiance / pi on a surface facing it; `softness`: half-angle of its disc, rad.
    """

    radiance: Float[Tensor, "9 3"]
    key: Float[Tensor, "3"]
    key_colour: Float[Tensor, "3"]
    softness: float

    def ambient(self, normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The irradiance / pi of the surroundings on unit normals."""
        weights = (_BAND / math.pi)[:, None] * self.radiance
        return (harmonics(normals) @ weights).clamp_min(0.015)

    def reflected(self, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The blurred radiance of the surroundings in `directions`."""
        damp = torch.tensor([1.0] + [0.8] * 3 + [0.5] * 5)[:, None]
        return (harmonics(directions) @ (damp * self.radiance)).clamp_min(0.0)


def _towards(azimuth: float, elevation: float) -> Tensor:
    level = math.cos(elevation)
    return torch.tensor([level * math.sin(azimuth), math.sin(elevation), level * math.cos(azimuth)])


def _lamp_colour(value: float) -> Tensor:
    """The colour of a lamp, -1 bluish to 1 orange, of luminance about 1."""
    return torch.tensor([1 + 0.28 * value, 1.0 - 0.02 * abs(value), 1 - 0.34 * value])


def draw_light(generator: torch.Generator, *, shifted: bool = False) -> Light:
    """A random light.

    The training and test families have daylight, overcast, window, studio, indoor and flash light; the shifted family
    has light from below, from behind, or in two saturated colours.
    """
    return _draw_shifted_light(generator) if shifted else _draw_usual_light(generator)


_KINDS = {  # key strength, ambient strength, key elevation (rad), spread of the azimuth (rad), key half-angle (rad)
    "daylight": (0.9, 0.55, 0.9, 0.8, 0.12),
    "overcast": (0.25, 1.0, 1.1, 0.8, 0.7),
    "window": (0.9, 0.4, 0.35, 1.2, 0.45),
    "studio": (0.85, 0.45, 0.55, 0.6, 0.3),
    "indoor": (0.6, 0.6, 0.85, 0.8, 0.3),
    "flash": (0.8, 0.4, 0.12, 0.12, 0.08),
}


def _draw_usual_light(generator: torch.Generator) -> Light:
    kind = list(_KINDS)[int(torch.randint(0, len(_KINDS), (), generator=generator))]
    strength, ambient, elevation, spread, half = _KINDS[kind]
    key = _towards(
        clipped_normal(generator, 0.0, spread, -1.5, 1.5), clipped_normal(generator, elevation, 0.2, -0.05, 1.3)
    )
    tone = clipped_normal(generator, 0.1, 0.4, -0.9, 0.9)
    other = clipped_normal(generator, -0.5 * tone, 0.3, -0.8, 0.8)
    sky = 0.30 * ambient * uniform(generator, 0.4, 1.6)
    lamps = [(_towards(0.0, 1.55), sky * _lamp_colour(other)), (_towards(0.0, -1.55), 0.35 * sky * _lamp_colour(0.4))]
    fill = _towards(-math.copysign(1.0, float(key[0])) * uniform(generator, 0.4, 1.4), uniform(generator, -0.2, 0.5))
    lamps.append((fill, 0.35 * ambient * uniform(generator) * _lamp_colour(other)))
    for _ in range(2):
        place = _towards(uniform(generator, -2.6, 2.6), uniform(generator, -0.3, 0.9))
        lamps.append((place, 0.25 * ambient * uniform(generator) * _lamp_colour(uniform(generator, -0.7, 0.7))))
    level = ambient * uniform(generator, 0.2, 0.65)
    return _make_light(
        level * _lamp_colour(other), lamps, key, strength * uniform(generator, 0.5, 1.15) * _lamp_colour(tone), half
    )


def _draw_shifted_light(generator: torch.Generator) -> Light:
    kind = int(torch.randint(0, 3, (), generator=generator))
    hue = torch.rand(3, generator=generator) * 0.7 + 0.5
    if kind == 0:  # from below
        key = _towards(uniform(generator, -0.8, 0.8), uniform(generator, -0.8, -0.35))
        return _make_light(0.35 * hue, [], key, 0.7 * _lamp_colour(0.8), 0.25)
    if kind == 1:  # from behind and above, the face in its own shadow
        key = _towards(math.copysign(uniform(generator, 1.7, 2.3), uniform(generator, -1.0, 1.0)), 0.6)
        return _make_light(0.6 * hue, [(_towards(0.0, 0.3), 0.25 * hue)], key, 1.6 * _lamp_colour(0.1), 0.15)
    side = math.copysign(1.0, uniform(generator, -1.0, 1.0))
    key = _towards(side * uniform(generator, 0.9, 1.5), uniform(generator, 0.0, 0.5))
    opposite = (_towards(-side * 1.4, 0.1), 0.8 * (1.7 - hue))
    return _make_light(0.15 * torch.ones(3), [opposite], key, hue, 0.25)


def _make_light(
    level: Tensor, lamps: list[tuple[Tensor, Tensor]], key: Tensor, key_colour: Tensor, softness: float
) -> Light:
    """The light of even surroundings of radiance `level` and broad `lamps` (direction, irradiance / pi)."""
    radiance = torch.zeros(9, 3)
    radiance[0] = level / 0.282095
    for direction, colour in lamps:
        # a lamp of irradiance pi * colour, blurred to the resolution of the harmonics
        lobe = harmonics(direction[None])[0] * math.pi * torch.tensor([1.0] + [0.9] * 3 + [0.6] * 5)
        radiance += lobe[:, None] * colour
    return Light(radiance, key, key_colour, softness)


def surroundings(
    normals: Float[Tensor, "v 3"], occlusion: Float[Tensor, "v"], light: Light
) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "v 3"]]:
    """Occluded ambient light and Fresnel-weighted mirror reflection at unit vertex normals (viewer's frame).

    Occlusion is stronger in green and blue, as light between folds of skin is reddish. Fresnel's term is Schlick's.
    """
    closed = occlusion[:, None]
    ambient = light.ambient(normals) * torch.cat([closed, closed**1.2, closed**1.25], dim=1)
    facing = normals[:, 2].clamp(0, 1)
    fresnel = 0.04 + 0.5 * (1 - facing) ** 5
    mirrored = light.reflected(2 * normals[:, 2:] * normals - _VIEW)
    return ambient, (0.5 * fresnel * occlusion)[:, None] * mirrored


def shade(points: Fragments, materials: Materials, light: Light, up: Float[Tensor, "3"]) -> Float[Tensor, "3 n"]:
    """The radiance towards the viewer.

    Diffuse: the surroundings, and the key light, which reaches further around skin in red than in blue. Gloss:
    Blinn-Phong of the key light and the mirrored surroundings. Hair: Kajiya-Kay along strands from the crown down.
    """
    facing = light.key @ materials.normal
    wrap = materials.fleshy * _WRAP + 0.02
    lit = ((facing + wrap) / (1 + wrap)).clamp_min(0) * points.shadow
    relief = 1 + _RELIEF * (materials.normal[1] - points.normal[1])
    key = light.key_colour[:, None]
    radiance = materials.colour * (points.ambient * relief + key * lit)
    half = normalize(light.key + _VIEW, dim=0)
    lobe = (half @ materials.normal).clamp_min(1e-6).log().mul(materials.sharpness).exp()
    level = (0.035 / 25.0) * (materials.sharpness + 8) * materials.gloss * lobe * points.shadow * (facing > 0)
    radiance += level * key + materials.gloss * points.mirrored
    _add_hair_sheen(radiance, points, materials, light, up=up, half=half)
    return radiance


def _add_hair_sheen(
    radiance: Tensor, points: Fragments, materials: Materials, light: Light, *, up: Tensor, half: Tensor
) -> None:
    """Add the highlight across the strands: (1 - (t . h)^2)^(p / 2)."""
    rows = (materials.hairy > 0.05).nonzero()[:, 0]
    normal = points.normal[:, rows]
    strand = unit(normal * (up @ normal) - up[:, None])
    level = (1 - (half @ strand) ** 2).clamp_min(0) ** 18 * materials.gloss[rows] * materials.hairy[rows]
    front = points.shadow[rows] * (light.key @ normal).clamp_min(0)
    tint = light.key_colour[:, None] * (0.4 + 2.0 * materials.colour[:, rows])
    radiance[:, rows] += (0.16 * level * front) * tint
