"""Colour of every visible point: material by part of the head, then one light for all of them. Linear RGB."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.data.synthetic.appearance import Appearance
from facerecon_torch.data.synthetic.atlas import Atlas
from facerecon_torch.data.synthetic.hair import Hair
from facerecon_torch.data.synthetic.head import PARTS
from facerecon_torch.data.synthetic.lighting import Light
from facerecon_torch.data.synthetic.procedural import smooth_step

__all__ = ["Fragments", "Materials", "Wardrobe", "dress", "shade"]

_PART = {name: i for i, name in enumerate(PARTS)}


@dataclass(frozen=True)
class Fragments:
    """Visible points of one picture. `normal` is the unit normal in the viewer's frame, turned towards the viewer."""

    part: Int[Tensor, "n"]
    reference: Float[Tensor, "n 3"]
    normal: Float[Tensor, "n 3"]
    occlusion: Float[Tensor, "n"]
    shadow: Float[Tensor, "n"]
    ears: Float[Tensor, "n"]


@dataclass
class Materials:
    """Reflectance, shading normal, gloss, highlight exponent and hairiness of every fragment."""

    colour: Float[Tensor, "n 3"]
    normal: Float[Tensor, "n 3"]
    gloss: Float[Tensor, "n"]
    sharpness: Float[Tensor, "n"]
    hairy: Float[Tensor, "n"]
    fleshy: Float[Tensor, "n"]


@dataclass(frozen=True)
class Wardrobe:
    """What one subject's materials are looked up in; axes are the columns of the head's rotation to the view."""

    look: Appearance
    atlas: Atlas
    skin: Float[Tensor, "layers height width"]
    hair: Hair
    eye_centres: Float[Tensor, "2 3"]
    gaze: Float[Tensor, "2 3"]  # unit, reference frame
    up: Float[Tensor, "3"]  # the head's +y in the viewer's frame


def dress(points: Fragments, wardrobe: Wardrobe) -> Materials:
    """Materials of all fragments."""
    n = len(points.part)
    made = Materials(
        colour=torch.zeros(n, 3),
        normal=points.normal.clone(),
        gloss=torch.full((n,), 0.2),
        sharpness=torch.full((n,), 14.0),
        hairy=torch.zeros(n),
        fleshy=torch.zeros(n),
    )
    skin = (points.part == _PART["skin"]) | (points.part == _PART["lips"])
    _skin(made, points, skin, wardrobe)
    _grown(made, points, skin, wardrobe)
    _curtain(made, points, points.part == _PART["curtain"], wardrobe)
    inside = points.part == _PART["mouth"]
    made.colour[inside] = torch.tensor([0.30, 0.085, 0.075])
    made.gloss[inside] = 0.3
    _teeth(made, points)
    for side, part in enumerate(("left_eye", "right_eye")):
        _eye(made, points, points.part == _PART[part], wardrobe, side)
    _cloth(made, points, wardrobe)
    return made


def _skin(made: Materials, points: Fragments, where: Bool[Tensor, "n"], wardrobe: Wardrobe) -> None:
    """Texture and relief: n' = n - h_u e_u - h_v e_v in the frame of the cylinder."""
    place = wardrobe.atlas.unroll(points.reference[where])
    layers = wardrobe.atlas.sample(wardrobe.skin, place)
    normal = points.normal[where]
    along_u = normalize(torch.linalg.cross(wardrobe.up.expand_as(normal), normal), dim=1)
    along_v = torch.linalg.cross(normal, along_u)
    bent = normal - layers[:, 3:4] * along_u - layers[:, 4:5] * along_v
    red = points.ears[where][:, None]
    made.colour[where] = layers[:, :3] * (1 - red * (1 - torch.tensor([1.0, 0.82, 0.80])))
    made.normal[where] = normalize(bent, dim=1)
    made.gloss[where] = layers[:, 5]
    made.sharpness[where] = 18.0
    made.fleshy[where] = 1.0


