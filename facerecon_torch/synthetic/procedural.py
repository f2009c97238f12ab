"""Smooth random fields, smooth steps and random numbers for textures and backgrounds."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["clipped_normal", "fractal_field", "smooth_field", "smooth_step", "uniform", "unit"]


def unit(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Vectors (one per column) scaled to length 1; zero stays zero. Several times faster than `normalize(dim=0)`."""
    x, y, z = vectors
    scaled: Tensor = vectors * (x * x + y * y + z * z).clamp_min(1e-24).rsqrt()
    return scaled


def smooth_step(value: Tensor, low: float, high: float) -> Tensor:
    """A cubic ramp from 0 at `low` to 1 at `high`; `low > high` gives the falling ramp."""
    ramp: Tensor = ((value - low) / (high - low)).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def smooth_field(
    height: int, width: int, cells_y: float | int, cells_x: float | int, generator: torch.Generator
) -> Float[Tensor, "height width"]:
    """A random field of about unit standard deviation with features `1 / cells` of the side long."""
    rows, columns = max(2, round(cells_y)) + 1, max(2, round(cells_x)) + 1
    grid = torch.randn(1, 1, rows, columns, generator=generator)
    field: Tensor = interpolate(grid, (height, width), mode="bicubic", align_corners=True)[0, 0] * 1.3
    return field


def fractal_field(
    height: int, width: int, cells: float | int, octaves: int, generator: torch.Generator, *, fall: float = 0.55
) -> Float[Tensor, "height width"]:
    """The sum of `octaves` smooth fields, each of twice the detail and `fall` times the amplitude; unit deviation."""
    total = torch.zeros(height, width)
    energy: float = 0.0
    weight: float = 1.0
    for octave in range(octaves):
        fine = cells * 2**octave
        total += weight * smooth_field(height, width, fine * height / width, fine, generator)
        energy += weight**2
        weight *= fall
    return total.mul_(energy**-0.5)


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A uniform random number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def clipped_normal(generator: torch.Generator, mean: float, deviation: float, low: float, high: float) -> float:
    """A normal random number, clipped to [low, high]."""
    return min(high, max(low, mean + deviation * float(torch.randn((), generator=generator))))
