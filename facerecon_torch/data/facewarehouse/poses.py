"""pose_k.poses: one photograph with the depth of every pixel.

    int32 frames (1) | uint8 RGB [480, 640, 3] | uint16 depth [480, 640] in mm | 12 bytes of zero

little-endian, rows from the top; the depth is registered to the colour and 0 where there is none.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import damaged, file_size

__all__ = ["ColourDepth", "read_poses", "save_poses"]

_COUNT = struct.Struct("<i")
_TAIL = bytes(12)


@dataclass(frozen=True, slots=True)
class ColourDepth:
    """`colour` is RGB in [0, 1]; `depth` is in mm away from the sensor, 0 where nothing was measured."""

    colour: Float[Tensor, "3 height width"]
    depth: Float[Tensor, "height width"]


def read_poses(path: str | os.PathLike[str], *, height: int = 480, width: int = 640) -> ColourDepth:
    """Colour and depth of a .poses file. Raises DataFileError for another size, frame count or tail."""
    file = Path(path)
    pixels = height * width
    wanted = _COUNT.size + 5 * pixels + len(_TAIL)
    size = file_size(file)
    if size != wanted:
        raise damaged(file, "size", f"{wanted} bytes for one frame of {width} x {height}", f"{size} bytes")
    content = file.read_bytes()
    (frames,) = _COUNT.unpack_from(content)
    if frames != 1:
        raise damaged(file, "frame count", "1", str(frames))
    if content[-len(_TAIL) :] != _TAIL:
        raise damaged(file, "tail", f"{len(_TAIL)} bytes of zero", content[-len(_TAIL) :].hex(" "))
    colour = np.frombuffer(content, np.uint8, 3 * pixels, _COUNT.size).reshape(height, width, 3)
    depth = np.frombuffer(content, "<u2", pixels, _COUNT.size + 3 * pixels).reshape(height, width)
    rgb = colour.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return ColourDepth(colour=torch.from_numpy(rgb), depth=torch.from_numpy(depth.astype(np.float32)))


def save_poses(frame: ColourDepth, path: str | os.PathLike[str]) -> Path:
    """Write one frame; colour is rounded to 8 bits, depth to whole mm. Returns the path.

    Raises ValueError for shapes that do not belong together, NaN, colour outside [0, 1] and depth outside 0..65535.
    """
    height, width = frame.depth.shape
    require_shape("colour", frame.colour, (3, height, width))
    for name, values, high in (("colour", frame.colour, 1.0), ("depth", frame.depth, 65535.0)):
        require_finite(name, values)
        if values.numel() == 0 or float(values.min()) < 0 or float(values.max()) > high:
            raise ValueError(f"{name} must hold values in 0..{high:g}; got {tuple(values.shape)} outside of it")
    colour = (frame.colour.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    depth = frame.depth.detach().cpu().round().numpy().astype("<u2")
    target = Path(path)
    with replacing(target) as aside:
        aside.write_bytes(_COUNT.pack(1) + colour.tobytes() + depth.tobytes() + _TAIL)
    return target
