"""Skin texture of one subject: complexion, freckles, wrinkles, make-up, lips and lids, over the hair of the face.

Layers: 0-2 linear RGB reflectance, 3-4 relief slope along u and v (mm per mm), 5 gloss.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.canvas import (
    Atlas,
    Canvas,
    blur,
    closed_curve,
    fill,
    open_curve,
    polyline,
    strokes,
)
from facerecon_torch.synthetic.people.hair import paint_beard, paint_brows, paint_stubble
from facerecon_torch.synthetic.procedural import fractal_field, smooth_field, smooth_step

__all__ = ["paint_skin"]

_EYES = (list(range(36, 42)), list(range(42, 48)))


def paint_skin(
    atlas: Atlas, marks: Float[Tensor, "68 2"], look: Appearance, generator: torch.Generator
) -> Float[Tensor, "layers height width"]:
    """The texture layers of one subject."""
    u, v = atlas.grid()
    base = torch.tensor(look.skin)[:, None, None].expand(3, *u.shape).clone()
    canvas = Canvas(atlas, marks, u, v, base, torch.zeros_like(u), torch.full_like(u, 0.5 * look.gloss))
    _paint_complexion(canvas, look, generator)
    _paint_detail(canvas, look, generator)
    _paint_freckles(canvas, look, generator)
    _paint_wrinkles(canvas, look, generator)
    paint_stubble(canvas, look, generator)
    _paint_make_up(canvas, look)
    _paint_lips(canvas, look, generator)
    _paint_eyelids(canvas, look, generator)
    paint_brows(canvas, look, generator)
    paint_beard(canvas, look, generator)
    return _layers(canvas)


def _layers(canvas: Canvas) -> Tensor:
    slope_v, slope_u = torch.gradient(canvas.relief, spacing=1 / canvas.atlas.px_per_mm)
    stack = [canvas.colour.clamp(0.002, 0.95), slope_u[None], -slope_v[None], canvas.gloss[None].clamp_min(0)]
    return torch.cat(stack).contiguous()


def _paint_complexion(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint redness of cheeks, nose and chin, blotches of three sizes, pores, and gloss in the middle of the face."""
    marks, size = canvas.marks, canvas.shape
    nose = marks[33]
    cheeks = sum(
        (canvas.spot((marks[eye] * 0.55 + marks[mouth] * 0.45), 17.0, 13.0) for eye, mouth in ((41, 48), (46, 54))),
        torch.zeros(size),
    )
    warm = (
        cheeks * 0.8 + canvas.spot(nose + torch.tensor([0.0, 5.0]), 13.0, 11.0) + 0.5 * canvas.spot(marks[8], 15.0, 9.0)
    )
    canvas.tint(warm * look.redness, (1.0, 0.83, 0.84))
    broad = fractal_field(*size, 7, 3, generator)
    fine = fractal_field(*size, 60, 3, generator)
    red = fractal_field(*size, 25, 3, generator)
    mottle = 1 + look.blotches * (0.03 * broad + 0.025 * fine)
    canvas.colour = canvas.colour * mottle
    canvas.tint((0.38 * look.blotches * red).clamp(-1, 1), (1.0, 0.91, 0.91))
    socket = sum(
        (canvas.spot(marks[eye].mean(0) - torch.tensor([0.0, 2.0]), 17.0, 11.0) for eye in _EYES),
        torch.zeros(size),
    )
    canvas.tint(socket * (0.35 + 0.4 * look.eye_bags), (0.80, 0.74, 0.77))
    pores = smooth_field(*size, size[0] / 3.0, size[1] / 3.0, generator)
    canvas.relief = canvas.relief + 0.035 * look.pores * pores + 0.05 * look.pores * fine
    canvas.gloss = canvas.gloss * (1 + 0.25 * broad).clamp_min(0.2)
    canvas.gloss = canvas.gloss * (
        0.7 + 0.6 * (canvas.spot(nose, 10.0, 16.0) + canvas.spot(marks[27] + torch.tensor([0.0, 32.0]), 30.0, 16.0))
    )


