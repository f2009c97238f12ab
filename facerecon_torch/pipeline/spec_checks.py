"""Checks that the specs of several config groups share."""

__all__ = ["require_count"]


def require_count(key: str, value: object, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`; `key` is how the user spells it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key} must be an integer of at least {least}; got {value!r}")
