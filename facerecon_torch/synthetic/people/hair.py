"""Hair of a subject: hairline, thickness, strand texture and the mesh of long hair."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.procedural import fractal_field, smooth_field, smooth_step, uniform

__all__ = ["Hair", "draw_hair", "shape_curtain"]

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
