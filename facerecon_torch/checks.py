"""Border guards: each names the argument, what was required and what came."""

from pathlib import Path

import torch
from torch import Tensor

__all__ = ["require_count", "require_file", "require_finite", "require_positive", "require_shape"]


def require_shape(name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless the trailing axes of `value` match `shape` (None accepts any length)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    trailing = tuple(value.shape[value.ndim - len(shape) :]) if value.ndim >= len(shape) else None
    if trailing is None or any(want is not None and want != got for want, got in zip(shape, trailing)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have trailing shape ({wanted}); got {tuple(value.shape)}")


def require_finite(name: str, value: Tensor) -> None:
    """Raise ValueError where `value` holds NaN or infinity."""
    if not value.numel():
        return
    low, high = value.detach().aminmax()  # NaN wins in both: one pass without a table of flags
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} must be finite; {bad} of {value.numel()} values are not")


def require_file(name: str, path: Path) -> None:
    """Raise FileNotFoundError unless `path` is an existing file."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"{name} must be an existing file; {what} is at {path}")


def require_count(key: str, value: object, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`; `key` is how the user spells it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key} must be an integer of at least {least}; got {value!r}")


def require_positive(spec: object, *names: str) -> None:
    """Raise ValueError unless the attributes of these names are positive and finite numbers."""
    for name in names:
        if not 0 < getattr(spec, name) < float("inf"):
            raise ValueError(f"{name} must be positive and finite; got {getattr(spec, name)}")