def _grown(made: Materials, points: Fragments, where: Bool[Tensor, "n"], wardrobe: Wardrobe) -> None:
    """Hair over the scalp, ragged at its line; a shaved head shows it as a shadow."""
    rows = torch.nonzero(where & (points.reference[:, 1] > -60)).flatten()
    reference = points.reference[rows]
    azimuth, elevation = wardrobe.hair.polar(reference)
    above = wardrobe.hair.above_line(reference, azimuth)
    layers = wardrobe.hair.lookup(azimuth, elevation)
    soft = 6.0 + 0.25 * wardrobe.look.hair_thickness
    edge = above + 0.22 * soft * layers[:, 1] + 0.18 * soft * layers[:, 0]
    cover = smooth_step(edge, -0.4 * soft, 0.9 * soft) * (1 - points.ears[rows])
    if wardrobe.look.hair_style == "bald":
        cover = 0.35 * cover
    _blend_hair(made, rows, cover, layers, wardrobe)


def _curtain(made: Materials, points: Fragments, where: Bool[Tensor, "n"], wardrobe: Wardrobe) -> None:
    rows = torch.nonzero(where).flatten()
    azimuth = torch.pi + points.reference[rows, 0] * (torch.pi - 1.6)
    azimuth = torch.atan2(torch.sin(azimuth), torch.cos(azimuth))
    layers = wardrobe.hair.lookup(azimuth, 0.5 - 1.6 * points.reference[rows, 1])
    _blend_hair(made, rows, torch.ones(len(rows)), layers, wardrobe)


def _blend_hair(made: Materials, rows: Tensor, cover: Tensor, layers: Tensor, wardrobe: Wardrobe) -> None:
    shade_level = (1 + 0.45 * layers[:, 0]).clamp(0.25, 2.2)[:, None]
    colour = torch.tensor(wardrobe.look.hair) * shade_level
    cover_ = cover[:, None]
    made.colour[rows] = made.colour[rows] * (1 - cover_) + cover_ * colour
    made.hairy[rows] = cover
    made.fleshy[rows] *= 1 - cover
    made.gloss[rows] = made.gloss[rows] * (1 - cover) + cover * (0.25 * (1 + 0.5 * layers[:, 0])).clamp_min(0)


def _teeth(made: Materials, points: Fragments) -> None:
    where = points.part == _PART["teeth"]
    across = points.reference[where, 0]
    gaps = 0.85 + 0.15 * torch.cos(across * 0.85).abs().clamp_min(0.2)
    made.colour[where] = gaps[:, None] * torch.tensor([0.62, 0.56, 0.46])
    made.gloss[where] = 0.6
    made.sharpness[where] = 40.0


def _eye(made: Materials, points: Fragments, where: Bool[Tensor, "n"], wardrobe: Wardrobe, side: int) -> None:
    """Sclera, iris with its dark rim and fibres, pupil; the wet surface mirrors the key light sharply."""
    if not bool(where.any()):
        return
    direction = normalize(points.reference[where] - wardrobe.eye_centres[side], dim=1)
    cosine = (direction @ wardrobe.gaze[side]).clamp(-1, 1)
    angle = torch.acos(cosine)
    turn = torch.atan2(direction[:, 1] - wardrobe.gaze[side, 1], direction[:, 0] - wardrobe.gaze[side, 0])
    fibres = 1 + 0.25 * torch.sin(turn * 23 + 3 * torch.sin(turn * 5)) * smooth_step(angle, 0.15, 0.3)
    iris = torch.tensor(wardrobe.look.iris) * fibres[:, None] * (1.2 - 0.5 * smooth_step(angle, 0.30, 0.46))[:, None]
    sclera = torch.tensor([0.62, 0.56, 0.53]) * (1 - 0.25 * smooth_step(angle, 0.6, 1.3))[:, None]
    ring = smooth_step(angle, 0.44, 0.51)[:, None]
    colour = iris * (1 - ring) + sclera * ring
    pupil = smooth_step(angle, 0.20, 0.16)[:, None]
    made.colour[where] = colour * (1 - 0.97 * pupil)
    made.gloss[where] = 1.6
    made.sharpness[where] = 220.0


