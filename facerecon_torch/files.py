"""Writing of files: under another name first, then renamed, so that no reader meets half a file; and where
it keeps what can be made again."""

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from platformdirs import user_cache_dir

from facerecon_torch.errors import FolderError

__all__ = [
    "CACHE_VARIABLE",
    "cache_folder",
    "is_disk_full",
    "made_once",
    "path_text",
    "replacing",
    "require_space",
    "require_writable",
    "write_bytes",
    "write_json",
]

CACHE_VARIABLE = "FACERECON_CACHE"
"""The environment variable that names the cache folder."""

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | os.PathLike[str], *, flush: bool = False) -> Iterator[Path]:
    """A new path beside `path`, which replaces `path` on success and is removed on an exception.

    Makes the folders above `path`. The file gets the permissions of any new file of the user. Several processes may
    write the same path: each has a file of its own, and the last rename stays. An OSError that names no file, as that
    of a full disk, names `path`. With `flush` the content is on the disk before the file gets its name.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{uuid.uuid4().hex}.part")  # no longer than most names: a name may have 255 bytes
    try:
        aside.touch()
        mode = aside.stat().st_mode  # of a new file under the umask; some writers make private files
        aside.unlink()
        yield aside
        aside.chmod(mode)
        if flush:
            _flush(aside)
        os.replace(aside, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(aside), aside):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        aside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


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


def cache_folder() -> Path:
    """The folder of what can be made again: $FACERECON_CACHE, or the user's cache folder of this package.

    Example:
        >>> cache_folder() / "synthetic"
    """
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("facerecon_torch"))


def require_writable(
    folder: Path, *, name: str = "cache folder", remedy: str = f"set {CACHE_VARIABLE} to a folder that can"
) -> None:
    """Make a folder if it is missing, and a file in it, which is removed again.

    Args:
        folder: by default one of the cache.
        name: of the folder, for the message.
        remedy: the end of the message.

    Raises:
        FolderError: the system refuses.
    """
    probe = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FolderError(f"the {name} {folder} cannot be written ({error.strerror}); {remedy}") from error


def made_once(
    path: Path,
    read: Callable[[Path], _Made | None],
    make: Callable[[], _Made],
    write: Callable[[_Made, Path], object],
    note: str,
) -> _Made:
    """The content of a file of the cache, which is made on the first call.

    Processes that start together make it once (file lock). Where the folder cannot be written, it is made on every
    call, with a warning.

    Args:
        path: of the file.
        read: its content; None where there is no file or a damaged one.
        make: the content.
        write: the content to a path.
        note: beginning of the warning.
    """
    found = read(path)
    if found is not None:
        return found
    try:
        require_writable(path.parent)
    except FolderError as error:
        _log.warning("%s, which takes seconds: %s", note, error)
        return make()
    with FileLock(f"{path}.lock"):
        found = read(path)
        if found is None:
            made = make()
            write(made, path)
            # Tensors of a file lie in memory as in every later process, so that sums round alike.
            found = read(path) or made
    return found


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
