"""Image gradients of HOG: those of the differentiable path by kornia, those of the fused maps by slices.

Both are the same numbers, to the bit. kornia's convolution takes 16 times as long (8 times with its
slopes), so it serves images that need a slope only; `channel_gradients` chooses.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.filters import spatial_gradient
from torch import Tensor

__all__ = [
    "TIE_SHARE",
    "as_channels",
    "channel_gradients",
    "differences",
    "dominant_gradient",
    "kornia_gradients",
    "needs_slope",
    "repeat_border",
]

# Channels of 8-bit images are often exactly as steep as one another. Rounding differs between devices and dtypes and
# must not choose between them, so a later channel has to be longer by this share of the squared length. Differences of
# float32 numbers n / 255 are off by up to 6e-5 of it.
TIE_SHARE = 7.3e-5


def as_channels(images: Float[Tensor, "b c h w"], colour: bool) -> Float[Tensor, "b c2 h w"]:
    """The channels whose gradients compete: those of the images, or one grey channel where `colour` is False. Raises
    ValueError unless the images have 1 or 3 channels."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"HOG needs images of 1 or 3 channels; got {tuple(images.shape)}")
    if colour or images.shape[1] == 1:
        return images
    grey: Tensor = rgb_to_grayscale(images)
    return grey


def needs_slope(images: Tensor) -> bool:
    """Whether autograd records what is computed from `images`."""
    return torch.is_grad_enabled() and images.requires_grad


def channel_gradients(
    channels: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Differences I(x + 1) - I(x - 1) along x and along y, border repeated; by kornia where a slope is needed."""
    return kornia_gradients(channels) if needs_slope(channels) else differences(repeat_border(channels))


def kornia_gradients(
    channels: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """The same differences by `kornia.filters.spatial_gradient`; kornia halves them only where it normalises.

    The convolution runs in float64: in float32 it may be rounded to TF32 or take Winograd's transform, which is enough
    to choose another channel where two are as steep. In float64 it returns the float32 differences exactly.
    """
    both = spatial_gradient(channels.double(), mode="diff", order=1, normalized=False).to(channels.dtype)
    return both[:, :, 0], both[:, :, 1]


def repeat_border(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c high wide"]:
    """Images one pixel larger on every side."""
    return F.pad(images, (1, 1, 1, 1), mode="replicate")


def differences(
    wide: Float[Tensor, "b c high wide"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Centred differences along x and y at all pixels but the outermost, not halved."""
    middle_rows, middle_columns = wide[..., 1:-1, :], wide[..., 1:-1]
    return middle_rows[..., 2:] - middle_rows[..., :-2], middle_columns[..., 2:, :] - middle_columns[..., :-2, :]


def dominant_gradient(
    across: Float[Tensor, "b c h w"], down: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """The gradient of each pixel's steepest channel, by squared length; of channels that are equal up to `TIE_SHARE`
    the first."""
    best_x, best_y = across[:, 0], down[:, 0]
    if across.shape[1] == 1:
        return best_x, best_y
    with torch.no_grad():  # the choice has no slope
        squared = torch.addcmul(across * across, down, down).unbind(1)
    largest = squared[0]
    for gx, gy, length in zip(across.unbind(1)[1:], down.unbind(1)[1:], squared[1:]):
        # lerp with a weight of exactly 0 or 1 selects. On CPUs comparisons and torch.where, which pass through
        # booleans, take four times as long.
        longer = torch.sub(length, largest, alpha=1 + TIE_SHARE).sign_().clamp_min_(0)
        best_x, best_y = torch.lerp(best_x, gx, longer), torch.lerp(best_y, gy, longer)
        largest = torch.lerp(largest, length, longer)
    return best_x, best_y
