"""From light on the sensor to a compressed picture: exposure, white balance, tone curve, blur, noise, JPEG."""

import io
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from facerecon_torch.synthetic.procedural import between, uniform
from facerecon_torch.synthetic.skin.strokes import blur

__all__ = ["Shot", "draw_shot", "encode_jpeg", "expose"]

_LEVELS = 8192  # per unit of exposure; noise dithers the steps away
_AXIS = torch.arange(2 * _LEVELS) / _LEVELS


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One photograph's settings; `blur` in px, `noise` as deviation at full scale."""

    target: float  # linear level that the face's mean is exposed to
    balance: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    blur: float
    noise: float
    grey: bool
    quality: int


def draw_shot(generator: torch.Generator) -> Shot:
    """Draw a photograph's settings."""
    warm = between(generator, 0.0, 0.07, -0.18, 0.18)
    return Shot(
        target=uniform(generator, 0.13, 0.40),
        balance=(1 + warm, 1 + between(generator, 0.0, 0.015, -0.04, 0.04), 1 - warm),
        gamma=between(generator, 1.0, 0.1, 0.75, 1.3),
        contrast=between(generator, 0.25, 0.25, -0.2, 0.8),
        saturation=between(generator, 1.0, 0.15, 0.6, 1.4),
        blur=abs(between(generator, 0.0, 0.8, -2.2, 2.2)),
        noise=0.004 + 0.028 * uniform(generator) ** 2,
        grey=uniform(generator) < 0.04,
        quality=int(torch.randint(45, 97, (), generator=generator)),
    )


def expose(
    radiance: Float[Tensor, "3 h w"], face: Float[Tensor, "3"], shot: Shot, generator: torch.Generator
) -> Float[Tensor, "3 h w"]:
    """Display picture in [0, 1]; `face` is the mean radiance of the face, to which a camera would expose.

    Dark skin is not exposed all the way up to the target, as photographs of people aren't.
    """
    brightness = float((face * torch.tensor([0.2126, 0.7152, 0.0722])).sum())
    gain = shot.target / max(brightness, 1e-4) ** 0.62 / shot.target**0.38
    seen = blur(radiance * gain * torch.tensor(shot.balance)[:, None, None], shot.blur)
    grain = torch.randn(seen.shape, generator=generator) * (0.5 * shot.noise)
    seen = seen + grain * (0.3 + seen.clamp(0, 1).sqrt())
    shown = _tone_curve(shot)[(seen * _LEVELS).clamp(0, len(_AXIS) - 1).long()]
    grey = (shown * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    saturation = 0.0 if shot.grey else shot.saturation
    return (grey + saturation * (shown - grey)).clamp(0, 1)


def _tone_curve(shot: Shot) -> Float[Tensor, "levels"]:
    """Display value of every level of `_AXIS`: film shoulder, sRGB curve, gamma, contrast."""
    bent = torch.where(_AXIS > 0.75, 0.75 + 0.25 * torch.tanh((_AXIS - 0.75) / 0.25), _AXIS)
    shown = torch.where(bent < 0.0031308, 12.92 * bent, 1.055 * bent.clamp_min(0.003) ** (1 / 2.4) - 0.055)
    shown = shown**shot.gamma
    return shown + shot.contrast * (shown - 0.5) * shown * (1 - shown) * 2


def encode_jpeg(picture: Float[Tensor, "3 h w"], quality: int) -> bytes:
    """JPEG file of a picture in [0, 1]."""
    pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    out = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(out, "JPEG", quality=quality)
    return out.getvalue()
