"""OBJ files of quads or triangles as FaceWarehouse has them: `v x y z` in dm, `vt u v`, faces `f v/vt/0`.

The normal index 0 is not allowed by the OBJ format; `polygon_mesh` reads it. Indices count from 1 in the file.
"""

import os
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.formats.facewarehouse import LARGEST_DM, MM_PER_DM

__all__ = ["QuadMesh", "save_quads"]


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
