"""What every visible point is made of: skin, hair, eyes, teeth, mouth, cloth. Reflectance is linear RGB.

Tables of visible points are planar, [channels, points]: torch works on them several times faster than on [points, 3].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.hair import Hair
from facerecon_torch.synthetic.people.head import PARTS
from facerecon_torch.synthetic.procedural import smooth_step, unit
from facerecon_torch.synthetic.skin.atlas import Atlas

__all__ = ["Fragments", "Materials", "Wardrobe", "dress"]

_PART = {name: i for i, name in enumerate(PARTS)}
_MOUTH = (0.30, 0.085, 0.075)
_TEETH = (0.62, 0.56, 0.46)
_SCLERA = (0.62, 0.56, 0.53)


@dataclass(frozen=True)
class Fragments:
    """Visible points of one picture. `normal` is the unit normal in the viewer's frame, turned towards the viewer;
    `ambient` the occluded light of the surroundings, `mirrored` what a polished surface would show of them."""

    part: Int[Tensor, "n"]
    reference: Float[Tensor, "3 n"]
    normal: Float[Tensor, "3 n"]
    ambient: Float[Tensor, "3 n"]
    mirrored: Float[Tensor, "3 n"]
    shadow: Float[Tensor, "n"]
    ears: Float[Tensor, "n"]

    def rows(self, *parts: str) -> Int[Tensor, "m"]:
        """Points of the named parts."""
        hit = self.part == _PART[parts[0]]
        for name in parts[1:]:
            hit |= self.part == _PART[name]
        return hit.nonzero()[:, 0]


@dataclass(frozen=True)
class Materials:
    """Filled in place, part by part. `sharpness` is the highlight's exponent; `hairy` and `fleshy` are shares."""

    colour: Float[Tensor, "3 n"]
    normal: Float[Tensor, "3 n"]
    gloss: Float[Tensor, "n"]
    sharpness: Float[Tensor, "n"]
    hairy: Float[Tensor, "n"]
    fleshy: Float[Tensor, "n"]


@dataclass(frozen=True)
class Wardrobe:
    """What one subject's materials are looked up in; `up` is the head's +y in the viewer's frame, `gaze` is in the
    reference frame."""

    look: Appearance
    atlas: Atlas
    skin: Float[Tensor, "layers height width"]
    hair: Hair
    eye_centres: Float[Tensor, "2 3"]
    gaze: Float[Tensor, "2 3"]
    up: Float[Tensor, "3"]


def dress(points: Fragments, wardrobe: Wardrobe) -> Materials:
    """Materials of all points."""
    n = len(points.part)
    made = Materials(
        colour=torch.zeros(3, n),
        normal=points.normal.clone(),
        gloss=torch.full((n,), 0.2),
        sharpness=torch.full((n,), 18.0),
        hairy=torch.zeros(n),
        fleshy=torch.zeros(n),
    )
    body = points.rows("skin", "lips")
    clothed = _cloth(made, points, body, wardrobe)
    _skin(made, points, body[~clothed], wardrobe)
    _grown(made, points, body[~clothed], wardrobe)
    _curtain(made, points, wardrobe)
    inside = points.rows("mouth")
    made.colour[:, inside] = torch.tensor(_MOUTH)[:, None]
    made.gloss[inside] = 0.3
    _teeth(made, points)
    for side, part in enumerate(("left_eye", "right_eye")):
        _eye(made, points, points.rows(part), wardrobe, side)
    return made


def _skin(made: Materials, points: Fragments, rows: Int[Tensor, "m"], wardrobe: Wardrobe) -> None:
    """Texture and relief: n' = n - h_u e_u - h_v e_v in the frame of the cylinder."""
    layers = wardrobe.atlas.sample(wardrobe.skin, wardrobe.atlas.unroll(points.reference[:, rows].T)).T
    normal = points.normal[:, rows]
    x, y, z = normal
    up_x, up_y, up_z = wardrobe.up.tolist()
    along_u = unit(torch.stack([up_y * z - up_z * y, up_z * x - up_x * z, up_x * y - up_y * x]))
    along_v = torch.linalg.cross(normal, along_u, dim=0)
    made.normal[:, rows] = unit(normal - layers[3] * along_u - layers[4] * along_v)
    made.colour[:, rows] = layers[:3] * (1 - points.ears[rows] * torch.tensor([[0.0], [0.18], [0.20]]))
    made.gloss[rows] = layers[5]
    made.fleshy[rows] = 1.0


