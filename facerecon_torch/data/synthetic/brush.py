"""Anti-aliased lines and filled outlines on a texture, through Pillow at twice the resolution."""

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

__all__ = ["blur", "fill", "polyline", "strokes"]

_FINER = 2


def _to_mask(image: Image.Image) -> Float[Tensor, "height width"]:
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    fine = raw.reshape(1, 1, image.height, image.width).float() / 255
    return avg_pool2d(fine, _FINER)[0, 0]


def _corners(points: Float[Tensor, "n 2"]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in ((points + 0.5) * _FINER - 0.5).tolist()]


def _blank(shape: tuple[int, int]) -> Image.Image:
    return Image.new("L", (shape[1] * _FINER, shape[0] * _FINER))


def fill(shape: tuple[int, int], outline: Float[Tensor, "n 2"]) -> Float[Tensor, "height width"]:
    """Coverage in [0, 1] of a closed outline given in px (column, row)."""
    image = _blank(shape)
    ImageDraw.Draw(image).polygon(_corners(outline), fill=255)
    return _to_mask(image)


def polyline(shape: tuple[int, int], lines: list[Tensor], *, width: float) -> Float[Tensor, "height width"]:
    """Coverage of lines `width` px wide, with round joints."""
    image = _blank(shape)
    draw = ImageDraw.Draw(image)
    for line in lines:
        draw.line(_corners(line), fill=255, width=max(1, round(width * _FINER)), joint="curve")
    return _to_mask(image)


def strokes(shape: tuple[int, int], hairs: Float[Tensor, "hairs points 2"]) -> Float[Tensor, "height width"]:
    """Coverage of single hairs half a pixel wide."""
    image = _blank(shape)
    draw = ImageDraw.Draw(image)
    for hair in hairs:
        draw.line(_corners(hair), fill=255, width=1)
    return _to_mask(image)


def blur(mask: Float[Tensor, "height width"], deviation: float) -> Float[Tensor, "height width"]:
    """Gaussian blur; `deviation` in px; the border is repeated."""
    if deviation <= 0.05:
        return mask
    reach = max(1, round(3 * deviation))
    at = torch.arange(-reach, reach + 1, dtype=mask.dtype)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = kernel / kernel.sum()
    wide = pad(mask[None, None], (reach, reach, 0, 0), mode="replicate")
    across = conv2d(wide, kernel[None, None, None])
    tall = pad(across, (0, 0, reach, reach), mode="replicate")
    return conv2d(tall, kernel[None, None, :, None])[0, 0]
