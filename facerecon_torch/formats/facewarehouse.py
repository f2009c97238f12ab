"""FaceWarehouse's folders and files: people, names of expressions, shape.bs, and OBJ files of quads.

FaceWarehouse_Data_0/Tester_1 .. 150/Blendshape/shape.bs holds the meshes of one person in every expression, without
triangles:

    int32 n (shapes beside the neutral one, 46) | int32 V (11510) | int32 faces (11540) | float32 [n + 1, V, 3]

little-endian, absolute positions in dm, the neutral shape first. The OBJ files have another number of faces (11400).
They have lines `v x y z` in dm, `vt u v`, and faces `f v/vt/0` of quads or triangles, counted from 1. The OBJ format
does not allow the normal index 0; `polygon_mesh` reads it.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import format_error, require_range, require_size

__all__ = [
    "EXPRESSION_NAMES",
    "LARGEST_DM",
    "MM_PER_DM",
    "N_TESTERS",
    "TESTER",
    "BlendshapeHeader",
    "blendshape_file",
    "find_testers",
    "iter_blendshapes",
    "read_blendshape_header",
    "read_blendshapes",
    "save_blendshapes",
    "QuadMesh",
    "save_quads",
]

N_TESTERS = 150
TESTER = re.compile(r"Tester_(\d+)")
MM_PER_DM = 100.0
LARGEST_DM = 1e3  # a hundred metres, far beyond any face
_HEADER = struct.Struct("<3i")
_LARGEST_FILE = 1 << 31


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{side}" for name in names for side in "LR")


EXPRESSION_NAMES = (
    "Neutral",
    *_sides("EyeBlink", "EyeSquint", "EyeDown", "EyeIn", "EyeOpen", "EyeOut", "EyeUp", "BrowsD"),
    "BrowsU_C",
    *_sides("BrowsU"),
    "JawFwd",
    "JawLeft",
    "JawOpen",
    "JawRight",
    "MouthLeft",
    "MouthRight",
    *_sides("MouthFrown", "MouthSmile", "MouthDimple", "LipsStretch"),
    "LipsUpperClose",
    "LipsLowerClose",
    "LipsUpperUp",
    "LipsLowerDown",
    "LipsLowerOpen",
    "LipsFunnel",
    "LipsPucker",
    "ChinLowerRaise",
    "ChinUpperRaise",
    "Sneer",
    "Puff",
    *_sides("CheekSquint"),
)
"""The expression of each row of shape.bs; L is +x, image right."""


def find_testers(root: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """The number and folder of every person in `root` or in its folders FaceWarehouse_Data_*, ordered by number.

    Raises DataFileError for a folder without people and for a person with two folders.
    """
    top = Path(root)
    places = [top, *sorted(top.glob("FaceWarehouse_Data_*"))] if top.is_dir() else []
    folders: dict[int, Path] = {}
    for folder in (folder for place in places for folder in place.iterdir() if folder.is_dir()):
        match = TESTER.fullmatch(folder.name)
        if match is None:
            continue
        number = int(match.group(1))
        if number in folders:
            raise format_error(folder, "tester", "a number of its own", f"the number of {folders[number]}")
        folders[number] = folder
    if not folders:
        inside = ", ".join(sorted(p.name for p in top.iterdir())[:5]) if top.is_dir() else "no folder"
        raise format_error(
            top, "folder", "Tester_1 .. 150, or FaceWarehouse_Data_* with them", inside or "an empty folder"
        )
    return sorted(folders.items())


def blendshape_file(tester: Path) -> Path:
    """The path of shape.bs in a person's folder."""
    return tester / "Blendshape" / "shape.bs"


@dataclass(frozen=True, slots=True)
class BlendshapeHeader:
    """The counts of a shape.bs; `n_shapes` includes the neutral shape."""

    n_shapes: int
    n_vertices: int
    n_faces: int


def read_blendshape_header(path: str | os.PathLike[str]) -> BlendshapeHeader:
    """The counts of a shape.bs, checked against the file's size. Raises DataFileError."""
    file = Path(path)
    size = require_size(file, least=_HEADER.size, limit=_LARGEST_FILE)
    with open(file, "rb") as stream:
        others, vertices, faces = _HEADER.unpack(stream.read(_HEADER.size))
    for field, value, least in (("shape count", others, 0), ("vertex count", vertices, 1), ("face count", faces, 0)):
        if value < least:
            raise format_error(file, field, f"at least {least}", str(value))
    expected = _HEADER.size + 12 * (others + 1) * vertices
    if size != expected:
        layout = f"{expected} bytes for {others} + 1 shapes of {vertices} vertices"
        raise format_error(file, "size", layout, f"{size} bytes")
    return BlendshapeHeader(n_shapes=others + 1, n_vertices=vertices, n_faces=faces)