def _cloth(made: Materials, points: Fragments, wardrobe: Wardrobe) -> None:
    """Everything below a collar line that dips at the throat."""
    look, reference = wardrobe.look, points.reference
    body = (points.part == _PART["skin"]) | (points.part == _PART["cloth"])
    collar = -128.0 + look.collar - 24.0 * torch.exp(-((reference[:, 0] / 38.0) ** 2)) * (reference[:, 2] > -60).float()
    collar = collar + 18.0 * smooth_step(reference[:, 2], -70.0, -120.0)
    where = body & (reference[:, 1] < collar)
    place = reference[where]
    pattern = (torch.sin(0.28 * place[:, 0] + 0.1 * place[:, 1]) * 0.5 + 0.5) * look.stripes
    folds = 1 + 0.12 * torch.sin(0.11 * place[:, 0] + 0.05 * place[:, 1] + 1.3 * torch.sin(0.06 * place[:, 1]))
    first, second = torch.tensor(look.cloth), torch.tensor(look.cloth_second)
    edge = smooth_step(collar[where] - place[:, 1], 6.0, 4.0)[:, None]
    colour = first * (1 - pattern[:, None]) + second * pattern[:, None]
    made.colour[where] = (colour * (1 - 0.35 * edge)) * folds[:, None]
    made.gloss[where] = 0.05
    made.fleshy[where] = 0.0
    made.hairy[where] = 0.0


def shade(points: Fragments, made: Materials, light: Light, up: Float[Tensor, "3"]) -> Float[Tensor, "n 3"]:
    """Radiance towards the viewer.

    Diffuse: occluded harmonics plus the key light, which wraps further around flesh in red than in blue (light that
    travels under the skin). Gloss: Blinn-Phong of the key, and the mirrored surroundings with Schlick's Fresnel term.
    Hair: Kajiya-Kay along the strands, which run down from the crown.
    """
    view = torch.tensor([0.0, 0.0, 1.0])
    closed = points.occlusion[:, None]
    # light bounces between reddish folds: occlusion is weaker in red
    shut = torch.cat([closed, closed**1.2, closed**1.25], dim=1)
    facing = (made.normal @ light.key)[:, None]
    wrap = made.fleshy[:, None] * torch.tensor([0.22, 0.09, 0.06]) + 0.02
    lit = ((facing + wrap) / (1 + wrap)).clamp_min(0) * points.shadow[:, None]
    diffuse = made.colour * (light.ambient(made.normal) * shut + light.key_colour * lit)
    half = normalize(light.key + view, dim=0)
    lobe = (made.normal @ half).clamp_min(0) ** made.sharpness
    broad = 0.035 * (made.sharpness + 8) / 25.0 * made.gloss * lobe * points.shadow * (facing[:, 0] > 0).float()
    fresnel = 0.04 + 0.5 * (1 - made.normal[:, 2].clamp(0, 1)) ** 5
    mirror = 2 * made.normal[:, 2:3] * made.normal - view
    wet = (0.5 * made.gloss * fresnel * points.occlusion)[:, None] * light.reflected(mirror)
    plain = diffuse + broad[:, None] * light.key_colour + wet
    return plain + _hair_sheen(points, made, light, up, half)


def _hair_sheen(points: Fragments, made: Materials, light: Light, up: Tensor, half: Tensor) -> Tensor:
    """Highlight across the strands: (1 - (t . h)^2)^(p / 2)."""
    sheen = torch.zeros(len(points.part), 3)
    rows = torch.nonzero(made.hairy > 0.05).flatten()
    normal = points.normal[rows]
    strand = normalize(normal * (normal @ up)[:, None] - up, dim=1)
    level = (1 - (strand @ half) ** 2).clamp_min(0) ** 18 * made.gloss[rows] * made.hairy[rows]
    front = points.shadow[rows] * (normal @ light.key).clamp_min(0)
    sheen[rows] = (0.16 * level * front)[:, None] * light.key_colour * (0.4 + 2.0 * made.colour[rows])
    return sheen
