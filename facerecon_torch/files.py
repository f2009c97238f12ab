"""How the package writes files: under another name first, then renamed, so that no reader meets half a file."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["is_disk_full", "path_text", "replacing", "require_space", "write_bytes", "write_json"]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new path beside `path`; on success it takes the place of `path`, on an exception it is removed.

    Makes the folders above `path`. The file gets the permissions of any new file of the user. Several processes may
    write the same path: each has a file of its own, and the last rename stays.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{uuid.uuid4().hex}.part")  # short: `target` may have the longest of names
    try:
        aside.touch()
        mode = aside.stat().st_mode  # what the user's umask makes of a new file; some writers make theirs private
        aside.unlink()
        yield aside
        aside.chmod(mode)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file aside and rename it."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON document aside and rename it. Raises ValueError for NaN and infinity, which JSON lacks."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as text that every encoding of Unicode takes: bytes of its name that are no UTF-8 become `\\udcff`."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of `folder`, which may not exist yet, has `needed` bytes left."""
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(f"{folder} needs about {needed / 1e9:.1f} GB more; {free / 1e9:.1f} GB are free at {existing}")


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write because the disk or the user's quota is full."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL
