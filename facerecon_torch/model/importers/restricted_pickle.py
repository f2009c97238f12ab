"""Pickles of arrays, read without running code.

A pickle is a program that may call anything. This reader accepts only the names with which arrays are pickled, by
Python 2 and 3 in every protocol, and replaces each by a class of its own that stores the arguments. No code of numpy,
scipy, chumpy or the file is called. Arrays are made afterwards from the stored arguments, with every count checked.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.formats.format_errors import read_bounded, shown
from facerecon_torch.model.importers.imported import as_model_errors, refused

__all__ = ["plain_array", "read_pickled_array", "read_restricted_pickle"]

LARGEST = 1 << 30
_MOST_STEPS = 20_000  # models have hundreds; bounds the nesting, which Python follows by recursion
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _Kept:
    """The arguments and the state of an object in a pickle."""

    arguments: tuple[Any, ...] = ()  # pickles also make objects without their __init__
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Kept):
    """numpy.dtype(code, align, copy) with the state (version, byte order, ...)."""


class _Array(_Kept):
    """numpy.ndarray with the state (version, shape, dtype, column-major, bytes)."""


class _Held(_Kept):
    """chumpy.Ch, whose state is a dict with its array as `x`; or a scipy.sparse matrix or a set, which are ignored."""


def _reconstruct(*arguments: Any) -> _Array:
    return _Array(*arguments)


def _from_buffer(*arguments: Any) -> _Array:
    """An array of protocol 5: bytes, dtype, shape, order."""
    array = _Array()
    if len(arguments) == 4:
        content, dtype, shape, order = arguments
        array.state = (1, shape, dtype, order == "F", content)
    return array


def _object_of(cls: Any, *_: Any) -> Any:
    """An empty object of a class, as copyreg makes it for old protocols."""
    return cls() if cls in (_Array, _Held) else _Kept()


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    """The bytes that protocol 2 writes as text."""
    if not isinstance(text, str) or coding != "latin1":
        raise pickle.UnpicklingError("text to encode as latin1")
    return text.encode("latin1")


_NUMPY = ("numpy.core", "numpy._core")
_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _NUMPY},
    **{(module, "_reconstructor"): _object_of for module in ("copyreg", "copy_reg")},
    **{(module, "object"): _Kept for module in ("builtins", "__builtin__")},
    **{(module, "set"): _Held for module in ("builtins", "__builtin__")},  # in the state of a chumpy.Ch
    **{(f"scipy.sparse.{module}{kind}", f"{kind}_matrix"): _Held for kind in ("csc", "csr") for module in ("", "_")},
    **{("scipy.sparse", f"{kind}_matrix"): _Held for kind in ("csc", "csr")},
}


class _Refusal(Exception):
    """A name that is not allowed."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "chumpy" or module.startswith("chumpy."):
            return _Held  # any of its classes: the package is not imported
        if (module, name) not in _NAMES:
            raise _Refusal(f"{module}.{name}")
        return _NAMES[module, name]


def read_restricted_pickle(path: str | Path) -> dict[str, Any]:
    """The dict of a pickle file; `plain_array` converts its values.

    Args:
        path: The file.

    Raises:
        ModelFileError: The file is no complete pickle of a dict with text keys, or names anything but arrays. It is
            refused without being run.
    """
    file = Path(path)
    loaded = _load(file)
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise refused(file, "pickle", "a dict with text keys", type(loaded).__name__)
    return loaded


def read_pickled_array(path: str | Path) -> NDArray[Any]:
    """The array of a pickle file that holds nothing else.

    Args:
        path: The file.

    Raises:
        ModelFileError: The file is no complete pickle of an array of numbers. It is refused without being run.
    """
    return plain_array(Path(path), "pickle", _load(Path(path)))


def _load(file: Path) -> object:
    """The object of a pickle, with stand-ins for arrays. Raises ModelFileError."""
    with as_model_errors():
        content = read_bounded(file, limit=LARGEST)
    try:
        _require_modest(content)
        return _Reader(io.BytesIO(content), encoding="latin1").load()
    except _Refusal as error:
        raise refused(file, "pickle", "only arrays", f"{error}: refused, not run") from None
    except Exception as error:  # a damaged pickle can fail in any way that its steps can
        raise refused(
            file, "pickle", "a whole pickle of arrays", f"{type(error).__name__}: {shown(str(error))}"
        ) from error


def _require_modest(content: bytes) -> None:
    """Raise ValueError for too many steps or memo places, without executing a step.

    Python's reader allocates memory for any memo place that a file names, however large.
    """
    for step, (name, argument) in enumerate(_steps(content)):
        if step >= _MOST_STEPS or (name in _MEMO and int(argument or 0) > _MOST_STEPS):
            raise ValueError(f"more than {_MOST_STEPS} steps or places")


def _steps(content: bytes) -> Iterator[tuple[str, Any]]:
    """The names and arguments of a pickle's steps.

    `pickletools.genops` takes only ASCII in the quoted bytes of protocol 0, where arrays have all bytes; these are
    passed over.
    """
    stream = io.BytesIO(content)
    name = ""
    while name != "STOP":
        opcode = _OPCODES.get(stream.read(1).decode("latin1"))
        if opcode is None:
            raise ValueError("an unknown step, or no last one")
        name, argument = opcode.name, None
        if name == "STRING":
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
        yield name, argument


def plain_array(file: Path, name: str, value: object) -> NDArray[Any]:
    """The array of numbers under `name`, stored directly or in a chumpy.Ch.

    Raises ModelFileError for anything else, and for bytes that do not fit type and shape.
    """
    if isinstance(value, _Held) and isinstance(value.state, dict):
        value = value.state.get("x")
    state = value.state if isinstance(value, _Array) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise refused(file, name, "an array", type(value).__name__.strip("_"))
    _, shape, dtype, column_major, content = state
    kind = _dtype(file, name, dtype)
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 8:
        raise refused(file, name, "a shape of whole numbers", shown(shape))
    content = content.encode("latin1", "replace") if isinstance(content, str) else content
    count = kind.itemsize
    for size in shape:
        count *= size
    if not isinstance(content, bytes | bytearray) or len(content) != count:
        actual = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else type(content).__name__
        raise refused(file, name, f"{count} bytes ({kind} of shape {shape})", actual)
    return np.frombuffer(content, kind).reshape(shape, order="F" if column_major else "C")


def _dtype(file: Path, name: str, held: object) -> np.dtype[Any]:
    code = held.arguments[0] if isinstance(held, _Dtype) and held.arguments else None
    state = held.state if isinstance(held, _Dtype) else None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if not isinstance(code, str) or code not in _NUMBERS or order not in ("<", ">", "=", "|"):
        raise refused(file, name, f"numbers of a type in {_NUMBERS}", f"{shown(code)}, byte order {shown(order)}")
    return np.dtype(f"{order}{code}")