def _paint_detail(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint the bumps and specks of skin, 1 to 7 mm wide and not everywhere alike. Photographs show them all over a
    face; without them HOG sees nothing between a face's edges."""
    if max(look.bumps, look.mottle) <= 0:
        return
    size = canvas.shape
    place = (1 + 0.4 * fractal_field(*size, 5, 2, generator)).clamp(0.3, 2.0)
    canvas.relief = canvas.relief + look.bumps * place * fractal_field(*size, 90, 3, generator, fall=0.7)
    specks = look.mottle * place * fractal_field(*size, 120, 2, generator, fall=0.8)
    canvas.tint(specks.clamp(-1, 1), (0.90, 0.80, 0.78))


def _paint_freckles(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint freckles, dense over nose and cheeks, and a few moles."""
    size = canvas.shape
    speckle = smooth_step(smooth_field(*size, size[0] / 4.0, size[1] / 4.0, generator), 1.1, 2.0)
    where = canvas.spot(canvas.marks[29], 42.0, 26.0)
    canvas.tint(speckle * where * look.freckles, (0.66, 0.52, 0.42))
    for _ in range(look.moles):
        place = torch.rand(2, generator=generator) * torch.tensor([120.0, 150.0]) + torch.tensor([-60.0, -80.0])
        width = 0.5 + 0.8 * float(torch.rand((), generator=generator))
        canvas.tint(canvas.spot(place, width, width), (0.35, 0.25, 0.22))


def _paint_wrinkles(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint brow furrows, crow's feet, nasolabial and mouth folds and eye bags, with relief."""
    marks, lines = canvas.marks, []
    forehead = marks[19:25].mean(0)
    for row in range(4):
        height = 12.0 + 9.0 * row + 2.0 * torch.randn((), generator=generator)
        across = torch.linspace(-1, 1, 9)
        sway = torch.randn(9, generator=generator) * 0.7
        lines.append(torch.stack([across * (34 - 3 * row), forehead[1] + height - 4 * across**2 + sway], dim=1))
    for side, (wing, corner, chin, outer) in ((-1.0, (31, 48, 6, 36)), (1.0, (35, 54, 10, 45))):
        start = marks[wing] + torch.tensor([side * 6.0, 4.0])
        middle = (marks[wing] + marks[corner]) / 2 + torch.tensor([side * 11.0, 0.0])
        lines.append(torch.stack([start, middle, marks[corner] + torch.tensor([side * 7.0, -2.0])]))
        lines.append(
            torch.stack([marks[corner] + torch.tensor([side * 3.0, -3.0]), marks[corner] * 0.6 + marks[chin] * 0.4])
        )
        for tilt in (-0.5, 0.0, 0.5):
            foot = marks[outer] + torch.tensor([side * 5.0, 3.0 * tilt])
            lines.append(torch.stack([foot, foot + 11.0 * torch.tensor([side, tilt])]))
    mask = polyline(canvas.shape, [canvas.pixels(line) for line in lines], width=0.9 * canvas.atlas.px_per_mm)
    broken = (0.75 + 0.35 * smooth_field(*canvas.shape, 20, 25, generator)).clamp(0, 1.2)
    sharp, wide = blur(mask, 0.5 * canvas.atlas.px_per_mm), blur(mask, 1.6 * canvas.atlas.px_per_mm)
    depth = look.wrinkles * broken
    canvas.relief = canvas.relief - depth * (0.5 * sharp + 0.9 * wide)
    canvas.tint(depth * 0.5 * sharp, (0.68, 0.58, 0.56))
    crepe = smooth_field(*canvas.shape, canvas.shape[0] / 5, canvas.shape[1] / 11, generator)
    canvas.relief = canvas.relief + 0.07 * look.wrinkles * crepe
    for eye in _EYES:
        under = marks[eye].mean(0) - torch.tensor([0.0, 11.0])
        bag = canvas.spot(under, 11.0, 3.2)
        canvas.relief = canvas.relief + look.eye_bags * 0.9 * bag
        canvas.tint(look.eye_bags * 0.6 * bag, (0.82, 0.70, 0.74))


def _paint_make_up(canvas: Canvas, look: Appearance) -> None:
    """Paint eyeshadow and blush."""
    marks = canvas.marks
    for eye, brow in zip(_EYES, (19, 24)):
        middle = marks[eye].mean(0) * 0.7 + marks[brow] * 0.3
        canvas.tint(look.eyeshadow * canvas.spot(middle, 14.0, 6.0), (0.55, 0.42, 0.48))
    for corner, mouth in ((36, 48), (45, 54)):
        canvas.tint(look.blush * canvas.spot(marks[corner] * 0.5 + marks[mouth] * 0.5, 16.0, 9.0), (1.02, 0.72, 0.74))


def _paint_lips(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint the lips, darker towards the contact line, with fine vertical furrows."""
    marks, scale = canvas.marks, canvas.atlas.px_per_mm
    outline = closed_curve(marks[48:60])
    mask = blur(fill(canvas.shape, canvas.pixels(outline)), 0.55 * scale)
    furrows = smooth_field(*canvas.shape, 40, canvas.shape[1] / 3.0, generator)
    middle = marks[48:60].mean(0)
    shade = 1 - 0.18 * torch.exp(-(((canvas.v - middle[1]) / 3.0) ** 2)) + 0.04 * furrows
    canvas.colour = canvas.colour * (1 - mask) + mask * shade * torch.tensor(look.lips)[:, None, None]
    canvas.relief = canvas.relief + 0.05 * mask * furrows
    canvas.gloss = canvas.gloss * (1 - mask) + mask * (0.5 + 0.5 * look.gloss)
    seam = torch.cat([marks[[48]], marks[60:65], marks[[54]]])
    lower = torch.cat([marks[[54]], marks[64:68], marks[[60]], marks[[48]]])
    inside = fill(canvas.shape, canvas.pixels(torch.cat([seam, lower])))
    line = polyline(canvas.shape, [canvas.pixels(seam)], width=0.7 * scale)
    canvas.tint(blur(torch.maximum(inside, line), 0.45 * scale) * 0.85, (0.42, 0.30, 0.32))


def _paint_eyelids(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint lid rims, the lash line (strong above, faint below) and the crease of the upper lid."""
    marks, scale = canvas.marks, canvas.atlas.px_per_mm
    for side, eye in ((-1.0, list(range(36, 42))), (1.0, list(range(42, 48)))):
        ring = marks[eye]
        rim = blur(fill(canvas.shape, canvas.pixels(closed_curve(ring))), 0.4 * scale)
        canvas.tint(rim * 0.8, (0.72, 0.50, 0.47))
        upper, lower = ring[:4], ring[[3, 4, 5, 0]]
        outer = ring[0] if side < 0 else ring[3]
        tail = torch.stack([outer, outer + torch.tensor([side * 2.2, 0.6])])
        line = polyline(
            canvas.shape,
            [canvas.pixels(open_curve(upper)), canvas.pixels(tail)],
            width=(0.9 + 0.7 * look.eyeliner) * scale,
        )
        under = polyline(canvas.shape, [canvas.pixels(open_curve(lower))], width=0.6 * scale)
        canvas.cover(blur(line, 0.28 * scale) * (0.72 + 0.28 * look.eyeliner), (0.012, 0.009, 0.008))
        canvas.cover(blur(under, 0.35 * scale) * (0.25 + 0.5 * look.eyeliner), (0.05, 0.03, 0.026))
        lashes = _lashes(upper, outer, generator, 0.9 + 2.2 * look.eyeliner)
        canvas.cover(
            strokes(canvas.shape, canvas.pixels(lashes.reshape(-1, 2)).reshape(lashes.shape)) * 0.8,
            (0.012, 0.009, 0.008),
        )
        crease = open_curve(upper) + torch.tensor([side * 0.6, 3.6])
        fold = polyline(canvas.shape, [canvas.pixels(crease)], width=0.6 * scale)
        canvas.tint(blur(fold, 0.5 * scale) * 0.6, (0.55, 0.45, 0.44))


def _lashes(upper: Tensor, outer: Tensor, generator: torch.Generator, length: float) -> Tensor:
    curve = open_curve(upper)
    roots = curve[torch.randint(0, len(curve), (46,), generator=generator)]
    away = (outer - upper.mean(0)).sign()[0]
    lean = (roots[:, 0] - upper.mean(0)[0]) / 14.0
    tips = roots + length * torch.stack([lean + 0.1 * away, 0.9 + 0.2 * torch.randn(46, generator=generator)], dim=1)
    return torch.stack([roots, tips], dim=1)
