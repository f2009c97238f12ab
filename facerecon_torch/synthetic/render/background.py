"""Random backgrounds: walls, gradients, out-of-focus rooms and greenery. Linear RGB."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from facerecon_torch.synthetic.procedural import fractal_field, uniform
from facerecon_torch.synthetic.skin.strokes import blur

__all__ = ["draw_background"]

_COARSE = 96  # px, side of the image that is enlarged: backgrounds are out of focus


def draw_background(size: int, generator: torch.Generator) -> Float[Tensor, "3 size size"]:
    """A random background."""
    kind = int(torch.multinomial(torch.tensor([0.15, 0.25, 0.4, 0.2]), 1, generator=generator))
    coarse = (_wall, _gradient, _room, _foliage)[kind](generator)
    half = interpolate(coarse[None], (size // 2, size // 2), mode="bicubic", align_corners=False)
    background: Tensor = interpolate(half, (size, size), mode="bilinear", align_corners=False)[0]
    return background.clamp(0.003, 1.5)


def _colour(generator: torch.Generator, low: float, high: float) -> Tensor:
    level = uniform(generator, low, high)
    return level * (1 + (torch.rand(3, generator=generator) - 0.5) * 1.2 * uniform(generator))[:, None, None]


def _wall(generator: torch.Generator) -> Tensor:
    cloud = fractal_field(_COARSE, _COARSE, 3, 4, generator)
    return _colour(generator, 0.05, 0.8) * (1 + 0.06 * cloud)


def _gradient(generator: torch.Generator) -> Tensor:
    down = torch.linspace(0, 1, _COARSE)[:, None]
    across = torch.linspace(-1, 1, _COARSE)[None]
    mix = (down + uniform(generator, -0.5, 0.5) * across).clamp(0, 1)
    halo = torch.exp(-((across - uniform(generator, -0.5, 0.5)) ** 2 + (down - 0.4) ** 2) / 0.5)
    base = _colour(generator, 0.03, 0.7) * mix + _colour(generator, 0.03, 0.7) * (1 - mix)
    return base * (1 + uniform(generator, 0.0, 0.8) * halo)


def _room(generator: torch.Generator) -> Tensor:
    """A blurred scene of boxes, some of them as bright as windows."""
    scene = _wall(generator)
    rows, columns = torch.arange(_COARSE)[:, None], torch.arange(_COARSE)[None]
    for _ in range(int(torch.randint(6, 28, (), generator=generator))):
        centre = torch.rand(2, generator=generator) * _COARSE
        half = torch.rand(2, generator=generator) ** 2 * _COARSE * 0.4 + 1.5
        slant = uniform(generator, -0.15, 0.15)
        inside = ((rows - centre[0] + slant * (columns - centre[1])).abs() < half[0]) & (
            (columns - centre[1]).abs() < half[1]
        )
        bright = 1.4 if uniform(generator) < 0.12 else 0.6
        scene = torch.where(inside, _colour(generator, 0.02, bright), scene)
    return blur(scene, uniform(generator, 0.4, 2.5))


def _foliage(generator: torch.Generator) -> Tensor:
    fields = torch.stack([fractal_field(_COARSE, _COARSE, 8, 4, generator, fall=0.8) for _ in range(3)])
    leaf = torch.tensor([0.10, 0.16, 0.05])[:, None, None] * uniform(generator, 0.5, 3.0)
    image = leaf * torch.exp(0.8 * fields[0] + 0.15 * fields)
    return blur(image, uniform(generator, 0.3, 1.5))
