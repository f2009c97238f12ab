"""MATLAB 5 files of plain numeric arrays, their keys and shapes checked before anything is decoded."""

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from facerecon_torch.data.damage import damaged, file_size, require_range
from facerecon_torch.images.write import replacing

__all__ = ["ArraySpec", "read_arrays", "save_arrays"]

_HEADER = 128
_LIMIT = 16 * 1024 * 1024
_HUGE = 1e12  # beyond any weight of these files, far below what overflows float32
_CLASSES = frozenset({"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))})


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape of one variable, the type it is written with, and whether a file may lack it."""

    shape: tuple[int, int]
    dtype: str = "float64"
    optional: bool = False


def read_arrays(path: str | os.PathLike[str], specs: dict[str, ArraySpec]) -> dict[str, NDArray[np.float64]]:
    """The variables of `specs` in float64, as they stand in the file; other variables are passed over.

    Raises DataFileError for a file that is not MATLAB 5, a missing or repeated variable, one that is not a real
    numeric array of its shape, NaN and numbers beyond 1e12.
    """
    file = Path(path)
    content = _content(file)
    _check_directory(file, content, specs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # scipy warns of a variable it cannot read and hands on a text
            loaded = scipy.io.loadmat(io.BytesIO(content), variable_names=list(specs))
    except Exception as error:  # scipy answers damaged bytes with almost any type of exception
        raise damaged(file, "content", "readable MATLAB 5 arrays", f"{type(error).__name__}: {error}") from error
    return {key: _checked(file, key, loaded[key], spec) for key, spec in specs.items() if key in loaded}


def _content(file: Path) -> bytes:
    size = file_size(file)
    if not _HEADER < size <= _LIMIT:
        raise damaged(file, "size", f"{_HEADER + 1} to {_LIMIT} bytes", f"{size} bytes")
    content = file.read_bytes()
    if content[:6] != b"MATLAB" or content[124:128] != b"\x00\x01IM":
        came = f"{content[:6]!r} .. {content[124:128]!r}"
        raise damaged(file, "header", "a little-endian MATLAB 5 file (b'MATLAB' .. version 0x0100, b'IM')", came)
    return content


def _check_directory(file: Path, content: bytes, specs: dict[str, ArraySpec]) -> None:
    """Names, shapes and classes from the headers of the variables alone: no array is made for a damaged size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            entries = scipy.io.whosmat(io.BytesIO(content))
    except Exception as error:
        raise damaged(file, "directory", "readable MATLAB 5 variables", f"{type(error).__name__}: {error}") from error
    for key, spec in specs.items():
        found = [(shape, kind) for name, shape, kind in entries if name == key]
        if len(found) > 1 or (not found and not spec.optional):
            names = ", ".join(str(name)[:20] for name, _, _ in entries[:12]) or "none"
            raise damaged(file, key, "one variable of this name", f"{len(found)} (variables: {names})")
        for shape, kind in found:
            if tuple(shape) != spec.shape or kind not in _CLASSES:
                raise damaged(file, key, f"a numeric array of shape {spec.shape}", f"{kind} of shape {tuple(shape)}")


def _checked(file: Path, key: str, value: object, spec: ArraySpec) -> NDArray[np.float64]:
    if not isinstance(value, np.ndarray) or value.shape != spec.shape or value.dtype.kind not in "iuf":
        came = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise damaged(file, key, f"a real numeric array of shape {spec.shape}", came)
    values = value.astype(np.float64)
    require_range(file, key, values, -_HUGE, _HUGE, unit="")
    return values


def save_arrays(
    arrays: dict[str, NDArray[np.float64]], path: str | os.PathLike[str], specs: dict[str, ArraySpec]
) -> Path:
    """Write each array with the shape and type of its spec, uncompressed; returns the path.

    Raises ValueError for a missing or unknown name, another number of values, NaN, and values its type cannot hold.
    """
    required = {key for key, spec in specs.items() if not spec.optional}
    if not required <= set(arrays) <= set(specs):
        raise ValueError(f"arrays must be named {sorted(specs)}; got {sorted(arrays)}")
    typed = {key: _typed(key, values, specs[key]) for key, values in arrays.items()}
    target = Path(path)
    with replacing(target) as aside, open(aside, "wb") as stream:
        scipy.io.savemat(stream, {key: typed[key] for key in specs if key in typed}, format="5", do_compression=False)
    return target


def _typed(key: str, values: NDArray[np.float64], spec: ArraySpec) -> NDArray[np.generic]:
    if values.size != spec.shape[0] * spec.shape[1]:
        raise ValueError(f"{key} must hold {spec.shape[0]} x {spec.shape[1]} values; got shape {values.shape}")
    limit = float(np.iinfo(spec.dtype).max) if spec.dtype.startswith("int") else _HUGE
    if not bool((np.abs(values) <= limit).all()):  # this form refuses NaN too
        raise ValueError(f"{key} must hold finite numbers up to {limit:g} in size; it does not")
    shaped = values.reshape(spec.shape)
    return shaped.round().astype(spec.dtype) if spec.dtype.startswith("int") else shaped.astype(spec.dtype)
