"""Skin painting: lips, lid rims, lashes and the crease of the upper lid."""

import torch
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.procedural import smooth_field
from facerecon_torch.synthetic.skin.canvas import Canvas, closed_curve, open_curve
from facerecon_torch.synthetic.skin.strokes import blur, fill, polyline, strokes

__all__ = ["paint_eyelids", "paint_lips"]


def paint_lips(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
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


def paint_eyelids(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
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
