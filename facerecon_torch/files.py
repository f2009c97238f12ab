"""Writing of files: aside, then renamed, so that no reader meets half a file under its name."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["replacing", "write_json"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new path beside `path`, which replaces `path` on success and is removed on an exception.

    The folders above `path` are made. The file gets the permissions that the user's umask gives to a new file. Several
    processes may write one path: each writes a file of its own, and the last rename wins.

    Args:
        path: The file to write.

    Yields:
        The path to write to.

    Example:
        with replacing("report.txt") as aside:
            aside.write_text("done")
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


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """The path of a JSON file with `content`, indented by one space.

    Args:
        path: The file to write.
        content: A value of dictionaries, lists, strings, numbers, booleans and None.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value has no form in JSON.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # a lone surrogate as its escape
    return Path(path)
