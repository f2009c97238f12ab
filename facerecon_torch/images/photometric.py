"""Photometric variation of training crops: what cameras, skins and files differ in and a renderer does not know.

Renders of one renderer share its sharpness, its noise and the texture of its skins; a regression that learns from them
takes photographs, which differ in all three, for other faces. Every crop gets texture, sharpness, gamma and noise drawn
by its place in the set alone: the same in any batch, on any device, in any number of processes.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["PhotometricVariation"]

_FIELDS = 8  # textures of each scale
_TEXTURE_SCALES = (0.6, 1.0, 1.6, 2.4, 3.0)  # standard deviations of the Gaussians that shape them, px
_SHARP_SCALES = (0.8, 1.6)  # of the blurs that sharpening subtracts, px
_LARGEST_TEXTURE = 0.06  # standard deviation as a share of the brightness
_LARGEST_NOISE = 0.02  # standard deviation, of a range of 1
_SHARPENED, _BLURRED = 0.4, 0.3  # shares of the crops
_SHARPENING, _BLURRING = (0.2, 1.5), (0.3, 0.9)  # times the difference from the blurred crop
_GAMMA = (0.7, 1.4)
_N_NUMBERS = 9


@dataclass(frozen=True)
class PhotometricVariation:
    """Crops with random texture, sharpness, gamma and noise.

    Args:
        count: number of crops of the set.
        seed: of all random numbers.

    Example:
        >>> vary = PhotometricVariation(count=len(faces), seed=0)
        >>> crops = vary(crops, rows)
    """

    count: int
    seed: int
    _numbers: Float[Tensor, "count 9"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        draws = torch.rand(self.count, _N_NUMBERS, generator=torch.Generator().manual_seed(self.seed))
        object.__setattr__(self, "_numbers", draws)

    def __call__(
        self, crops: Float[Tensor, "n channels height width"], rows: Int[Tensor, "n"]
    ) -> Float[Tensor, "n channels height width"]:
        """The varied crops, in [0, 1].

        Args:
            crops: in [0, 1].
            rows: place of each crop in the set, below `count`.
        """
        texture, noise = _fields(crops.shape[-1], self.seed, crops.device, crops.dtype)
        u = self._numbers.to(crops)[rows.to(crops.device)]
        kind, scale, strength, sharp, blur, amount, gamma, noisy, place = u.mT
        count = len(texture)
        chosen = torch.minimum((scale * count).long(), torch.tensor(count - 1, device=crops.device))
        shift = (place * crops.shape[-1]).long()
        crops = crops * (1 + _column(_LARGEST_TEXTURE * strength.square()) * _shifted(texture[chosen], shift))
        crops = crops + _column(_sharpening(kind, amount)) * (crops - _blurred(crops, sharp))
        low, high = _GAMMA
        crops = crops.clamp(1e-3, 1) ** _column(low + (high - low) * gamma)
        other = (blur * len(noise)).long().clamp_max(len(noise) - 1)
        return (crops + _column(_LARGEST_NOISE * noisy) * _shifted(noise[other], shift)).clamp(0, 1)


def _sharpening(kind: Float[Tensor, "n"], amount: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The share of the difference from the blurred crop that is added: positive sharpens, negative blurs."""
    (low, high), (least, most) = _SHARPENING, _BLURRING
    softened = torch.where(kind < _SHARPENED + _BLURRED, -(least + (most - least) * amount), 0.0)
    return torch.where(kind < _SHARPENED, low + (high - low) * amount, softened)


def _column(values: Float[Tensor, "n"]) -> Float[Tensor, "n 1 1 1"]:
    return values[:, None, None, None]


@lru_cache(maxsize=1)
def _fields(
    size: int, seed: int, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "t 1 s s"], Float[Tensor, "k 1 s s"]]:
    """Textures of all scales and white noise, of standard deviation 1, that go on where they end."""
    white = torch.randn(_FIELDS, 1, size, size, generator=torch.Generator().manual_seed(seed + 1)).to(device, dtype)
    shaped = torch.cat([_gaussian(white, scale, mode="circular") for scale in _TEXTURE_SCALES])
    return shaped / shaped.std(dim=(-2, -1), keepdim=True), white


def _shifted(fields: Float[Tensor, "n 1 s s"], shift: Int[Tensor, "n"]) -> Float[Tensor, "n 1 s s"]:
    """Each field moved by its own number of columns, around its end."""
    size = fields.shape[-1]
    columns = (torch.arange(size, device=fields.device) + shift[:, None]) % size
    return fields.gather(-1, columns[:, None, None, :].expand_as(fields))


def _blurred(crops: Float[Tensor, "n c h w"], sharp: Float[Tensor, "n"]) -> Float[Tensor, "n c h w"]:
    """Crops blurred by one of two Gaussians."""
    fine, coarse = (_gaussian(crops, scale, mode="replicate") for scale in _SHARP_SCALES)
    return torch.where(_column(sharp) < 0.5, fine, coarse)


def _gaussian(images: Float[Tensor, "n c h w"], scale: float, *, mode: str) -> Float[Tensor, "n c h w"]:
    """Images blurred along both axes: a sum of shifted images, which a CPU does four times as fast as a convolution."""
    reach = math.ceil(3 * scale)
    weights = [math.exp(-0.5 * (step / scale) ** 2) for step in range(-reach, reach + 1)]
    weights = [weight / math.fsum(weights) for weight in weights]
    wide = pad(images, (reach, reach, reach, reach), mode=mode)
    for axis in (-1, -2):
        size = wide.shape[axis] - 2 * reach
        total = weights[0] * wide.narrow(axis, 0, size)
        for start, weight in enumerate(weights[1:], 1):
            total.add_(wide.narrow(axis, start, size), alpha=weight)
        wide = total
    return wide
