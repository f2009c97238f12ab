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

__all__ = ["is_disk_full", "replacing", "require_space", "write_bytes", "write_json"]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new path beside `path`, which replaces `path` on success and is removed on an exception.

    Makes the folders above `path`. The file gets the permissions of any new file of the user. Several processes may
    write the same path: each has a file of its own, and the last rename stays.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode  # of a new file under the umask; some writers make private files
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


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """The path of a JSON file with `content`, indented by one space.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value has no form in JSON.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))  # a lone surrogate as its escape
    return Path(path)


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of `folder`, which may not exist yet, has `needed` bytes left."""
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(f"{folder} needs about {needed / 1e9:.1f} GB more; {free / 1e9:.1f} GB are free at {existing}")


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write because the disk or the user's quota is full."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL
