"""A name for the result files of every image of a run."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TypeVar

__all__ = ["result_names"]

_K = TypeVar("_K", bound=Hashable)
_RESERVED = frozenset({"parameters", "plan", "progress", "quarantine", "run", "faces"})  # of the files of a whole run
_LONGEST = 200  # bytes of a name; file systems take 255, suffixes and all


def result_names(images: Mapping[_K, Path]) -> dict[_K, str]:
    """The name of every image by its key; no other image's files take it, also where capitals are small letters.

    It is the image's stem; with its suffix, `photo_jpg`, where several images have that stem; and with a digest of its
    path where that is taken too, reserved, or long.

    Args:
        images: paths by any key.
    """
    stems = Counter(_without_face(path.stem) for path in images.values())
    alone = {key: path.stem for key, path in images.items() if stems[_without_face(path.stem)] == 1}
    wanted = alone | {key: path.name.replace(".", "_") for key, path in images.items() if key not in alone}
    names: dict[_K, str] = {}
    taken = set(_RESERVED)
    for key, name in wanted.items():
        if not name or _without_face(name) in taken or len(os.fsencode(name)) > _LONGEST:
            name = f"{_cut(name)}_{hashlib.sha256(os.fsencode(images[key])).hexdigest()[:8]}"
        while _without_face(name) in taken:  # the same image twice
            name = f"{_cut(name)}_{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
        taken.add(_without_face(name))
        names[key] = name
    return names


def _without_face(name: str) -> str:
    return re.sub(r"_face\d+$", "", name).casefold()


def _cut(name: str) -> str:
    """The name, up to as many bytes as leave room for a digest."""
    return os.fsencode(name)[: _LONGEST - 9].decode(errors="ignore")
