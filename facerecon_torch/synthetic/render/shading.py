"""Radiance of visible points towards the viewer. Linear RGB, planar tables [3, points]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.synthetic.procedural import unit
from facerecon_torch.synthetic.render.lighting import Light
from facerecon_torch.synthetic.render.materials import Fragments, Materials

__all__ = ["shade", "surroundings"]

_VIEW = torch.tensor([0.0, 0.0, 1.0])
_WRAP = torch.tensor([[0.22], [0.09], [0.06]])  # by how much the key light reaches around skin, per colour
_RELIEF = 0.6  # strength of the relief in the light of the surroundings


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
