"""Material of every visible point: skin, hair, eyes, teeth, mouth, clothing. Reflectance is linear RGB.

Tables of visible points are planar, [channels, points], on which torch is several times faster than on [points, 3].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.canvas import Atlas
from facerecon_torch.synthetic.people.hair import Hair
from facerecon_torch.synthetic.people.head import PARTS
from facerecon_torch.synthetic.procedural import smooth_step, unit

__all__ = ["Fragments", "MaterialSources", "Materials", "assign_materials"]

_PART = {name: i for i, name in enumerate(PARTS)}
_MOUTH = (0.30, 0.085, 0.075)
_TEETH = (0.62, 0.56, 0.46)
_TOOTH_EDGES = (0.0, 8.4, 14.4, 18.6, 20.6)  # mm from the middle: incisors, canine, premolars, seen from the front
_SCLERA = (0.62, 0.56, 0.53)


@dataclass(frozen=True)
class Fragments:
    """Visible points of one image.

    `normal` is the unit normal towards the viewer, in the viewer's frame; `ambient` the occluded light of the
    surroundings; `mirrored` their mirror reflection.
    """

    part: Int[Tensor, "n"]
    reference: Float[Tensor, "3 n"]
    normal: Float[Tensor, "3 n"]
    ambient: Float[Tensor, "3 n"]
    mirrored: Float[Tensor, "3 n"]
    shadow: Float[Tensor, "n"]
    ears: Float[Tensor, "n"]

    def rows(self, *parts: str) -> Int[Tensor, "m"]:
        """The indices of the points on the named parts."""
        hit = self.part == _PART[parts[0]]
        for name in parts[1:]:
            hit |= self.part == _PART[name]
        return hit.nonzero()[:, 0]


@dataclass(frozen=True)
class Materials:
    """Materials of points, filled in place part by part.

    `sharpness` is the highlight's exponent; `hairy` and `fleshy` are the shares of hair and skin.
    """

    colour: Float[Tensor, "3 n"]
    normal: Float[Tensor, "3 n"]
    gloss: Float[Tensor, "n"]
    sharpness: Float[Tensor, "n"]
    hairy: Float[Tensor, "n"]
    fleshy: Float[Tensor, "n"]


@dataclass(frozen=True)
class MaterialSources:
    """Textures and parameters of one subject's materials.

    `up` is the head's +y in the viewer's frame; `gaze` is in the reference frame.
    """

    look: Appearance
    atlas: Atlas
    skin: Float[Tensor, "layers height width"]
    hair: Hair
    eye_centres: Float[Tensor, "2 3"]
    gaze: Float[Tensor, "2 3"]
    up: Float[Tensor, "3"]


def assign_materials(points: Fragments, sources: MaterialSources) -> Materials:
    """The materials of all points."""
    n = len(points.part)
    materials = Materials(
        colour=torch.zeros(3, n),
        normal=points.normal.clone(),
        gloss=torch.full((n,), 0.2),
        sharpness=torch.full((n,), 18.0),
        hairy=torch.zeros(n),
        fleshy=torch.zeros(n),
    )
    body = points.rows("skin", "lips")
    clothed = _cloth(materials, points, body, sources)
    _skin(materials, points, body[~clothed], sources)
    _scalp_hair(materials, points, body[~clothed], sources)
    _curtain(materials, points, sources)
    inside = points.rows("mouth")
    materials.colour[:, inside] = torch.tensor(_MOUTH)[:, None]
    materials.gloss[inside] = 0.3
    _teeth(materials, points, sources.look.tooth_gaps)
    for side, part in enumerate(("left_eye", "right_eye")):
        _eye(materials, points, points.rows(part), sources, side)
    return materials


def _skin(materials: Materials, points: Fragments, rows: Int[Tensor, "m"], sources: MaterialSources) -> None:
    """Fill in skin texture and relief: n' = n - h_u e_u - h_v e_v in the frame of the cylinder."""
    layers = sources.atlas.sample(sources.skin, sources.atlas.unroll(points.reference[:, rows].T)).T
    normal = points.normal[:, rows]
    x, y, z = normal
    up_x, up_y, up_z = sources.up.tolist()
    along_u = unit(torch.stack([up_y * z - up_z * y, up_z * x - up_x * z, up_x * y - up_y * x]))
    along_v = torch.linalg.cross(normal, along_u, dim=0)
    materials.normal[:, rows] = unit(normal - layers[3] * along_u - layers[4] * along_v)
    materials.colour[:, rows] = layers[:3] * (1 - points.ears[rows] * torch.tensor([[0.0], [0.18], [0.20]]))
    materials.gloss[rows] = layers[5]
    materials.fleshy[rows] = 1.0


