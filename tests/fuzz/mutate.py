"""Mutated copies of a file's bytes: damage, and counts and numbers that lie."""

import random
import re
from collections.abc import Callable, Iterator

__all__ = ["mutations"]

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_TEXTS = (
    *(b"nan", b"inf", b"-inf", b"-1", b"0", b"1e999", b"1e308", b"1e-320", b"4294967296", b"9223372036854775807"),
    *(
        b"-9223372036854775809",
        b"9" * 5000,
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"',
        b"[" * 3000,
        b'{"a":' * 2000,
        b"%",
        b"\\",
    ),
)
_WORDS = (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\1\0\0\0")
_LONGS = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff" * 7 + b"\x7f",
    b"\0" * 6 + b"\xf8\x7f",
    b"\0\0\0\0\1\0\0\0",
    b"\1" + b"\0" * 7,
)


def mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """`count` copies of `content` with one to three changes each; the same ones for the same seed."""
    draw = random.Random(seed)
    numbers = [match.span() for match in _NUMBER.finditer(content[:100_000])]
    for _ in range(count):
        changed = content
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            if numbers and draw.random() < 0.2:
                low, high = draw.choice(numbers)
                changed = changed[:low] + draw.choice(_TEXTS) + changed[high:]
            else:
                changed = draw.choice(_CHANGES)(changed, draw)
        yield changed


def _place(content: bytes, draw: random.Random) -> int:
    """A place in the file; headers, which hold the counts, as often as all the rest."""
    return draw.randrange(min(len(content), 64) if draw.random() < 0.5 else len(content)) if content else 0


def _flip(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    return content[:place] + bytes((draw.randrange(256),)) + content[place + 1 :]


def _overwrite(content: bytes, draw: random.Random) -> bytes:
    place, new = _place(content, draw), draw.choice(_WORDS + _LONGS)
    return content[:place] + new + content[place + len(new) :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _remove(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    return content[:place] + content[place + draw.randrange(1, 40) :]


def _insert(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    return content[:place] + draw.choice((draw.choice(_TEXTS), draw.randbytes(draw.randrange(1, 20)))) + content[place:]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    part = content[place : place + draw.randrange(1, 60)]
    return content[:place] + part * draw.randrange(2, 5) + content[place + len(part) :]


def _swap(content: bytes, draw: random.Random) -> bytes:
    """Lines in another order."""
    lines = content.split(b"\n")
    a, b = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _overwrite,
    _cut,
    _remove,
    _insert,
    _repeat,
    _swap,
)
