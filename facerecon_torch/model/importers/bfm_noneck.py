"""The Basel Face Model of 3DDFA_V2: bfm_noneck_v3.pkl, in micrometres; V = 38365 vertices.

    u [3 V, 1] | w_shp [3 V, 40] | w_exp [3 V, 10] | tri [3, T] from 0 (also in tri.pkl beside it, which wins)

Further columns of the bases are not used, as 3DDFA_V2 does not use them.

The spread of the weights is in param_mean_std_62d_120x120.pkl of the same release: `mean` and `std` of 12 numbers of
the pose, then of the 40 and 10 weights, over its training faces.

Written from the public code that reads these files; the real ones were not at hand.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from facerecon_torch.model.importers.imported import ImportedModel, refused, require_plain
from facerecon_torch.model.importers.linear_parts import Array, LinearParts, assemble, columns
from facerecon_torch.model.importers.restricted_pickle import plain_array, read_pickled_array, read_restricted_pickle

__all__ = ["read_bfm_noneck"]

IDENTITY_SCALE = 1e-5  # our alpha per unit of the file's, as in bfm2009
MM_PER_UNIT = 1e-3
SPREAD_FILE, TRIANGLE_FILE = "param_mean_std_62d_120x120.pkl", "tri.pkl"
_N_POSE, _N_SHAPE, _N_EXPRESSION = 12, 40, 10


def read_bfm_noneck(
    path: str | os.PathLike[str],
    spread: str | os.PathLike[str] | None = None,
    *,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model; alpha = 1e-5 times 3DDFA's shape weights, beta = its expression weights.

    The variance of a weight is its mean square over the training faces, about the face of zero weights.

    Args:
        path: The .pkl file, which is read without running it.
        spread: The file with `mean` and `std`; by default param_mean_std_62d_120x120.pkl beside the model.
        n_identity: Largest number of identity columns.
        n_expression: Largest number of expression columns.

    Raises:
        ModelFileError: A file is missing or damaged, names code, or the arrays do not fit together.
    """
    file = Path(path)
    arrays = read_restricted_pickle(file)
    mean = _matrix(file, arrays, "u", None)
    if mean.size % 3 or mean.shape[1] != 1:
        raise refused(file, "u", "3 V numbers in one column", mean.shape)
    shape, expression = (_matrix(file, arrays, name, len(mean)) for name in ("w_shp", "w_exp"))
    shape, expression = shape[:, :_N_SHAPE], expression[:, :_N_EXPRESSION]
    n, m = shape.shape[1], expression.shape[1]
    squares = _squares(file.with_name(SPREAD_FILE) if spread is None else Path(spread), n, m)
    n_vertices = len(mean) // 3
    parts = LinearParts(
        mean=mean.reshape(-1, 3),
        triangles=_triangles(file, arrays, n_vertices),
        identity=columns(shape) * (1 / IDENTITY_SCALE),
        expression=columns(expression),
        identity_variance=squares[:n] * IDENTITY_SCALE**2,
        expression_variance=squares[n:],
    )
    return assemble(
        file,
        parts,
        unit_mm=MM_PER_UNIT,
        topology_name=f"bfm_{n_vertices}",
        centre=False,
        n_identity=n_identity,
        n_expression=n_expression,
    )


def _matrix(file: Path, arrays: dict[str, Any], name: str, n_rows: int | None) -> Array:
    """The matrix of floats under `name`; a vector is one column."""
    if name not in arrays:
        raise refused(file, name, "an array of that name", f"only {', '.join(sorted(arrays))[:200]}")
    values = plain_array(file, name, arrays[name])
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.dtype.kind != "f" or values.size == 0 or n_rows not in (None, len(values)):
        rows = "any" if n_rows is None else n_rows
        raise refused(file, name, f"numbers of shape [{rows}, any]", f"{values.dtype} {values.shape}")
    require_plain(file, name, values)
    return values


def _squares(file: Path, n: int, m: int) -> Array:
    """The mean squares [n + m] of the weights of shape and expression."""
    arrays = read_restricted_pickle(file)
    mean, deviation = (_matrix(file, arrays, name, _N_POSE + n + m).astype(np.float64) for name in ("mean", "std"))
    if mean.shape[1] != 1 or deviation.shape != mean.shape:
        raise refused(file, "mean and std", f"{_N_POSE + n + m} numbers each", f"{mean.shape}, {deviation.shape}")
    squares: Array = (mean**2 + deviation**2)[_N_POSE:, 0]
    return squares


def _triangles(file: Path, arrays: dict[str, Any], n_vertices: int) -> Array:
    beside = file.with_name(TRIANGLE_FILE)
    if beside.is_file():
        table, source = read_pickled_array(beside), beside
    elif "tri" in arrays:
        table, source = plain_array(file, "tri", arrays["tri"]), file
    else:
        raise refused(file, "tri", f"triangles in the file, or in {TRIANGLE_FILE} beside it", "neither")
    table = table.T if table.ndim == 2 and table.shape[0] == 3 != table.shape[1] else table
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu" or len(table) == 0:
        raise refused(source, "tri", "whole numbers of shape [3, T] or [T, 3]", f"{table.dtype} {table.shape}")
    if table.min() < 0 or table.max() >= n_vertices:
        raise refused(source, "tri", f"vertices in 0..{n_vertices - 1}", f"{table.min()} to {table.max()}")
    return table.astype(np.int64)
