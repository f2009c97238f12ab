"""The Surrey Face Model and other models of the eos library: `.bin` files of cereal's binary archive, little-endian.

uint32 version (1..4) | PCA shape | PCA colour | from 2: optional expressions | from 3: optional landmark names |
vector of float64 u v (v downwards) | from 4: vector of int32 texture triangles
PCA: matrix mean | matrix orthonormal basis | matrix variances | vector of int32 triangles
matrix: int32 rows, int32 columns, float32 column-major | vector, text: uint64 count, then its entries
optional: uint8, 1 for none | expressions: int32 0 and a PCA, or 1 and blendshapes | landmark names: text, int32
blendshapes, also a file of their own: vector of text name and matrix of offsets
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facerecon_torch.formats.format_errors import format_error, read_bounded, shown
from facerecon_torch.formats.json_file import read_json
from facerecon_torch.formats.polygon_mesh import corner_texture
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain
from facerecon_torch.model.importers.linear_parts import (
    BLENDSHAPE_VARIANCE,
    Array,
    LinearParts,
    assemble,
    columns,
)

__all__ = ["read_surrey"]

LARGEST = 1 << 31
VERSIONS = range(1, 5)


@dataclass(frozen=True, eq=False)
class _Pca:
    mean: Array  # [3 V]
    basis: Array  # [3 V, n]
    variance: Array  # [n]
    triangles: Array  # [T, 3]


@dataclass(frozen=True, eq=False)
class _Model:
    version: int
    shape: _Pca
    colour: _Pca
    expression: "_Pca | dict[str, Array] | None"
    uv: Array  # [n, 2]
    texture_triangles: Array  # [T, 3]


def read_surrey(
    path: str | os.PathLike[str],
    blendshapes: str | os.PathLike[str] | None = None,
    contours: str | os.PathLike[str] | None = None,
    *,
    texture: bool = False,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model of a `.bin` file; alpha and the beta of an expression PCA in standard deviations (variance 1).

    The beta of a blendshape is its weight (variance 1/3).

    Args:
        path: The file.
        blendshapes: A file of expression blendshapes, for a model without expressions of its own.
        contours: eos's sfm_model_contours.json: the vertices among which the landmarks of the contour are.
        texture: Whether to read the colour model.
        n_identity: Largest number of identity columns.
        n_expression: Largest number of expression columns.

    Raises:
        ModelFileError: A file is damaged or of another version, the model has no vertices, or the expressions belong to
            another mesh or are given twice.
    """
    file = Path(path)
    with as_model_errors():
        model = _read_model(file)
        found = None if blendshapes is None else _read_blendshapes(Path(blendshapes))
    if found is not None and model.expression is not None:
        raise refused(file, "expressions", "none beside the file of blendshapes", "a model with its own expressions")
    parts = _parts(file, model, found if found is not None else model.expression, texture)
    if contours is not None:
        parts.tables["contour_rim"] = _rim(Path(contours), len(parts.mean))
    return assemble(
        file,
        parts,
        unit_mm=1.0,
        topology_name=f"sfm_{len(parts.mean)}",
        n_identity=n_identity,
        n_expression=n_expression,
    )


@dataclass
class _Archive:
    """A position in the bytes of a file."""

    file: Path
    content: bytes
    at: int = 0

    def take(self, name: str, size: int) -> int:
        """The offset of the next `size` bytes."""
        start, left = self.at, len(self.content) - self.at
        if not 0 <= size <= left:
            raise format_error(self.file, name, f"{size} bytes at {start}", f"{left} bytes")
        self.at += size
        return start

    def number(self, name: str, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self.content, self.take(name, struct.calcsize(f"<{code}")))
        return int(value)

    def matrix(self, name: str) -> Array:
        rows, cols = self.number(f"{name} rows", "i"), self.number(f"{name} columns", "i")
        if min(rows, cols) < 0:
            raise format_error(self.file, name, "no negative number of rows or columns", f"{rows} x {cols}")
        start = self.take(name, 4 * rows * cols)
        values = np.frombuffer(self.content, "<f4", rows * cols, start).reshape(rows, cols, order="F")
        require_plain(self.file, name, values)
        return values

    def table(self, name: str, dtype: str, width: int) -> Array:
        count = self.number(f"{name} count", "Q")
        start = self.take(name, count * width * np.dtype(dtype).itemsize)
        return np.frombuffer(self.content, dtype, count * width, start).reshape(count, width)

    def text(self, name: str) -> str:
        size = self.number(f"{name} length", "Q")
        start = self.take(name, size)
        try:
            return self.content[start : start + size].decode("utf-8")
        except UnicodeDecodeError as error:
            raise format_error(self.file, name, "UTF-8 text", shown(self.content[start : start + 20])) from error

    def is_there(self, name: str) -> bool:
        flag = self.number(name, "B")
        if flag not in (0, 1):
            raise format_error(self.file, name, "0 (there) or 1 (not there)", flag)
        return flag == 0

    def end(self) -> None:
        if self.at != len(self.content):
            raise format_error(self.file, "end of file", f"{self.at} bytes", f"{len(self.content)} bytes")


