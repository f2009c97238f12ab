"""Skin texture during painting, and smooth curves on it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.synthetic.skin.atlas import Atlas

__all__ = ["Canvas", "closed_curve", "open_curve"]


@dataclass
class Canvas:
    """Texture during painting: colour (linear RGB), relief (height in mm) and gloss."""

    atlas: Atlas
    marks: Float[Tensor, "68 2"]  # unrolled iBUG points, mm
    u: Float[Tensor, "height width"]
    v: Float[Tensor, "height width"]
    colour: Float[Tensor, "3 height width"]
    relief: Float[Tensor, "height width"]
    gloss: Float[Tensor, "height width"]

    def tint(self, strength: Tensor, factor: tuple[float, float, float]) -> None:
        """Multiply the colour by `factor` where `strength` is 1."""
        self.colour = self.colour * (1 + strength * (torch.tensor(factor)[:, None, None] - 1))

    def cover(self, strength: Tensor, colour: tuple[float, float, float]) -> None:
        """Paint `colour` over the skin with opacity `strength`."""
        strength = strength.clamp(0, 1)
        self.colour = self.colour * (1 - strength) + strength * torch.tensor(colour)[:, None, None]

    def spot(self, centre: Tensor, width: float, height: float) -> Tensor:
        """A Gaussian bump of the given half-axes in mm."""
        across, down = (self.u[0] - centre[0]) / width, (self.v[:, 0] - centre[1]) / height
        return torch.exp(-(down**2))[:, None] * torch.exp(-(across**2))

    def pixels(self, points: Tensor) -> Tensor:
        """Texture pixels of unrolled points (mm)."""
        return self.atlas.to_pixels(points)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the texture."""
        return self.atlas.height, self.atlas.width


def closed_curve(points: Tensor, steps: int = 6) -> Tensor:
    """A Catmull-Rom curve through a ring of points."""
    before, after, beyond = points.roll(1, 0), points.roll(-1, 0), points.roll(-2, 0)
    t = (torch.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[:, None] for p in (before, points, after, beyond))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2)


def open_curve(points: Tensor) -> Tensor:
    """A Catmull-Rom curve through points, with end tangents along the chords."""
    padded = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    ring = closed_curve(padded)
    return ring[6 : 6 * len(points) + 1]
