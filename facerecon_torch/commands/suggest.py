"""Answers to misspelt names: the nearest names that exist."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]

_MOST = 3


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names of `known`, best first. A dotted name is compared as a whole and by its last part, so that
    `stages` finds `cascade.stages`."""
    names = sorted(set(known))
    last = name.rpartition(".")[2]
    by_last: dict[str, list[str]] = {}
    for candidate in names:
        by_last.setdefault(candidate.rpartition(".")[2], []).append(candidate)
    longer = [candidate for candidate in names if candidate.startswith(name)]
    by_full = get_close_matches(name, names, _MOST, 0.7)
    close = [full for part in get_close_matches(last, by_last, _MOST, 0.7) for full in by_last[part]]
    found = by_last.get(last) or [*longer, *by_full, *close] or get_close_matches(name, names, _MOST, 0.6)
    return list(dict.fromkeys(found))[:_MOST]


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean 'a', 'b' or 'c'?` with the nearest of the known names; `otherwise` if none is near."""
    found = [repr(candidate) for candidate in _nearest(name, known)]
    if not found:
        return otherwise
    return f"did you mean {' or '.join([*filter(None, [', '.join(found[:-1])]), found[-1]])}?"
