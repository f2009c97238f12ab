"""Skin painting: brows, stubble and beard."""

import torch
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.canvas import Canvas, blur, fill, open_curve, strokes
from facerecon_torch.synthetic.procedural import fractal_field, smooth_field, smooth_step

__all__ = ["paint_beard", "paint_brows", "paint_stubble"]


def paint_brows(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint single hairs along the five brow points, upright at the nose and flat towards the temple."""
    shade = torch.zeros(canvas.shape)
    hairs = torch.zeros(canvas.shape)
    for inner_first, points in ((False, canvas.marks[17:22]), (True, canvas.marks[22:27])):
        path = points if inner_first else points.flip(0)
        outward = 1.0 if inner_first else -1.0
        lines, spine, half = _brow_hairs(path, outward, look, generator)
        hairs = torch.maximum(hairs, strokes(canvas.shape, canvas.pixels(lines.reshape(-1, 2)).reshape(lines.shape)))
        ring = torch.cat([spine + half, (spine - half).flip(0)])
        shade = torch.maximum(shade, fill(canvas.shape, canvas.pixels(ring)))
    soft = blur(shade, 0.8 * canvas.atlas.px_per_mm)
    canvas.cover(soft * (0.30 + 0.30 * look.brow_density), _mix(look.brow_hair, look.skin, 0.25))
    canvas.cover(hairs * (0.55 + 0.4 * look.brow_density), look.brow_hair)
    canvas.relief = canvas.relief + 0.25 * soft + 0.10 * hairs
    canvas.gloss = canvas.gloss * (1 - 0.8 * soft)


def _mix(
    first: tuple[float, float, float], second: tuple[float, float, float], share: float
) -> tuple[float, float, float]:
    a, b, c = ((1 - share) * p + share * q for p, q in zip(first, second))
    return a, b, c


def _brow_hairs(
    path: Tensor, outward: float, look: Appearance, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    spine = open_curve(path)
    along = torch.linspace(0, 1, len(spine))
    profile = (0.72 + 0.5 * along - 1.05 * along**2 * 0.95).clamp_min(0.1)
    half = torch.stack([torch.zeros_like(along), 0.5 * look.brow_thickness * profile], dim=1)
    spine = spine + torch.tensor([0.0, look.brow_lift + 0.5])
    count = int(260 * look.brow_density + 60)
    at = torch.rand(count, generator=generator) * (len(spine) - 1.001)
    low, part = at.long(), (at - at.long())[:, None]
    centre = spine[low] * (1 - part) + spine[low + 1] * part
    width = half[low] * (1 - part) + half[low + 1] * part
    across = 2 * torch.rand(count, 1, generator=generator) - 1
    root = centre + across * width * 0.95
    share = (at / (len(spine) - 1))[:, None]
    angle = 1.25 - 1.25 * share.sqrt() - 0.55 * across * share + 0.2 * torch.randn(count, 1, generator=generator)
    length = look.brow_thickness * (0.45 + 0.35 * torch.rand(count, 1, generator=generator))
    bend = torch.cat([outward * angle.cos(), angle.sin()], dim=1) * length
    tip = root + bend - torch.tensor([0.0, 0.25]) * length
    return torch.stack([root, root + 0.55 * bend, tip], dim=1), spine, half


def paint_stubble(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint the blue-grey shade of shaved hair on jaw and upper lip, with dark dots."""
    if look.stubble <= 0.02:
        return
    area = _beard_area(canvas, moustache=1.0, chin=1.0)
    dots = smooth_step(smooth_field(*canvas.shape, canvas.shape[0] / 2.2, canvas.shape[1] / 2.2, generator), 0.3, 1.4)
    canvas.tint(area * look.stubble * (0.35 + 0.65 * dots), (0.46, 0.47, 0.52))


def paint_beard(canvas: Canvas, look: Appearance, generator: torch.Generator) -> None:
    """Paint hair on jaw, chin and upper lip as a dense cover with strand noise."""
    if max(look.beard, look.moustache) <= 0:
        return
    area = _beard_area(canvas, moustache=look.moustache, chin=look.beard)
    strand = smooth_field(*canvas.shape, canvas.shape[0] / 12, canvas.shape[1] / 2.2, generator)
    patchy = fractal_field(*canvas.shape, 25, 2, generator)
    cover = (area * (1.12 + 0.13 * patchy) - 0.1).clamp(0, 1)
    level = (1 + 0.35 * strand).clamp(0.3, 2.0)
    keep = 1 - (cover * 0.93).clamp(0, 1)
    canvas.colour = canvas.colour * keep + (1 - keep) * level * torch.tensor(look.brow_hair)[:, None, None]
    canvas.relief = canvas.relief + cover * (0.6 + 0.22 * strand)
    canvas.gloss = canvas.gloss * (1 - 0.7 * cover)


def _beard_area(canvas: Canvas, moustache: float, chin: float) -> Tensor:
    """The area of a beard: below a line from the sideburn past the mouth corner, without the lips."""
    marks = canvas.marks
    side = torch.stack(
        [
            marks[0] + torch.tensor([4.0, 8.0]),
            marks[2] + torch.tensor([16.0, 6.0]),
            marks[48] + torch.tensor([-10.0, -3.0]),
        ]
    )
    lower = torch.stack([marks[57] - torch.tensor([0.0, 2.0]), marks[54] + torch.tensor([10.0, -3.0])])
    other = torch.stack([marks[14] + torch.tensor([-16.0, 6.0]), marks[16] + torch.tensor([-4.0, 8.0])])
    low = torch.tensor([[112.0, 0.0], [116.0, -99.0], [-116.0, -99.0], [-112.0, 0.0]])
    bottom = low + torch.tensor([[0.0, 1.0]]) * (
        marks[[14, 14, 2, 2]] * torch.tensor([[0.0, 1.0]]) - 12.0
    ) * torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    jaw = fill(canvas.shape, canvas.pixels(torch.cat([side, lower, other, bottom])))
    lip = fill(
        canvas.shape,
        canvas.pixels(
            torch.cat(
                [
                    marks[[48]] + torch.tensor([[-8.0, -5.0]]),
                    marks[[31]] + torch.tensor([[-3.0, -2.0]]),
                    marks[[33]] - torch.tensor([[0.0, 1.0]]),
                    marks[[35]] + torch.tensor([[3.0, -2.0]]),
                    marks[[54]] + torch.tensor([[8.0, -5.0]]),
                    marks[[51]] + torch.tensor([[0.0, -1.0]]),
                ]
            )
        ),
    )
    soft = 2.2 * canvas.atlas.px_per_mm
    neck = smooth_step(canvas.v, canvas.atlas.v_low + 1.0, canvas.atlas.v_low + 16.0)
    return (chin * neck * blur(jaw, soft) + moustache * blur(lip, 0.6 * soft)).clamp(0, 1)
