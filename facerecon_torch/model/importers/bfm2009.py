"""Basel Face Model of 2009, `01_MorphableModel.mat` or face3d's `BFM.mat` (a struct `model`), in micrometres.

    shapeMU [3 V] | shapePC [3 V, 199] | shapeEV [199], standard deviations | tex.. likewise, 0..255 |
    tl [T, 3] or tri [3, T], from 1 | face3d's also: expMU, expPC, expEV

Expressions are in face3d's file, or in files beside the model (the same layout, after trimming by BFM_exp_idx.mat):

    Model_Expression.mat: mu_exp [3 V'], w_exp [3 V', 29], sigma_exp [29]: the basis of 300W-LP's Exp_Para
    Exp_Pca.bin: int32 n, float32 mean [3 V'] (unused, as by its users), float32 [n, 3 V'] | std_exp.txt
    BFM_exp_idx.mat: trimIndex [V'], from 1 into V = 53490 -> V' = 53215
    BFM_front_idx.mat: idx [35709], from 1 into V', the front of the face

BFM_model_front.mat of Deep3DFaceRecon is this front in one file, in dm and scaled to standard deviations:

    meanshape, meantex [1, 3 V] | idBase [3 V, 80] | exBase [3 V, 64] | texBase [3 V, 80] | tri [T, 3] from 1

The origin is that of the file, so that 300W-LP's poses hold (`coefficients_from_300wlp`).
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.formats.format_errors import format_error, read_ascii, read_bounded, strict_float
from facerecon_torch.formats.matlab5 import MatVariable, iter_variables
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain
from facerecon_torch.model.importers.linear_parts import Array, LinearParts, assemble, columns

__all__ = ["REGIONS", "coefficients_from_300wlp", "read_bfm2009", "read_deep3d"]

REGIONS = ("all", "front")
TOPOLOGIES = {53490: "bfm2009_53490", 53215: "bfm_53215", 35709: "bfm_35709"}
MODEL_FILES = ("01_MorphableModel.mat", "BFM.mat")
MM_PER_UNIT = 1e-3
_DEEP3D_UNIT_MM = 100.0
IDENTITY_SCALE = 1e-5  # our alpha per unit of Shape_Para: standard deviations become 0.05 to 9
LARGEST = 1 << 31
_MAX_COMPONENTS = 4096


def coefficients_from_300wlp(
    shape_para: Float[Tensor, "*b identities"], exp_para: Float[Tensor, "*b expressions"]
) -> tuple[Float[Tensor, "*b identities"], Float[Tensor, "*b expressions"]]:
    """alpha and beta of this importer's models for Shape_Para and Exp_Para of 300W-LP and AFLW2000-3D.

    Shape_Para and Exp_Para multiply shapePC and w_exp in micrometres. alpha = 1e-5 Shape_Para has the variance
    (1e-5 shapeEV)^2, beta = Exp_Para the variance sigma_exp^2. beta fits the expressions of Model_Expression.mat and of
    face3d's BFM.mat, not those of Exp_Pca.bin.
    """
    return shape_para * IDENTITY_SCALE, exp_para


def read_bfm2009(
    path: str | os.PathLike[str],
    *,
    region: str = "all",
    texture: bool = False,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model with the expressions of its file, or of the files beside it; it may have none.

    Args:
        path: The `.mat` file or its folder.
        region: "all", or "front" with BFM_front_idx.mat beside the model.
        texture: Whether to read the texture.
        n_identity: Largest number of identity columns.
        n_expression: Largest number of expression columns.

    Raises:
        ModelFileError: A file is damaged, missing or of another mesh.
        ValueError: The region is unknown.
    """
    if region not in REGIONS:
        raise ValueError(f"region must be one of {', '.join(REGIONS)}; got {region!r}")
    given = Path(path)
    file = next((given / name for name in MODEL_FILES if (given / name).is_file()), given / MODEL_FILES[0])
    file = file if given.is_dir() else given
    with as_model_errors():
        arrays = _arrays(file)
        parts = _shape(file, arrays, texture)
        expression = _expression(file, arrays)
        if expression is None or 3 * len(parts.mean) == len(expression.basis):
            kept = parts
        else:
            kept = parts.rows(_indices(file.with_name("BFM_exp_idx.mat"), "trimIndex", len(parts.mean)))
        if expression is not None:
            kept = _with_expression(file, kept, expression)
        if region == "front":
            kept = kept.rows(_indices(file.with_name("BFM_front_idx.mat"), "idx", len(kept.mean)))
    return _assembled(file, kept, MM_PER_UNIT, n_identity, n_expression)


