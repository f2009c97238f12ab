"""The specs that `_target_` names in a config, and the types of their values."""

import inspect
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object

__all__ = ["require_type", "spec_target"]

_PACKAGE = "facerecon_torch."
_NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def spec_target(name: object) -> Any:
    """The dataclass of this package, or its function that returns one, which a `_target_` names.

    A config may come from somebody else: nothing else is imported or called.

    Raises:
        ValueError: `name` is anything else.

    Example:
        >>> spec_target("facerecon_torch.data.splits.CvSpec")
        <class 'facerecon_torch.data.splits.CvSpec'>
    """
    target: Any = None
    if isinstance(name, str) and name.startswith(_PACKAGE):
        try:
            target = get_object(name)
        except Exception as error:
            raise ValueError(f"_target_ must name a spec of this package; got {name!r}: {error}") from None
    made = get_type_hints(target).get("return") if inspect.isfunction(target) else target
    if not (is_dataclass(made) and isinstance(made, type) and target.__module__.startswith(_PACKAGE)):
        raise ValueError(f"_target_ must name a spec of this package; got {name!r}")
    return target


def require_type(key: str, value: Any, expected: Any) -> None:
    """Raise ValueError unless a value of a config has the annotated type; a whole number is a number too.

    Example:
        >>> require_type("batch", "many", int | None)
        Traceback (most recent call last):
        ...
        ValueError: batch must be a whole number or null; got 'many'
    """
    if not _matches(value, expected):
        raise ValueError(f"{key} must be {_noun(expected)}; got {value!r}")


def _matches(value: Any, expected: Any) -> bool:
    origin, inner = get_origin(expected), get_args(expected)
    if expected is Any or origin is type or isinstance(expected, str):
        return True
    if origin in (Union, types.UnionType):
        return any(_matches(value, choice) for choice in inner)
    if origin is Literal:
        return value in inner
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or expected
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Collection) and kind is not str:
        return isinstance(value, Mapping if issubclass(kind, Mapping) else tuple) and (
            not inner or issubclass(kind, Mapping) or all(_matches(entry, inner[0]) for entry in value)
        )
    return isinstance(value, kind)


def _noun(expected: Any) -> str:
    origin, inner = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return " or ".join(_noun(choice) for choice in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return "a list" + (f" of {_noun(inner[0])}" if inner else "")
    return _NOUNS.get(expected, getattr(expected, "__name__", str(expected)))
