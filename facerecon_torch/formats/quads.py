"""The OBJ files: `v x y z` in dm, `vt u v`, and quads `f v/vt/0`, whose normal 0 the OBJ format does not allow.

Any of `f v`, `f v/vt`, `f v//vn` and `f v/vt/vn` is read, one form and one corner count (3 or 4) a file; normals
and groups are passed over. Indices count from 1 in the file and from 0 here.
"""

import os
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.files import replacing
from facerecon_torch.formats.blendshapes import MM_PER_UNIT, REACH
from facerecon_torch.formats.format_errors import damaged, read_ascii, require_range

__all__ = ["QuadMesh", "read_quads", "save_quads", "split_quads"]

_LIMIT = 64 * 1024 * 1024
_PASSED_OVER = frozenset({"vn", "o", "g", "s", "usemtl", "mtllib"})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?")
_CORNER = re.compile(r"(\d{1,9})(?:/(\d{1,9})?(/\d{0,9})?)?")


@dataclass(frozen=True, slots=True)
class QuadMesh:
    """`vertices` in mm, `uv` with v upwards (may have no rows), corners counted from 0; `face_uv` indexes `uv` and
    is None where the faces name no texture coordinates."""

    vertices: Float[Tensor, "vertices 3"]
    uv: Float[Tensor, "uvs 2"]
    faces: Int64[Tensor, "faces corners"]
    face_uv: Int64[Tensor, "faces corners"] | None


@dataclass
class _Rows:
    vertices: list[float] = field(default_factory=list)
    uv: list[float] = field(default_factory=list)
    faces: list[list[int]] = field(default_factory=list)
    face_uv: list[list[int]] = field(default_factory=list)
    form: tuple[object, ...] | None = None


def read_quads(path: str | os.PathLike[str], *, n_vertices: int | None = None, n_faces: int | None = None) -> QuadMesh:
    """Vertices in float64 mm and faces as they stand in the file; the counts are checked where they are given.

    A text has no counts of its own: a file cut between two lines can only be told by `n_vertices` and `n_faces`.
    Raises DataFileError for those, for a line that is none of an OBJ file, for an index without a vertex, and for
    positions beyond 100 m.
    """
    file = Path(path)
    lines = read_ascii(file, limit=_LIMIT).split("\n")
    rows = _Rows()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words and not words[0].startswith("#"):
            _take(file, number, words, rows)
    vertices = np.array(rows.vertices, dtype=np.float64).reshape(-1, 3)
    uv = np.array(rows.uv, dtype=np.float64).reshape(-1, 2)
    for name, got, want in (("vertices", len(vertices), n_vertices), ("faces", len(rows.faces), n_faces)):
        if got == 0 or (want is not None and got != want):
            raise damaged(file, name, "at least 1" if want is None else str(want), str(got))
    require_range(file, "vertices", vertices, -REACH * MM_PER_UNIT, REACH * MM_PER_UNIT, unit="mm")
    require_range(file, "texture coordinates", uv, -REACH, REACH, unit="")
    return QuadMesh(
        vertices=torch.from_numpy(vertices),
        uv=torch.from_numpy(uv),
        faces=_indices(file, "vertex", rows.faces, len(vertices)),
        face_uv=_indices(file, "texture", rows.face_uv, len(uv)) if rows.face_uv else None,
    )


def _take(file: Path, number: int, words: list[str], rows: _Rows) -> None:
    where, kind, values = f"line {number}", words[0], words[1:]
    if kind == "f":
        _take_face(file, where, values, rows)
    elif kind in ("v", "vt"):
        counts = (3,) if kind == "v" else (2, 3)
        if len(values) not in counts or not all(_NUMBER.fullmatch(value) for value in values):
            raise damaged(file, where, f"{kind} and {counts[0]} numbers", repr(" ".join(words)[:60]))
        if kind == "v":
            rows.vertices.extend(_millimetres(value) for value in values)
        else:
            rows.uv.extend(float(value) for value in values[:2])
    elif kind not in _PASSED_OVER:
        raise damaged(file, where, "a line of an OBJ file (v, vt, f, ...)", repr(" ".join(words)[:60]))