def _grown(made: Materials, points: Fragments, body: Int[Tensor, "m"], wardrobe: Wardrobe) -> None:
    """Hair over the scalp, ragged at its line; a shaved head shows it as a shadow."""
    look, hair = wardrobe.look, wardrobe.hair
    soft = 6.0 + 0.25 * look.hair_thickness
    height = points.reference[1, body]
    # of the face in front only the strip that the hairline can reach
    near = (height > float(hair.line.min()) - 3 * soft) & ((points.reference[2, body] < -20) | (height > 30))
    rows = body[near]
    reference = points.reference[:, rows].T
    azimuth, elevation = hair.polar(reference)
    layers = hair.lookup(azimuth, elevation)
    edge = hair.above_line(reference, azimuth) + soft * (0.22 * layers[:, 1] + 0.18 * layers[:, 0])
    cover = smooth_step(edge, -0.4 * soft, 0.9 * soft) * (1 - points.ears[rows])
    if look.hair_style == "bald":
        cover = 0.35 * cover
    _blend_hair(made, rows, cover, layers[:, 0], look)


def _curtain(made: Materials, points: Fragments, wardrobe: Wardrobe) -> None:
    rows = points.rows("curtain")
    azimuth = torch.pi + points.reference[0, rows] * (torch.pi - 1.6)
    azimuth = torch.atan2(torch.sin(azimuth), torch.cos(azimuth))
    layers = wardrobe.hair.lookup(azimuth, 0.5 - 1.6 * points.reference[1, rows])
    _blend_hair(made, rows, torch.ones(len(rows)), layers[:, 0], wardrobe.look)


def _blend_hair(made: Materials, rows: Tensor, cover: Tensor, strands: Tensor, look: Appearance) -> None:
    colour = torch.tensor(look.hair)[:, None] * (1 + 0.45 * strands).clamp(0.25, 2.2)
    made.colour[:, rows] = made.colour[:, rows].lerp(colour, cover.expand(3, -1))
    made.gloss[rows] = made.gloss[rows].lerp((0.25 + 0.12 * strands).clamp_min(0), cover)
    made.hairy[rows] = cover
    made.fleshy[rows] *= 1 - cover


def _teeth(made: Materials, points: Fragments) -> None:
    rows = points.rows("teeth")
    gaps = 0.85 + 0.15 * torch.cos(points.reference[0, rows] * 0.85).abs().clamp_min(0.2)
    made.colour[:, rows] = gaps * torch.tensor(_TEETH)[:, None]
    made.gloss[rows] = 0.6
    made.sharpness[rows] = 40.0


def _eye(made: Materials, points: Fragments, rows: Int[Tensor, "m"], wardrobe: Wardrobe, side: int) -> None:
    """Sclera, iris with its dark rim and fibres, pupil; the wet surface mirrors the key light sharply."""
    gaze = wardrobe.gaze[side]
    direction = unit(points.reference[:, rows] - wardrobe.eye_centres[side][:, None])
    angle = torch.acos((gaze @ direction).clamp(-1, 1))
    turn = torch.atan2(direction[1] - gaze[1], direction[0] - gaze[0])
    fibres = 1 + 0.25 * torch.sin(turn * 23 + 3 * torch.sin(turn * 5)) * smooth_step(angle, 0.15, 0.3)
    iris = torch.tensor(wardrobe.look.iris)[:, None] * fibres * (1.2 - 0.5 * smooth_step(angle, 0.30, 0.46))
    sclera = torch.tensor(_SCLERA)[:, None] * (1 - 0.25 * smooth_step(angle, 0.6, 1.3))
    colour = iris.lerp(sclera, smooth_step(angle, 0.44, 0.51).expand(3, -1))
    made.colour[:, rows] = colour * (1 - 0.97 * smooth_step(angle, 0.20, 0.16))
    made.gloss[rows] = 1.6
    made.sharpness[rows] = 220.0


def _cloth(made: Materials, points: Fragments, body: Int[Tensor, "m"], wardrobe: Wardrobe) -> Tensor:
    """Everything below a collar line that dips at the throat; returns which points of the body it covers."""
    look = wardrobe.look
    x, y, z = points.reference[:, body]
    dip = torch.exp(-((x / 38.0) ** 2)) * (z > -60)
    collar = look.collar - 128.0 - 24.0 * dip + 18.0 * smooth_step(z, -70.0, -120.0)
    clothed: Tensor = y < collar
    x, y, collar, rows = x[clothed], y[clothed], collar[clothed], body[clothed]
    pattern = (torch.sin(0.28 * x + 0.1 * y) * 0.5 + 0.5) * look.stripes
    folds = 1 + 0.12 * torch.sin(0.11 * x + 0.05 * y + 1.3 * torch.sin(0.06 * y))
    hem = 1 - 0.35 * smooth_step(collar - y, 6.0, 4.0)
    first, second = torch.tensor(look.cloth)[:, None], torch.tensor(look.cloth_second)[:, None]
    made.colour[:, rows] = (first + pattern * (second - first)) * folds * hem
    made.gloss[rows] = 0.05
    return clothed