def _read_model(file: Path) -> _Model:
    archive = _Archive(file, read_bounded(file, limit=LARGEST))
    version = archive.number("version", "I")
    if version not in VERSIONS:
        raise format_error(file, "version", f"{VERSIONS[0]} to {VERSIONS[-1]}", version)
    shape, colour = _pca(archive, "shape"), _pca(archive, "colour")
    expression: _Pca | dict[str, Array] | None = None
    if version >= 2 and archive.is_there("expressions"):
        kind = archive.number("kind of expressions", "i")
        if kind not in (0, 1):
            raise format_error(file, "kind of expressions", "0 (PCA) or 1 (blendshapes)", kind)
        expression = _blendshapes(archive) if kind else _pca(archive, "expression")
    if version >= 3 and archive.is_there("landmark names"):
        for _ in range(archive.number("landmark names count", "Q")):
            archive.text("landmark name")
            archive.number("landmark vertex", "i")
    uv = archive.table("texture coordinates", "<f8", 2)
    triangles = archive.table("texture triangles", "<i4", 3) if version >= 4 else np.zeros((0, 3), dtype=np.int32)
    archive.end()
    return _Model(version, shape, colour, expression, uv, triangles)


def _pca(archive: _Archive, name: str) -> _Pca:
    mean, basis = archive.matrix(f"{name} mean"), archive.matrix(f"{name} basis")
    variance = archive.matrix(f"{name} variances")
    if mean.size != len(basis) or variance.size != basis.shape[1] or mean.size % 3:
        actual = f"mean {mean.shape}, basis {basis.shape}, variances {variance.shape}"
        raise format_error(archive.file, name, "a mean of 3 V numbers, a basis 3 V x n and n variances", actual)
    return _Pca(mean.reshape(-1), basis, variance.reshape(-1), archive.table(f"{name} triangles", "<i4", 3))


def _read_blendshapes(file: Path) -> dict[str, Array]:
    archive = _Archive(file, read_bounded(file, limit=LARGEST))
    shapes = _blendshapes(archive)
    archive.end()
    return shapes


def _blendshapes(archive: _Archive) -> dict[str, Array]:
    shapes: dict[str, Array] = {}
    for _ in range(archive.number("blendshapes count", "Q")):
        name = archive.text("blendshape name")
        if name in shapes:
            raise format_error(archive.file, "blendshape name", "names that differ", shown(name))
        shapes[name] = archive.matrix(f"blendshape {name[:40]!r}").reshape(-1)
    return shapes


def _rim(file: Path, n_vertices: int) -> Array:
    """The vertices of both sides of the contour, each once."""
    with as_model_errors():
        sides = read_json(file).get("model_contour")
    lists = (
        [sides.get(f"{side}_contour", sides.get(side)) for side in ("right", "left")] if isinstance(sides, dict) else []
    )
    vertices = [vertex for row in lists if isinstance(row, list) for vertex in row]
    if len(lists) != 2 or not all(lists) or not all(type(v) is int and 0 <= v < n_vertices for v in vertices):
        expected = f"right_contour and left_contour, lists of vertices in 0..{n_vertices - 1}"
        raise refused(file, "model_contour", expected, shown(sides))
    return np.unique(np.array(vertices, dtype=np.int64))


