"""Skin texture of one subject on the cylindrical atlas.

Layers: 0-2 linear RGB reflectance, 3-4 relief slope along u and v (mm per mm), 5 gloss.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.skin.atlas import Atlas
from facerecon_torch.synthetic.skin.canvas import Canvas
from facerecon_torch.synthetic.skin.complexion import paint_complexion, paint_freckles, paint_make_up, paint_wrinkles
from facerecon_torch.synthetic.skin.facial_hair import paint_beard, paint_brows, paint_stubble
from facerecon_torch.synthetic.skin.lips_and_lids import paint_eyelids, paint_lips

__all__ = ["paint_skin"]


def paint_skin(
    atlas: Atlas, marks: Float[Tensor, "68 2"], look: Appearance, generator: torch.Generator
) -> Float[Tensor, "layers height width"]:
    """The texture layers of one subject."""
    u, v = atlas.grid()
    base = torch.tensor(look.skin)[:, None, None].expand(3, *u.shape).clone()
    canvas = Canvas(atlas, marks, u, v, base, torch.zeros_like(u), torch.full_like(u, 0.5 * look.gloss))
    paint_complexion(canvas, look, generator)
    paint_freckles(canvas, look, generator)
    paint_wrinkles(canvas, look, generator)
    paint_stubble(canvas, look, generator)
    paint_make_up(canvas, look)
    paint_lips(canvas, look, generator)
    paint_eyelids(canvas, look, generator)
    paint_brows(canvas, look, generator)
    paint_beard(canvas, look, generator)
    return _layers(canvas)


def _layers(canvas: Canvas) -> Tensor:
    slope_v, slope_u = torch.gradient(canvas.relief, spacing=1 / canvas.atlas.px_per_mm)
    stack = [canvas.colour.clamp(0.002, 0.95), slope_u[None], -slope_v[None], canvas.gloss[None].clamp_min(0)]
    return torch.cat(stack).contiguous()
