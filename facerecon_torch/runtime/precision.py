"""The package's own precision: an autocast around a call changes none of its results."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

__all__ = ["in_own_precision"]

_DEVICES = ("cpu", "cuda")
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def in_own_precision(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """`function`, whose arithmetic is done in the dtypes of its tensors, also where the caller has autocast on.

    Args:
        function: a public entrance. While torch.compile or torch.export trace it, it is left as it is.

    Returns:
        A function of the same signature.

    Example:
        >>> @in_own_precision
        ... def product(a, b):
        ...     return a @ b
    """

    @wraps(function)
    def call(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        lowered = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
        with ExitStack() as stack:
            for device in lowered:
                stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return call
