"""The words `key=value` of a benchmark's command line."""

from collections.abc import Iterable, Sequence

__all__ = ["read_keys"]


def read_keys(words: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """The values by key.

    Raises:
        ValueError: a key that is not among `known`.

    Example:
        >>> read_keys(["set=FOLDER"], ("set", "cascade"))
        {'set': 'FOLDER'}
    """
    keys, named = dict(word.partition("=")[::2] for word in words), list(known)
    if unknown := sorted(set(keys) - set(named)):
        raise ValueError(f"keys must be {', '.join(named)}; got {', '.join(unknown)}")
    return keys
