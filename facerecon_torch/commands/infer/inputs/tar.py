"""Images inside uncompressed tar files, as WebDataset writes them."""

import os
import tarfile
from collections.abc import Iterator

from facerecon_torch.commands.infer.inputs.entry import Entry, file_entry
from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.read import IMAGE_SUFFIXES

__all__ = ["TAR_SUFFIX", "read_member", "tar_entries"]

TAR_SUFFIX = ".tar"


def tar_entries(path: str) -> Iterator[Entry]:
    """An entry per member that is named like an image; a damaged tar file is an entry with its problem, behind those
    of the members before the damage.

    Only headers are read.
    """
    whole = file_entry(path)
    try:
        with tarfile.open(path, "r:") as opened:
            for member in opened:
                opened.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                name = member.name
                if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.rpartition("/")[2].startswith("."):
                    yield _member_entry(path, member, whole)
            if opened.offset > (whole.size or 0):
                raise tarfile.ReadError("the file ends inside a member")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        yield Entry(path, size=whole.size, changed=whole.changed,
                    problem=f"{path}: expected an uncompressed tar file; {type(error).__name__}: {error}")  # fmt: skip


def _member_entry(path: str, member: tarfile.TarInfo, whole: Entry) -> Entry:
    name = member.name.encode("utf-8", "backslashreplace").decode()
    problem = None if member.isreg() else f"{path}/{name}: expected a file in the tar file; got a link or folder"
    return Entry(path, member=name, offset=member.offset_data, size=member.size, changed=whole.changed, problem=problem)


def read_member(entry: Entry, largest: int) -> bytes:
    """The bytes of a member. Raises ImageFileError where it is larger than `largest`, or the file was cut."""
    size = entry.size or 0
    if size > largest:
        raise ImageFileError(f"{entry.place}: expected an image of at most {largest} bytes; got {size}")
    try:
        with open(entry.path, "rb") as file:
            file.seek(entry.offset or 0)
            data = file.read(size)
    except OSError as error:
        raise ImageFileError(f"{entry.place}: the tar file cannot be read: {error.strerror}") from error
    if len(data) < size or not data:
        raise ImageFileError(f"{entry.place}: expected {size} bytes in the tar file; got {len(data)}")
    return data
