"""Image -> one gradient per pixel."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from torch import Tensor

__all__ = ["EVEN", "as_channels", "channel_gradients", "differences", "dominant_gradient", "repeat_border"]

# Channels of 8-bit pictures are often exactly as steep as one another, and rounding, which differs between devices and
# dtypes, must not choose between them: a later channel has to be longer by this share of the squared length.
# Differences of float32 numbers n / 255 are off by up to 6e-5 of it.
EVEN = 7.3e-5


def channel_gradients(
    images: Float[Tensor, "b c h w"], colour: bool
) -> tuple[Float[Tensor, "b c2 h w"], Float[Tensor, "b c2 h w"]]:
    """Centred differences I(x + 1) - I(x - 1) of every channel, along x and along y, not halved; the border repeats.

    `colour=False` turns three channels into one grey channel first. Raises ValueError unless there are 1 or 3 channels.
    """
    return differences(repeat_border(as_channels(images, colour)))


def as_channels(images: Float[Tensor, "b c h w"], colour: bool) -> Float[Tensor, "b c2 h w"]:
    """The channels whose gradients compete: those of the images, or grey. Raises ValueError unless 1 or 3 come in."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"HOG needs images of 1 or 3 channels; got {tuple(images.shape)}")
    if colour or images.shape[1] == 1:
        return images
    grey: Tensor = rgb_to_grayscale(images)
    return grey


def repeat_border(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c high wide"]:
    """Images one pixel larger on every side."""
    return F.pad(images, (1, 1, 1, 1), mode="replicate")


def differences(
    wide: Float[Tensor, "b c high wide"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Centred differences along x and y of all pixels but the outermost, not halved."""
    middle_rows, middle_columns = wide[..., 1:-1, :], wide[..., 1:-1]
    return middle_rows[..., 2:] - middle_rows[..., :-2], middle_columns[..., 2:, :] - middle_columns[..., :-2, :]


def dominant_gradient(
    across: Float[Tensor, "b c h w"], down: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Per pixel the gradient of the channel where it is largest, by squared length; the first of those that are as long
    but for `EVEN`."""
    best_x, best_y = across[:, 0], down[:, 0]
    if across.shape[1] == 1:
        return best_x, best_y
    with torch.no_grad():  # what is chosen has no slope
        squared = torch.addcmul(across * across, down, down).unbind(1)
    largest = squared[0]
    for gx, gy, length in zip(across.unbind(1)[1:], down.unbind(1)[1:], squared[1:]):
        # lerp with a weight of exactly 0 or 1 selects. On CPUs comparisons and torch.where, which pass through
        # booleans, take four times as long.
        longer = torch.sub(length, largest, alpha=1 + EVEN).sign_().clamp_min_(0)
        best_x, best_y = torch.lerp(best_x, gx, longer), torch.lerp(best_y, gy, longer)
        largest = torch.lerp(largest, length, longer)
    return best_x, best_y
