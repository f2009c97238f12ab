"""shape.bs: the meshes of one person in every expression, without connectivity.

    int32 n (shapes beside the neutral one, 46) | int32 V (11510) | int32 faces (11540) | float32 [n + 1, V, 3]

little-endian, absolute positions in dm, the neutral shape first. The face count is not that of the OBJ files (11400).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import damaged, file_size, require_range

__all__ = ["BlendshapeHeader", "iter_blendshapes", "read_blendshape_header", "read_blendshapes", "save_blendshapes"]

MM_PER_UNIT = 100.0
REACH = 1e3  # in units of the file: a hundred metres, where only damage leads
_HEADER = struct.Struct("<3i")


@dataclass(frozen=True, slots=True)
class BlendshapeHeader:
    """Counts of a shape.bs; `n_shapes` includes the neutral one."""

    n_shapes: int
    n_vertices: int
    n_faces: int


def read_blendshape_header(path: str | os.PathLike[str]) -> BlendshapeHeader:
    """Counts of a shape.bs, proven against the file's size. Raises DataFileError."""
    file = Path(path)
    size = file_size(file)
    if size < _HEADER.size:
        raise damaged(file, "header", f"{_HEADER.size} bytes", f"a file of {size} bytes")
    with open(file, "rb") as stream:
        others, vertices, faces = _HEADER.unpack(stream.read(_HEADER.size))
    for field, value, least in (("shape count", others, 0), ("vertex count", vertices, 1), ("face count", faces, 0)):
        if value < least:
            raise damaged(file, field, f"at least {least}", str(value))
    wanted = _HEADER.size + 12 * (others + 1) * vertices
    if size != wanted:
        layout = f"{wanted} bytes for {others} + 1 shapes of {vertices} vertices"
        raise damaged(file, "size", layout, f"{size} bytes")
    return BlendshapeHeader(n_shapes=others + 1, n_vertices=vertices, n_faces=faces)


def iter_blendshapes(path: str | os.PathLike[str]) -> Iterator[Float[Tensor, "vertices 3"]]:
    """The shapes one by one in float64 mm, the neutral one first; only one is held in memory.

    float64 holds a hundred times a float32 exactly, so `save_blendshapes` gives the same bytes back. Raises
    DataFileError for a wrong size or count, NaN, infinity and positions beyond 100 m.
    """
    file = Path(path)
    header = read_blendshape_header(file)
    with open(file, "rb") as stream:
        stream.seek(_HEADER.size)
        for k in range(header.n_shapes):
            block = stream.read(12 * header.n_vertices)
            if len(block) != 12 * header.n_vertices:
                raise damaged(file, f"shape {k}", f"{12 * header.n_vertices} bytes", f"{len(block)} bytes")
            with np.errstate(invalid="ignore"):  # a damaged NaN is refused below, without a warning
                values = np.frombuffer(block, dtype="<f4").astype(np.float64).reshape(-1, 3)
            require_range(file, f"shape {k}", values, -REACH, REACH, unit="dm")
            yield torch.from_numpy(values * MM_PER_UNIT)


def read_blendshapes(path: str | os.PathLike[str]) -> Float[Tensor, "shapes vertices 3"]:
    """All shapes in float64 mm, the neutral one first (see `iter_blendshapes`)."""
    header = read_blendshape_header(path)
    shapes = torch.empty(header.n_shapes, header.n_vertices, 3, dtype=torch.float64)
    for row, shape in zip(shapes, iter_blendshapes(path)):
        row.copy_(shape)
    return shapes


def save_blendshapes(shapes: Tensor, path: str | os.PathLike[str], *, n_faces: int = 11540) -> Path:
    """Write [shapes, V, 3] in mm, the neutral shape first, rounded to the file's float32 dm; returns the path.

    Raises ValueError for another shape, no shape or vertex, NaN, positions beyond 100 m and a negative face count.
    """
    require_shape("shapes", shapes, (None, None, 3))
    if shapes.ndim != 3 or shapes.numel() == 0:
        raise ValueError(f"shapes must be [shapes, V, 3] and not empty; got {tuple(shapes.shape)}")
    require_finite("shapes", shapes)
    if float(shapes.abs().max()) > REACH * MM_PER_UNIT or not 0 <= n_faces < 2**31:
        raise ValueError(f"shapes must lie within {REACH * MM_PER_UNIT:g} mm and n_faces in 0..2^31 - 1; got {n_faces}")
    target = Path(path)
    with replacing(target) as aside, open(aside, "wb") as stream:
        stream.write(_HEADER.pack(len(shapes) - 1, shapes.shape[1], n_faces))
        for shape in shapes:
            stream.write((shape.detach().cpu().double().numpy() / MM_PER_UNIT).astype("<f4").tobytes())
    return target