def read_deep3d(
    path: str | os.PathLike[str],
    *,
    texture: bool = False,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model of a BFM_model_front.mat; alpha and beta are Deep3DFaceRecon's, of variance 1.

    Written from the public code that writes this file; the real one was not at hand.

    Args:
        path: The file.
        texture: Whether to read the texture.
        n_identity: Largest number of identity columns.
        n_expression: Largest number of expression columns.

    Raises:
        ModelFileError: The file is damaged, or lacks an array or has one of another mesh.
    """
    file = Path(path)
    with as_model_errors():
        arrays = _arrays(file)
        mean = _matrix(file, arrays, "meanshape", (None, 1))[:, 0]
        if len(mean) % 3:
            raise format_error(file, "meanshape", "3 V numbers", len(mean))
        identity, expression = (_matrix(file, arrays, name, (len(mean), None)) for name in ("idBase", "exBase"))
        parts = LinearParts(
            mean=mean.reshape(-1, 3),
            triangles=_triangles(file, arrays, len(mean) // 3),
            identity=columns(identity),
            expression=columns(expression),
            identity_variance=np.ones(identity.shape[1]),
            expression_variance=np.ones(expression.shape[1]),
        )
        if texture:
            colour_mean = _matrix(file, arrays, "meantex", (len(mean), 1)).reshape(-1, 3) / 255
            colours = columns(_matrix(file, arrays, "texBase", (len(mean), None))) / 255
            parts = replace(parts, colour_mean=colour_mean, colour_basis=colours)
    return _assembled(file, parts, _DEEP3D_UNIT_MM, n_identity, n_expression)


def _assembled(
    file: Path, parts: LinearParts, unit_mm: float, n_identity: int | None, n_expression: int | None
) -> ImportedModel:
    """The model in the origin of the file, named by its number of vertices."""
    n_vertices = len(parts.mean)
    return assemble(
        file,
        parts,
        unit_mm=unit_mm,
        topology_name=TOPOLOGIES.get(n_vertices, f"bfm2009_{n_vertices}"),
        centre=False,
        n_identity=n_identity,
        n_expression=n_expression,
    )


@dataclass(frozen=True, eq=False)
class _Expression:
    source: str
    basis: Array  # [3 V', n], micrometres per unit of beta
    variance: Array  # [n]
    mean: Array | None  # [3 V']


def _arrays(file: Path) -> dict[str, MatVariable]:
    """The variables of a file by name, or the fields of its struct `model`."""
    found = {variable.name: variable for variable in iter_variables(file, limit=LARGEST)}
    model = found.get("model")
    if model is None:
        return found
    if any(len(values) != 1 for values in model.fields.values()):
        raise format_error(file, "model", "one struct", f"an array of shape {model.shape}")
    return {name: values[0] for name, values in model.fields.items()}


def _matrix(file: Path, arrays: dict[str, MatVariable], name: str, shape: tuple[int | None, int | None]) -> Array:
    """The matrix `name`; a vector may be a row or a column."""
    values = arrays[name].values if name in arrays else None
    if values is None or values.ndim != 2 or values.size == 0:
        actual = f"shape {arrays[name].shape}" if name in arrays else f"only {', '.join(sorted(arrays))[:200]}"
        raise format_error(file, name, "a matrix of numbers", actual)
    values = values.T if shape[1] == 1 and values.shape[0] == 1 else values
    if any(want not in (None, got) for want, got in zip(shape, values.shape)):
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        raise format_error(file, name, f"a matrix {wanted}", f"{values.shape[0]} x {values.shape[1]}")
    require_plain(file, name, values)
    return values


def _shape(file: Path, arrays: dict[str, MatVariable], texture: bool) -> LinearParts:
    mean = _matrix(file, arrays, "shapeMU", (None, 1))[:, 0]
    if len(mean) % 3:
        raise format_error(file, "shapeMU", "3 V numbers", len(mean))
    basis = _matrix(file, arrays, "shapePC", (len(mean), None))
    deviation = _matrix(file, arrays, "shapeEV", (basis.shape[1], 1))[:, 0].astype(np.float64)
    parts = LinearParts(
        mean=mean.reshape(-1, 3),
        triangles=_triangles(file, arrays, len(mean) // 3),
        identity=columns(basis) * (1 / IDENTITY_SCALE),
        expression=np.zeros((len(mean) // 3, 3, 0), dtype=np.float32),
        identity_variance=(deviation * IDENTITY_SCALE) ** 2,
        expression_variance=np.zeros(0),
        notes={"expressions": "none"},
    )
    if not texture:
        return parts
    colours = _matrix(file, arrays, "texPC", (len(mean), None))
    spread = _matrix(file, arrays, "texEV", (colours.shape[1], 1))[:, 0]
    colour_mean = _matrix(file, arrays, "texMU", (len(mean), 1)).reshape(-1, 3) / 255
    return replace(parts, colour_mean=colour_mean, colour_basis=columns(colours) * (spread / 255).astype(np.float32))


def _triangles(file: Path, arrays: dict[str, MatVariable], n_vertices: int) -> Array:
    name = "tl" if "tl" in arrays else "tri"
    table = _matrix(file, arrays, name, (None, None))
    table = table.T if table.shape[0] == 3 else table
    if table.shape[1] != 3 or table.min() < 1 or table.max() > n_vertices or not (table == table.round()).all():
        raise format_error(file, name, f"a table T x 3 of vertices 1..{n_vertices}", f"{table.shape}, or others")
    return table.astype(np.int64) - 1


def _expression(file: Path, arrays: dict[str, MatVariable]) -> _Expression | None:
    if "expPC" in arrays:
        return _scaled_expression(file, arrays, ("expMU", "expPC", "expEV"))
    beside = file.with_name("Model_Expression.mat")
    if beside.is_file():
        return _scaled_expression(beside, _arrays(beside), ("mu_exp", "w_exp", "sigma_exp"))
    beside = file.with_name("Exp_Pca.bin")
    return _guo_expression(beside) if beside.is_file() else None


def _scaled_expression(file: Path, arrays: dict[str, MatVariable], names: tuple[str, str, str]) -> _Expression:
    mean = _matrix(file, arrays, names[0], (None, 1))[:, 0]
    basis = _matrix(file, arrays, names[1], (len(mean), None))
    deviation = _matrix(file, arrays, names[2], (basis.shape[1], 1))[:, 0].astype(np.float64)
    return _Expression(file.name, basis, deviation**2, mean)


def _guo_expression(file: Path) -> _Expression:
    content = read_bounded(file, least=8, limit=LARGEST)
    size = len(content)
    n = int(np.frombuffer(content, "<i4", 1)[0])
    if not 0 < n <= _MAX_COMPONENTS or (size - 4) % (12 * (n + 1)):
        raise format_error(file, "size", f"4 + 12 V ({n} + 1) bytes for {n} components", f"{size} bytes")
    rows = np.frombuffer(content, "<f4", offset=4).reshape(n + 1, -1)
    require_plain(file, "values", rows)
    listed = file.with_name("std_exp.txt")
    deviations = np.array([strict_float(word) for word in read_ascii(listed, limit=1 << 20).split()])
    if len(deviations) != n or not (np.abs(deviations) < 1e12).all():
        raise format_error(
            listed, "numbers", f"{n} standard deviations below 1e12", f"{len(deviations)}, or other words"
        )
    return _Expression(file.name, rows[1:].T * deviations.astype(np.float32), np.ones(n), None)


def _with_expression(file: Path, parts: LinearParts, expression: _Expression) -> LinearParts:
    if len(expression.basis) != 3 * len(parts.mean):
        expected = f"3 x {len(parts.mean)} rows, as the shape has"
        raise refused(file.with_name(expression.source), "expressions", expected, f"{len(expression.basis)} rows")
    mean = parts.mean if expression.mean is None else parts.mean + expression.mean.reshape(-1, 3)
    return replace(
        parts,
        mean=mean,
        expression=columns(expression.basis),
        expression_variance=expression.variance,
        notes={"expressions": expression.source},
    )


def _indices(file: Path, name: str, n_vertices: int) -> Array:
    """A list of different vertices, from 0; those of the file start at 1."""
    table = _matrix(file, _arrays(file), name, (None, 1))[:, 0]
    if table.min() < 1 or table.max() > n_vertices or len(np.unique(table)) != len(table):
        raise format_error(file, name, f"different vertices in 1..{n_vertices}", f"{table.min():g} to {table.max():g}")
    if not (table == table.round()).all():
        raise format_error(file, name, "whole numbers", "others")
    return table.astype(np.int64) - 1
