"""Light that each visible point sends to the viewer. Linear RGB, planar tables [3, points]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.synthetic.procedural import unit
from facerecon_torch.synthetic.render.lighting import Light
from facerecon_torch.synthetic.render.materials import Fragments, Materials

__all__ = ["shade", "surroundings"]

_VIEW = torch.tensor([0.0, 0.0, 1.0])
_WRAP = torch.tensor([[0.22], [0.09], [0.06]])  # how far the key light travels under the skin
_RELIEF = 0.6  # how much of the relief shows in the light of the surroundings


def surroundings(
    normals: Float[Tensor, "v 3"], occlusion: Float[Tensor, "v"], light: Light
) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "v 3"]]:
    """Occluded ambient light and Fresnel-weighted mirrored surroundings at unit vertex normals (viewer's frame).

    Occlusion is stronger in green and blue: light bounces between reddish folds. Fresnel's term is Schlick's.
    """
    closed = occlusion[:, None]
    ambient = light.ambient(normals) * torch.cat([closed, closed**1.2, closed**1.25], dim=1)
    facing = normals[:, 2].clamp(0, 1)
    fresnel = 0.04 + 0.5 * (1 - facing) ** 5
    mirrored = light.reflected(2 * normals[:, 2:] * normals - _VIEW)
    return ambient, (0.5 * fresnel * occlusion)[:, None] * mirrored


def shade(points: Fragments, made: Materials, light: Light, up: Float[Tensor, "3"]) -> Float[Tensor, "3 n"]:
    """Radiance towards the viewer.

    Diffuse: the surroundings, and the key light, which wraps further around flesh in red than in blue. Gloss:
    Blinn-Phong of the key and the mirrored surroundings. Hair: Kajiya-Kay along strands that run down from the crown.
    """
    facing = light.key @ made.normal
    wrap = made.fleshy * _WRAP + 0.02
    lit = ((facing + wrap) / (1 + wrap)).clamp_min(0) * points.shadow
    relief = 1 + _RELIEF * (made.normal[1] - points.normal[1])
    key = light.key_colour[:, None]
    radiance = made.colour * (points.ambient * relief + key * lit)
    half = normalize(light.key + _VIEW, dim=0)
    lobe = (half @ made.normal).clamp_min(1e-6).log().mul(made.sharpness).exp()
    level = (0.035 / 25.0) * (made.sharpness + 8) * made.gloss * lobe * points.shadow * (facing > 0)
    radiance += level * key + made.gloss * points.mirrored
    _add_hair_sheen(radiance, points, made, light, up=up, half=half)
    return radiance


def _add_hair_sheen(
    radiance: Tensor, points: Fragments, made: Materials, light: Light, *, up: Tensor, half: Tensor
) -> None:
    """Highlight across the strands: (1 - (t . h)^2)^(p / 2)."""
    rows = (made.hairy > 0.05).nonzero()[:, 0]
    normal = points.normal[:, rows]
    strand = unit(normal * (up @ normal) - up[:, None])
    level = (1 - (half @ strand) ** 2).clamp_min(0) ** 18 * made.gloss[rows] * made.hairy[rows]
    front = points.shadow[rows] * (light.key @ normal).clamp_min(0)
    tint = light.key_colour[:, None] * (0.4 + 2.0 * made.colour[:, rows])
    radiance[:, rows] += (0.16 * level * front) * tint
