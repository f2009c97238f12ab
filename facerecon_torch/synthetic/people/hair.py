"""Hair of a subject: hairline, thickness, strands and long hair of the head; painted brows, stubble and beard."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.canvas import Canvas, blur, fill, open_curve, strokes
from facerecon_torch.synthetic.procedural import fractal_field, smooth_field, smooth_step, uniform

__all__ = ["Hair", "draw_hair", "paint_beard", "paint_brows", "paint_stubble", "shape_curtain"]

# Height of the hairline (mm, reference frame) over the azimuth from the middle of the forehead (degrees).
_AZIMUTH = (0.0, 25.0, 42.0, 55.0, 64.0, 70.0, 76.0, 84.0, 90.0, 100.0, 108.0, 122.0, 180.0)
_HEIGHT = (96.0, 97.0, 95.0, 82.0, 58.0, 30.0, 8.0, 22.0, 46.0, 34.0, -8.0, -42.0, -52.0)
_ROWS, _COLUMNS = 128, 720
_SKULL_HEIGHT = 40.0  # mm, height of the skull's centre


@dataclass(frozen=True, kw_only=True)
class Hair:
    """Hair of one subject. `strands` holds brightness, raggedness and lumps over elevation and azimuth of the skull."""

    look: Appearance
    line: Float[Tensor, "361"]  # mm, height of the hairline at each degree of azimuth from -180
    strands: Float[Tensor, "3 rows columns"]
    axis_depth: float

    def polar(self, reference: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
        """Azimuth and elevation about the centre of the skull, rad."""
        depth = reference[:, 2] - self.axis_depth
        azimuth = torch.atan2(reference[:, 0], depth)
        horizontal = torch.hypot(reference[:, 0], depth)
        return azimuth, torch.atan2(reference[:, 1] - _SKULL_HEIGHT, horizontal)

    def sample_strands(self, azimuth: Tensor, elevation: Tensor) -> Float[Tensor, "n 3"]:
        """The strand layers at polar coordinates."""
        where = torch.stack([azimuth / torch.pi, -elevation / (0.5 * torch.pi)], dim=1)[None, None]
        layers = torch.nn.functional.grid_sample(self.strands[None], where, padding_mode="border", align_corners=True)
        return layers[0, :, 0].mT

    def above_line(self, reference: Float[Tensor, "n 3"], azimuth: Tensor) -> Float[Tensor, "n"]:
        """The height over the hairline, mm; negative where no hair grows."""
        degree = (azimuth * (180 / torch.pi) + 180).clamp(0, 359.99)
        low = degree.long()
        part = degree - low
        return reference[:, 1] - (self.line[low] * (1 - part) + self.line[low + 1] * part)

    def thickness(self, reference: Float[Tensor, "n 3"], ears: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The distance of the hair's surface from the scalp, mm."""
        azimuth, elevation = self.polar(reference)
        above = self.above_line(reference, azimuth)
        lumps = self.sample_strands(azimuth, elevation)[:, 2]
        rise = smooth_step(above, -2.0, 22.0)
        return self.look.hair_thickness * rise * (1 + 0.22 * lumps).clamp(0.4, 1.6) * (1 - ears)


def draw_hair(look: Appearance, axis_depth: float, generator: torch.Generator) -> Hair:
    """Random hair of one subject."""
    return Hair(look=look, line=_hairline(look, generator), strands=_strands(look, generator), axis_depth=axis_depth)


def _hairline(look: Appearance, generator: torch.Generator) -> Float[Tensor, "361"]:
    degrees = torch.arange(-180, 181).float()
    around = degrees.abs()
    table, heights = torch.tensor(_AZIMUTH), torch.tensor(_HEIGHT)
    low = (torch.searchsorted(table, around, right=True) - 1).clamp(0, len(table) - 2)
    part = (around - table[low]) / (table[low + 1] - table[low])
    line = heights[low] * (1 - part) + heights[low + 1] * part
    front = smooth_step(around, 75.0, 45.0)
    line = line + front * look.hairline
    line = line + look.recession * 28.0 * front * (0.35 + torch.exp(-(((around - 38) / 16) ** 2)))
    line = line - look.fringe * 38.0 * smooth_step(around, 62.0, 38.0)
    if look.hair_style == "bald":
        line = (
            line + 400.0 if uniform(generator) < 0.6 else line.clamp_min(uniform(generator, 15.0, 45.0)) + 300.0 * front
        )
    if look.hair_style in ("short", "afro"):
        line = line + smooth_step(around, 60.0, 68.0) * smooth_step(around, 84.0, 76.0) * uniform(generator, -6.0, 22.0)
    wave = smooth_field(2, 361, 1, 24, generator)[0]
    return line + 1.2 * wave


def _strands(look: Appearance, generator: torch.Generator) -> Float[Tensor, "3 rows columns"]:
    """The strand layers: vertical streaks, broken up by curls."""
    fine = smooth_field(_ROWS, _COLUMNS, 3 + 40 * look.hair_curl, _COLUMNS / 2.5, generator)
    locks = smooth_field(_ROWS, _COLUMNS, 3 + 12 * look.hair_curl, 90, generator)
    broad = smooth_field(_ROWS, _COLUMNS, 3, 22, generator)
    ragged = smooth_field(_ROWS, _COLUMNS, 8, _COLUMNS / 3.0, generator)
    lumps = fractal_field(_ROWS, _COLUMNS, 9, 2, generator)
    stack = torch.stack([0.5 * fine + 0.35 * locks + 0.25 * broad, ragged, lumps])
    seam = torch.linspace(0, 1, 40)  # the two ends of the map meet at the back of the head
    stack[..., :40] = stack[..., :40] * seam + stack[..., -40:].flip(-1) * (1 - seam)
    return stack


def shape_curtain(
    look: Appearance, columns: Float[Tensor, "n 3"], skull: Float[Tensor, "v 3"], axis_depth: float
) -> Float[Tensor, "n 3"]:
    """The vertices of a subject's long hair, from their (azimuth share, height share) in `columns`.

    Long hair runs from the widest part of the skull over ears and neck down to the chin or the shoulders.
    """
    front = 1.75 if look.fringe == 0 else 1.5  # rad from the forehead to the curtain's edge
    azimuth = torch.pi + columns[:, 0] * (torch.pi - front)
    down = columns[:, 1]
    half_width = float(skull[:, 0].abs().amax()) + 0.35 * look.hair_thickness
    back = axis_depth - float(skull[:, 2].amin()) + 0.7 * look.hair_thickness
    top = 62.0
    bottom = -55.0 - 120.0 * look.hair_length if look.hair_style == "long" else -30.0 - 45.0 * look.hair_length
    flare = 1 + 0.10 * smooth_step(down, 0.2, 1.0) - 0.25 * (1 - smooth_step(down, -0.2, 0.35))
    x = half_width * flare * torch.sin(azimuth)
    z = axis_depth + torch.where(torch.cos(azimuth) < 0, back, half_width * 0.9) * flare * torch.cos(azimuth)
    return torch.stack([x, top + (bottom - top) * down, z], dim=1)


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
