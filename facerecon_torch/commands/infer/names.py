"""A name for the result files of every image of a run."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["result_names"]

_RESERVED = frozenset({"parameters", "failures"})  # of the files of a whole run
_LONGEST = 200  # bytes of a name; file systems take 255, suffixes and all


def result_names(images: Sequence[Path]) -> dict[Path, str]:
    """A name for every image that no other image's files take, also where capitals and small letters are one.

    It is the image's stem; with its suffix, `photo_jpg`, where several images have that stem; and with a digest of its
    path where that is taken too, reserved, or long.
    """
    stems = Counter(_without_face(path.stem) for path in images)
    alone = [path for path in images if stems[_without_face(path.stem)] == 1]
    wanted = {path: path.stem for path in alone} | {
        path: path.name.replace(".", "_") for path in images if stems[_without_face(path.stem)] > 1
    }
    names: dict[Path, str] = {}
    taken = set(_RESERVED)
    for path, name in wanted.items():
        if _without_face(name) in taken or len(os.fsencode(name)) > _LONGEST:
            name = f"{_cut(name)}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
        taken.add(_without_face(name))
        names[path] = name
    return names


def _without_face(name: str) -> str:
    return re.sub(r"_face\d+$", "", name).casefold()


def _cut(name: str) -> str:
    """The name, up to as many bytes as leave room for a digest."""
    return os.fsencode(name)[: _LONGEST - 9].decode(errors="ignore")
