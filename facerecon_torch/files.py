"""How every file of the package is written: aside, then renamed, so that nobody meets half a file under its name."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


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