def iter_blendshapes(path: str | os.PathLike[str]) -> Iterator[Float[Tensor, "vertices 3"]]:
    """The shapes in float64 mm, the neutral shape first; one shape is held in memory at a time.

    float64 holds a hundred times a float32 exactly, so `save_blendshapes` restores the same bytes. Raises
    DataFileError for a wrong size or count, NaN, infinity and positions beyond 100 m.
    """
    file = Path(path)
    header = read_blendshape_header(file)
    with open(file, "rb") as stream:
        stream.seek(_HEADER.size)
        for k in range(header.n_shapes):
            block = stream.read(12 * header.n_vertices)
            if len(block) != 12 * header.n_vertices:
                raise format_error(file, f"shape {k}", f"{12 * header.n_vertices} bytes", f"{len(block)} bytes")
            with np.errstate(invalid="ignore"):  # NaN is refused below; its conversion would warn
                values = np.frombuffer(block, dtype="<f4").astype(np.float64).reshape(-1, 3)
            require_range(file, f"shape {k}", values, -LARGEST_DM, LARGEST_DM, unit="dm")
            yield torch.from_numpy(values * MM_PER_DM)


def read_blendshapes(path: str | os.PathLike[str]) -> Float[Tensor, "shapes vertices 3"]:
    """All shapes in float64 mm, the neutral shape first. Raises DataFileError as `iter_blendshapes` does."""
    header = read_blendshape_header(path)
    shapes = torch.empty(header.n_shapes, header.n_vertices, 3, dtype=torch.float64)
    for row, shape in zip(shapes, iter_blendshapes(path)):
        row.copy_(shape)
    return shapes


def save_blendshapes(shapes: Tensor, path: str | os.PathLike[str], *, n_faces: int = 11540) -> Path:
    """The path of a shape.bs with shapes [shapes, V, 3] in mm, the neutral shape first, rounded to float32 dm.

    Raises ValueError for another or an empty shape, NaN, positions beyond 100 m and a negative face count.
    """
    require_shape("shapes", shapes, (None, None, 3))
    if shapes.ndim != 3 or shapes.numel() == 0:
        raise ValueError(f"shapes must be [shapes, V, 3] and not empty; got {tuple(shapes.shape)}")
    require_finite("shapes", shapes)
    if float(shapes.abs().max()) > LARGEST_DM * MM_PER_DM or not 0 <= n_faces < 2**31:
        raise ValueError(
            f"shapes must lie within {LARGEST_DM * MM_PER_DM:g} mm and n_faces in 0..2^31 - 1; got {n_faces}"
        )
    with replacing(path) as aside, open(aside, "wb") as stream:
        stream.write(_HEADER.pack(len(shapes) - 1, shapes.shape[1], n_faces))
        for shape in shapes:
            stream.write((shape.detach().cpu().double().numpy() / MM_PER_DM).astype("<f4").tobytes())
    return Path(path)


@dataclass(frozen=True, slots=True)
class QuadMesh:
    """A mesh of faces with three or four corners; `vertices` in mm, `uv` with v upwards.

    `faces` and `face_uv` index `vertices` and `uv`, from 0. `face_uv` is None if the faces have no texture coordinates.
    """

    vertices: Float[Tensor, "vertices 3"]
    uv: Float[Tensor, "uvs 2"]
    faces: Int64[Tensor, "faces corners"]
    face_uv: Int64[Tensor, "faces corners"] | None


def save_quads(mesh: QuadMesh, path: str | os.PathLike[str]) -> Path:
    """The path of an OBJ file with every digit of the vertices, in dm, and faces `f v/vt/0` (`f v` without uv).

    Raises:
        ValueError: The mesh has a value that is not finite, no face, an index without a vertex, or a position beyond
            100 m.
    """
    require_shape("vertices", mesh.vertices, (None, 3))
    require_finite("vertices", mesh.vertices)
    require_finite("uv", mesh.uv)
    for name, faces, count in (("faces", mesh.faces, len(mesh.vertices)), ("face_uv", mesh.face_uv, len(mesh.uv))):
        if faces is not None and (faces.shape[0] == 0 or int(faces.min()) < 0 or int(faces.max()) >= count):
            raise ValueError(f"{name} must hold indices in 0..{count - 1}; got {tuple(faces.shape)} outside of it")
    if mesh.faces.shape[1] not in (3, 4) or (mesh.face_uv is not None and mesh.face_uv.shape != mesh.faces.shape):
        raise ValueError(f"faces must have 3 or 4 corners, face_uv the same shape; got {tuple(mesh.faces.shape)}")
    farthest, limit = float(mesh.vertices.abs().max()), LARGEST_DM * MM_PER_DM
    if farthest > limit:
        raise ValueError(f"vertices must lie within {limit:g} mm; got {farthest}")
    lines = [f"v {' '.join(map(_decimetres, row))}" for row in mesh.vertices.detach().cpu().double().tolist()]
    lines += [f"vt {Decimal(repr(u)):f} {Decimal(repr(v)):f}" for u, v in mesh.uv.detach().cpu().double().tolist()]
    lines += _face_lines(mesh)
    with replacing(path) as aside:
        aside.write_text("\n".join([*lines, ""]), encoding="ascii", newline="\n")
    return Path(path)


def _decimetres(millimetres: float) -> str:
    return f"{Decimal(repr(millimetres)).scaleb(-2):f}"


def _face_lines(mesh: QuadMesh) -> list[str]:
    faces = (mesh.faces.cpu() + 1).tolist()
    if mesh.face_uv is None:
        return [f"f {' '.join(map(str, face))}" for face in faces]
    textures = (mesh.face_uv.cpu() + 1).tolist()
    return ["f " + " ".join(f"{v}/{t}/0" for v, t in zip(*pair)) for pair in zip(faces, textures)]