def _scalp_hair(materials: Materials, points: Fragments, body: Int[Tensor, "m"], sources: MaterialSources) -> None:
    """Blend hair over the scalp, with a ragged hairline; on a bald head it is a faint shade."""
    look, hair = sources.look, sources.hair
    soft = 6.0 + 0.25 * look.hair_thickness
    height = points.reference[1, body]
    # on the front of the face, only the strip that the hairline can reach
    near = (height > float(hair.line.min()) - 3 * soft) & ((points.reference[2, body] < -20) | (height > 30))
    rows = body[near]
    reference = points.reference[:, rows].T
    azimuth, elevation = hair.polar(reference)
    layers = hair.sample_strands(azimuth, elevation)
    edge = hair.above_line(reference, azimuth) + soft * (0.22 * layers[:, 1] + 0.18 * layers[:, 0])
    cover = smooth_step(edge, -0.4 * soft, 0.9 * soft) * (1 - points.ears[rows])
    if look.hair_style == "bald":
        cover = 0.35 * cover
    _blend_hair(materials, rows, cover, layers[:, 0], look)


def _curtain(materials: Materials, points: Fragments, sources: MaterialSources) -> None:
    rows = points.rows("curtain")
    azimuth = torch.pi + points.reference[0, rows] * (torch.pi - 1.6)
    azimuth = torch.atan2(torch.sin(azimuth), torch.cos(azimuth))
    layers = sources.hair.sample_strands(azimuth, 0.5 - 1.6 * points.reference[1, rows])
    _blend_hair(materials, rows, torch.ones(len(rows)), layers[:, 0], sources.look)


def _blend_hair(materials: Materials, rows: Tensor, cover: Tensor, strands: Tensor, look: Appearance) -> None:
    colour = torch.tensor(look.hair)[:, None] * (1 + 0.45 * strands).clamp(0.25, 2.2)
    materials.colour[:, rows] = materials.colour[:, rows].lerp(colour, cover.expand(3, -1))
    materials.gloss[rows] = materials.gloss[rows].lerp((0.25 + 0.12 * strands).clamp_min(0), cover)
    materials.hairy[rows] = cover
    materials.fleshy[rows] *= 1 - cover


def _teeth(materials: Materials, points: Fragments, gaps: float) -> None:
    """Fill in enamel, darker by `gaps` between neighbouring teeth."""
    rows = points.rows("teeth")
    x = points.reference[0, rows]
    level = 0.85 + 0.15 * torch.cos(x * 0.85).abs().clamp_min(0.2)
    if gaps > 0:
        apart = (x.abs()[:, None] - torch.tensor(_TOOTH_EDGES)).abs().amin(1)
        level = level * (1 - gaps * smooth_step(apart, 0.9, 0.2))
    materials.colour[:, rows] = level * torch.tensor(_TEETH)[:, None]
    materials.gloss[rows] = 0.6
    materials.sharpness[rows] = 40.0


def _eye(materials: Materials, points: Fragments, rows: Int[Tensor, "m"], sources: MaterialSources, side: int) -> None:
    """Fill in sclera, pupil, and iris with a dark rim and fibres; the wet surface has a sharp highlight."""
    gaze = sources.gaze[side]
    direction = unit(points.reference[:, rows] - sources.eye_centres[side][:, None])
    angle = torch.acos((gaze @ direction).clamp(-1, 1))
    turn = torch.atan2(direction[1] - gaze[1], direction[0] - gaze[0])
    fibres = 1 + 0.25 * torch.sin(turn * 23 + 3 * torch.sin(turn * 5)) * smooth_step(angle, 0.15, 0.3)
    iris = torch.tensor(sources.look.iris)[:, None] * fibres * (1.2 - 0.5 * smooth_step(angle, 0.30, 0.46))
    sclera = torch.tensor(_SCLERA)[:, None] * (1 - 0.25 * smooth_step(angle, 0.6, 1.3))
    colour = iris.lerp(sclera, smooth_step(angle, 0.44, 0.51).expand(3, -1))
    materials.colour[:, rows] = colour * (1 - 0.97 * smooth_step(angle, 0.20, 0.16))
    materials.gloss[rows] = 1.6
    materials.sharpness[rows] = 220.0


def _cloth(materials: Materials, points: Fragments, body: Int[Tensor, "m"], sources: MaterialSources) -> Tensor:
    """The mask of the body points under clothing, below a collar line that dips at the throat; fills them in."""
    look = sources.look
    x, y, z = points.reference[:, body]
    dip = torch.exp(-((x / 38.0) ** 2)) * (z > -60)
    collar = look.collar - 128.0 - 24.0 * dip + 18.0 * smooth_step(z, -70.0, -120.0)
    clothed: Tensor = y < collar
    x, y, collar, rows = x[clothed], y[clothed], collar[clothed], body[clothed]
    pattern = (torch.sin(0.28 * x + 0.1 * y) * 0.5 + 0.5) * look.stripes
    folds = 1 + 0.12 * torch.sin(0.11 * x + 0.05 * y + 1.3 * torch.sin(0.06 * y))
    hem = 1 - 0.35 * smooth_step(collar - y, 6.0, 4.0)
    first, second = torch.tensor(look.cloth)[:, None], torch.tensor(look.cloth_second)[:, None]
    materials.colour[:, rows] = (first + pattern * (second - first)) * folds * hem
    materials.gloss[rows] = 0.05
    return clothed
