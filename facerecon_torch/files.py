"""Files are written aside and renamed, so that no reader meets half a file."""

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
    """Yield a new path beside `path`; on success it takes the place of `path`, on an exception it is removed.

    Makes the folders above `path`; the file gets the permissions of any new file of the user's. Safe with several
    writers: each has a file of its own and the last rename stays.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode  # what the user's umask makes of a new file; some writers make theirs private
        aside.unlink()
        yield aside
        aside.chmod(mode)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, aside and renamed. Raises ValueError for NaN and infinity, which JSON does not have."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
