"""Basel Face Models of 2017 and 2019, and that of 2009 in the same form: HDF5 (statismo), in mm.

    shape | expression | color, each with
    model/mean [3 V] | model/pcaBasis [3 V, n], unit columns | model/pcaVariance [n] | representer/cells [3, T] from 0

The mean of the expression is an offset of the neutral face. Colours are RGB in [0, 1]. Needs h5py
(`pip install facerecon-torch[importers]`).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from facerecon_torch.errors import ModelFileError
from facerecon_torch.formats.format_errors import file_size
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused, require_plain
from facerecon_torch.model.importers.linear_parts import Array, LinearParts, assemble, columns

__all__ = ["read_bfm_h5"]

TOPOLOGIES = {53149: "bfm2017_nomouth", 53490: "bfm2009_53490"}
LARGEST = 1 << 32  # values of one array, in bytes


def read_bfm_h5(
    path: str | os.PathLike[str],
    *,
    texture: bool = False,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model of an `.h5` file; alpha and beta in standard deviations (variance 1).

    Args:
        path: The file.
        texture: Whether to read the colour model.
        n_identity: Largest number of identity columns.
        n_expression: Largest number of expression columns.

    Raises:
        ModelFileError: The file is damaged, arrays are missing or do not fit together, or h5py is not installed.
    """
    file = Path(path)
    groups = _read(file, texture)
    shape, expression, colour = groups["shape"], groups.get("expression"), groups.get("color")
    for name, group in groups.items():
        if len(group["mean"]) != len(shape["mean"]):
            expected = f"{len(shape['mean'])} numbers, as the shape has"
            raise refused(file, f"{name}/model", expected, len(group["mean"]))
    mean, basis, cells = shape["mean"], shape["basis"], shape["cells"]
    none = np.zeros((len(mean), 0), dtype=np.float32)
    if expression is not None:
        mean = mean + expression["mean"]
    if texture and colour is None:
        raise refused(file, "color/model", "a colour model", "none")
    parts = LinearParts(
        mean=mean.reshape(-1, 3),
        triangles=cells,
        identity=columns(basis),
        expression=columns(none if expression is None else expression["basis"]),
        identity_variance=np.ones(basis.shape[1]),
        expression_variance=np.ones(0 if expression is None else expression["basis"].shape[1]),
        colour_mean=None if colour is None else colour["mean"].reshape(-1, 3),
        colour_basis=None if colour is None else columns(colour["basis"]),
    )
    n_vertices = len(parts.mean)
    return assemble(
        file,
        parts,
        unit_mm=1.0,
        topology_name=TOPOLOGIES.get(n_vertices, f"bfm_h5_{n_vertices}"),
        n_identity=n_identity,
        n_expression=n_expression,
    )


def _read(file: Path, texture: bool) -> dict[str, dict[str, Array]]:
    try:
        import h5py
    except ImportError as error:
        expected = "h5py (pip install facerecon-torch[importers])"
        raise refused(file, "reader", expected, "an installation without it") from error
    with as_model_errors():
        file_size(file)
    wanted = ("shape", "expression", "color") if texture else ("shape", "expression")
    try:
        with h5py.File(file, "r") as opened:
            groups = {name: _group(file, opened, name) for name in wanted if f"{name}/model" in opened}
            if "shape" not in groups:
                raise refused(file, "shape/model", "the arrays of a Basel Face Model", "none")
            groups["shape"]["cells"] = _cells(file, opened)
    except ModelFileError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise refused(file, "file", "a whole HDF5 file", f"{type(error).__name__}: {error}") from error
    return groups


def _group(file: Path, opened: Any, name: str) -> dict[str, Array]:
    mean = _values(file, opened, f"{name}/model/mean", "f").reshape(-1)
    basis = _values(file, opened, f"{name}/model/pcaBasis", "f")
    variance = _values(file, opened, f"{name}/model/pcaVariance", "f").reshape(-1)
    if basis.ndim != 2 or len(basis) != len(mean) or basis.shape[1] != len(variance) or len(mean) % 3 or not len(mean):
        actual = f"mean {mean.shape}, basis {basis.shape}, variances {variance.shape}"
        raise refused(file, f"{name}/model", "a mean of 3 V numbers, a basis 3 V x n and n variances", actual)
    if len(variance) and not float(variance.min()) >= 0:
        raise refused(file, f"{name}/model/pcaVariance", "no negative number", float(variance.min()))
    return {"mean": mean, "basis": basis * np.sqrt(variance)}


def _cells(file: Path, opened: Any) -> Array:
    place = next((p for p in ("shape/representer/cells", "representer/cells") if p in opened), None)
    if place is None:
        raise refused(file, "shape/representer/cells", "triangles", "none")
    cells = _values(file, opened, place, "iu")
    if cells.ndim != 2 or 3 not in cells.shape:
        raise refused(file, place, "a table 3 x T", cells.shape)
    return cells.T if cells.shape[0] == 3 else cells


def _values(file: Path, opened: Any, name: str, kinds: str) -> Array:
    """The values of one array, whose type and size are checked before it is read."""
    found = opened.get(name)
    dtype, size = getattr(found, "dtype", None), getattr(found, "size", None)
    if not isinstance(dtype, np.dtype) or dtype.kind not in kinds or not size or size * dtype.itemsize > LARGEST:
        expected = f"{'numbers' if kinds == 'f' else 'whole numbers'} of at most {LARGEST} bytes"
        raise refused(file, name, expected, "none" if found is None else f"{size} of type {dtype}")
    values = np.asarray(found[()])
    require_plain(file, name, values)
    return values