def _take_face(file: Path, where: str, corners: list[str], rows: _Rows) -> None:
    matches = [_CORNER.fullmatch(corner) for corner in corners]
    found = [match.groups() for match in matches if match is not None]
    forms = {(texture is not None, normal is not None) for _, texture, normal in found}
    if len(found) != len(corners) or len(corners) not in (3, 4) or len(forms) != 1:
        raise damaged(file, where, "a face of 3 or 4 corners v/vt/vn counted from 1", repr(" ".join(corners)[:60]))
    form = (len(corners), *forms.pop())
    rows.form = rows.form or form
    if form != rows.form:
        raise damaged(file, where, "corners in number and form like the first face's", repr(" ".join(corners)[:60]))
    rows.faces.append([int(vertex) for vertex, _, _ in found])
    if form[1]:
        rows.face_uv.append([int(texture) for _, texture, _ in found])


def _millimetres(word: str) -> float:
    """The decimal number times 100, rounded once: what `_decimetres` wrote comes back to the last bit."""
    mantissa, _, exponent = word.lower().partition("e")
    return float(f"{mantissa}e{int(exponent or 0) + 2}")


def _decimetres(value: float) -> str:
    return f"{Decimal(repr(value)).scaleb(-2):f}"


def _indices(file: Path, field_name: str, rows: list[list[int]], count: int) -> Tensor:
    indices: NDArray[np.int64] = np.array(rows, dtype=np.int64)
    if int(indices.min()) < 1 or int(indices.max()) > count:
        raise damaged(file, f"{field_name} indices", f"1..{count}", f"{indices.min()}..{indices.max()}")
    return torch.from_numpy(indices - 1)


def split_quads(faces: Int64[Tensor, "faces corners"]) -> Int64[Tensor, "triangles 3"]:
    """Each quad as the triangles (0, 1, 2) and (0, 2, 3), side by side; triangles stay."""
    if faces.shape[1] == 3:
        return faces
    return faces[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def save_quads(mesh: QuadMesh, path: str | os.PathLike[str]) -> Path:
    """Write the mesh with every digit of its float64 and faces `f v/vt/0` (`f v` without uv); returns the path.

    Raises ValueError for NaN, no face, indices without a vertex and positions beyond 100 m.
    """
    require_shape("vertices", mesh.vertices, (None, 3))
    require_finite("vertices", mesh.vertices)
    require_finite("uv", mesh.uv)
    for name, faces, count in (("faces", mesh.faces, len(mesh.vertices)), ("face_uv", mesh.face_uv, len(mesh.uv))):
        if faces is not None and (faces.shape[0] == 0 or int(faces.min()) < 0 or int(faces.max()) >= count):
            raise ValueError(f"{name} must hold indices in 0..{count - 1}; got {tuple(faces.shape)} outside of it")
    if mesh.faces.shape[1] not in (3, 4) or (mesh.face_uv is not None and mesh.face_uv.shape != mesh.faces.shape):
        raise ValueError(f"faces must have 3 or 4 corners, face_uv the same shape; got {tuple(mesh.faces.shape)}")
    if float(mesh.vertices.abs().max()) > REACH * MM_PER_UNIT:
        raise ValueError(f"vertices must lie within {REACH * MM_PER_UNIT:g} mm; got {float(mesh.vertices.abs().max())}")
    lines = [f"v {' '.join(map(_decimetres, row))}" for row in mesh.vertices.detach().cpu().double().tolist()]
    lines += [f"vt {Decimal(repr(u)):f} {Decimal(repr(v)):f}" for u, v in mesh.uv.detach().cpu().double().tolist()]
    lines += _face_lines(mesh)
    target = Path(path)
    with replacing(target) as aside:
        aside.write_text("\n".join([*lines, ""]), encoding="ascii", newline="\n")
    return target


def _face_lines(mesh: QuadMesh) -> list[str]:
    faces = (mesh.faces.cpu() + 1).tolist()
    if mesh.face_uv is None:
        return [f"f {' '.join(map(str, face))}" for face in faces]
    textures = (mesh.face_uv.cpu() + 1).tolist()
    return ["f " + " ".join(f"{v}/{t}/0" for v, t in zip(*pair)) for pair in zip(faces, textures)]