def _parts(file: Path, model: _Model, expression: "_Pca | dict[str, Array] | None", texture: bool) -> LinearParts:
    shape, colour, n_vertices = model.shape, model.colour, model.shape.mean.size // 3
    if texture and colour.mean.size == 0:
        raise refused(file, "colour", "a colour model", "none: the public model has shapes only")
    offset, basis, variance = _expression(file, expression, n_vertices)
    uv, corner_uv = _texture(file, model, n_vertices)
    return LinearParts(
        mean=(shape.mean + offset).reshape(-1, 3),
        triangles=shape.triangles,
        identity=columns(shape.basis * _deviations(file, "shape", shape)),
        expression=_of_mesh(file, "expression basis", basis, n_vertices),
        identity_variance=np.ones_like(shape.variance),
        expression_variance=variance,
        names=tuple(expression) if isinstance(expression, dict) else (),
        uv=uv,
        corner_uv=corner_uv,
        colour_mean=_of_mesh(file, "colour mean", colour.mean[:, None], n_vertices)[..., 0] if texture else None,
        colour_basis=_of_mesh(file, "colour basis", colour.basis * _deviations(file, "colour", colour), n_vertices)
        if texture
        else None,
        notes={"version": model.version},
    )


def _expression(
    file: Path, expression: "_Pca | dict[str, Array] | None", n_vertices: int
) -> tuple[Array, Array, Array]:
    """The offset of the neutral face [3 V], the basis [3 V, n] and the variances of its weights."""
    offset = np.zeros(3 * n_vertices, dtype=np.float32)
    if isinstance(expression, _Pca):
        if len(expression.mean) != len(offset):
            raise refused(file, "expression mean", f"{len(offset)} numbers, as the shape has", len(expression.mean))
        basis = expression.basis * _deviations(file, "expression", expression)
        return expression.mean, basis, np.ones_like(expression.variance)
    shapes = list(expression.values()) if expression else []
    if any(len(shape) != len(offset) for shape in shapes):
        raise refused(file, "blendshapes", f"{len(offset)} numbers each", sorted({len(shape) for shape in shapes}))
    basis = np.stack(shapes, axis=1) if shapes else np.zeros((len(offset), 0), dtype=np.float32)
    return offset, basis, np.full(len(shapes), BLENDSHAPE_VARIANCE)


def _of_mesh(file: Path, name: str, matrix: Array, n_vertices: int) -> Array:
    if len(matrix) != 3 * n_vertices:
        raise refused(file, name, f"{3 * n_vertices} rows, as the shape has", len(matrix))
    return columns(matrix)


def _deviations(file: Path, name: str, pca: _Pca) -> Array:
    if not bool((pca.variance >= 0).all()):
        raise refused(file, f"{name} variances", "no negative number", float(pca.variance.min()))
    return np.sqrt(pca.variance)


def _texture(file: Path, model: _Model, n_vertices: int) -> tuple[Array | None, Array | None]:
    """The texture coordinates of the vertices, v upwards, and those of the triangles' corners where a vertex has
    several; only models with texture triangles have such."""
    require_plain(file, "texture coordinates", model.uv)
    uv = np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], axis=1)
    if len(uv) == 0:
        return None, None
    if len(model.texture_triangles) == 0:
        if len(uv) != n_vertices:
            raise refused(file, "texture coordinates", f"{n_vertices}, one per vertex", len(uv))
        return uv, None
    corner, texture = model.shape.triangles.reshape(-1), model.texture_triangles.reshape(-1)
    if len(corner) != len(texture) or texture.min() < 0 or texture.max() >= len(uv):
        raise refused(file, "texture triangles", f"{len(corner) // 3} with indices below {len(uv)}", len(texture) // 3)
    if len(corner) == 0 or corner.min() < 0 or corner.max() >= n_vertices:
        raise refused(file, "shape triangles", f"vertices in 0..{n_vertices - 1}", "others")
    found = corner_texture(uv, model.shape.triangles.tolist(), model.texture_triangles.tolist(), n_vertices)
    return found.uv, found.corner_uv
