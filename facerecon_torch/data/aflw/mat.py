"""MATLAB 5 files of plain numeric arrays with known names and shapes."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from facerecon_torch.files import replacing
from facerecon_torch.formats.format_errors import damaged, require_range
from facerecon_torch.formats.matlab5 import MatVariable, iter_variables

__all__ = ["ArraySpec", "read_arrays", "save_arrays"]

_HUGE = 1e12  # beyond any weight of these files, far below what overflows float32


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape of one variable and the type it is written with."""

    shape: tuple[int, int]
    dtype: str = "float64"


def read_arrays(path: str | os.PathLike[str], specs: dict[str, ArraySpec]) -> dict[str, NDArray[np.float64]]:
    """The variables of `specs` in float64, as they stand in the file; other variables are passed over.

    Raises DataFileError for a file that is not MATLAB 5 (see `iter_variables`), a missing or repeated variable, one
    that is not a real numeric array of its shape, NaN and numbers beyond 1e12.
    """
    file = Path(path)
    arrays: dict[str, NDArray[np.float64]] = {}
    names: list[str] = []
    for variable in iter_variables(file):
        names.append(variable.name)
        if variable.name in arrays:
            raise damaged(file, variable.name, "one variable of this name", "two")
        if variable.name in specs:
            arrays[variable.name] = _checked(file, variable, specs[variable.name])
    for key in specs:
        if key not in arrays:
            raise damaged(file, key, "a variable of this name", ", ".join(names[:12]) or "no variable at all")
    return arrays


def _checked(file: Path, variable: MatVariable, spec: ArraySpec) -> NDArray[np.float64]:
    if variable.values is None or variable.shape != spec.shape:
        kind = "no such array" if variable.values is None else str(variable.values.dtype)
        came = f"{kind} of shape {variable.shape}"
        raise damaged(file, variable.name, f"a real numeric array of shape {spec.shape}", came)
    with np.errstate(invalid="ignore"):  # a damaged NaN is refused below, without a warning
        values = variable.values.astype(np.float64)
    require_range(file, variable.name, values, -_HUGE, _HUGE, unit="")
    return values


def save_arrays(
    arrays: dict[str, NDArray[np.float64]], path: str | os.PathLike[str], specs: dict[str, ArraySpec]
) -> Path:
    """Write each array with the shape and type of its spec, uncompressed; returns the path.

    Raises ValueError for a missing or unknown name, another number of values, NaN, and values its type cannot hold.
    """
    if set(arrays) != set(specs):
        raise ValueError(f"arrays must be named {sorted(specs)}; got {sorted(arrays)}")
    typed = {key: _typed(key, values, specs[key]) for key, values in arrays.items()}
    target = Path(path)
    ordered = {key: typed[key] for key in specs}
    with replacing(target) as aside:
        scipy.io.savemat(aside, ordered, appendmat=False, format="5", do_compression=False)
    return target


def _typed(key: str, values: NDArray[np.float64], spec: ArraySpec) -> NDArray[np.generic]:
    if values.size != spec.shape[0] * spec.shape[1]:
        raise ValueError(f"{key} must hold {spec.shape[0]} x {spec.shape[1]} values; got shape {values.shape}")
    limit = float(np.iinfo(spec.dtype).max) if spec.dtype.startswith("int") else _HUGE
    if not bool((np.abs(values) <= limit).all()):  # this form refuses NaN too
        raise ValueError(f"{key} must hold finite numbers up to {limit:g} in size; it does not")
    shaped = values.reshape(spec.shape)
    return shaped.round().astype(spec.dtype) if spec.dtype.startswith("int") else shaped.astype(spec.dtype)
