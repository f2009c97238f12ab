"""Everything of a photograph but the head: background, exposure, tone curve, blur, noise, JPEG compression."""

import io
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from facerecon_torch.synthetic.people.canvas import blur
from facerecon_torch.synthetic.procedural import clipped_normal, fractal_field, uniform

__all__ = ["CameraSettings", "draw_background", "draw_camera_settings", "encode_jpeg", "expose"]

_COARSE = 96  # px, side of the image that is enlarged: backgrounds are out of focus
_LEVELS = 8192  # per unit of exposure; noise dithers the steps away
_SHARPENED = 1.2  # px, width of the detail that cameras sharpen
_AXIS = torch.arange(2 * _LEVELS) / _LEVELS


def draw_background(size: int, generator: torch.Generator) -> Float[Tensor, "3 size size"]:
    """A random background in linear RGB: a wall, a gradient, an out-of-focus room or greenery."""
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


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """Camera settings of one image; `blur` in px, `noise` as deviation at full scale, `sharpening` as the share of the
    fine detail that is added once more."""

    target: float  # linear level of the face's mean
    balance: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    blur: float
    noise: float
    grey: bool
    sharpening: float
    quality: int


def draw_camera_settings(generator: torch.Generator, *, shifted: bool = False) -> CameraSettings:
    """Random camera settings of one image. Cameras sharpen, but not those of the shifted family."""
    warm = clipped_normal(generator, 0.0, 0.07, -0.18, 0.18)
    return CameraSettings(
        target=uniform(generator, 0.13, 0.40),
        balance=(1 + warm, 1 + clipped_normal(generator, 0.0, 0.015, -0.04, 0.04), 1 - warm),
        gamma=clipped_normal(generator, 1.0, 0.1, 0.75, 1.3),
        contrast=clipped_normal(generator, 0.25, 0.25, -0.2, 0.8),
        saturation=clipped_normal(generator, 1.0, 0.15, 0.6, 1.4),
        blur=abs(clipped_normal(generator, 0.0, 0.8, -2.2, 2.2)),
        noise=0.004 + 0.028 * uniform(generator) ** 2,
        grey=uniform(generator) < 0.04,
        quality=int(torch.randint(45, 97, (), generator=generator)),
        sharpening=0.0 if shifted else clipped_normal(generator, 0.5, 0.35, 0.0, 1.5),
    )


def expose(
    radiance: Float[Tensor, "3 h w"], face: Float[Tensor, "3"], settings: CameraSettings, generator: torch.Generator
) -> Float[Tensor, "3 h w"]:
    """The display image in [0, 1], exposed for `face`, the mean radiance of the face.

    Dark skin is exposed below the target, as in photos of people.
    """
    brightness = float((face * torch.tensor([0.2126, 0.7152, 0.0722])).sum())
    gain = settings.target / max(brightness, 1e-4) ** 0.62 / settings.target**0.38
    sensed = blur(radiance * gain * torch.tensor(settings.balance)[:, None, None], settings.blur)
    grain = torch.randn(sensed.shape, generator=generator) * (0.5 * settings.noise)
    sensed = sensed + grain * (0.3 + sensed.clamp(0, 1).sqrt())
    shown = _tone_curve(settings)[(sensed * _LEVELS).clamp(0, len(_AXIS) - 1).long()]
    if settings.sharpening > 0:
        shown = shown + settings.sharpening * (shown - blur(shown, _SHARPENED))
    grey = (shown * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    saturation = 0.0 if settings.grey else settings.saturation
    return (grey + saturation * (shown - grey)).clamp(0, 1)


def _tone_curve(settings: CameraSettings) -> Float[Tensor, "levels"]:
    """The display value of every level of `_AXIS`: film shoulder, sRGB curve, gamma, contrast."""
    bent = torch.where(_AXIS > 0.75, 0.75 + 0.25 * torch.tanh((_AXIS - 0.75) / 0.25), _AXIS)
    shown = torch.where(bent < 0.0031308, 12.92 * bent, 1.055 * bent.clamp_min(0.003) ** (1 / 2.4) - 0.055)
    shown = shown**settings.gamma
    return shown + settings.contrast * (shown - 0.5) * shown * (1 - shown) * 2


def encode_jpeg(image: Float[Tensor, "3 h w"], quality: int) -> bytes:
    """The JPEG file of an image in [0, 1]."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=quality)
    return file.getvalue()
