"""The entries of a run, listed from a folder, a pattern, a text list, a manifest, tar files or videos."""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from facerecon_torch.commands.infer.inputs.entry import Entry, file_entry
from facerecon_torch.commands.infer.inputs.manifest import (
    MANIFEST_SUFFIXES,
    has_subjects,
    manifest_rows,
    require_landmarks_of,
    require_manifest,
)
from facerecon_torch.commands.infer.inputs.tar import TAR_SUFFIX, tar_entries
from facerecon_torch.commands.infer.inputs.video import VIDEO_SUFFIXES, video_entries
from facerecon_torch.images.read import IMAGE_SUFFIXES

__all__ = ["InputSpec", "list_entries", "natural_key"]

_LIST_SUFFIXES = (".txt", ".lst")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The inputs of a run.

    Args:
        path: an image, folder, pattern (`photos/**/*.jpg`), list of paths (.txt), manifest (.csv, .parquet), tar file
            or video.
        recursive: look into the folders inside a folder too.
        every: of a video, each so many-th frame.
        left_out: a folder whose files are no inputs: the output.

    Raises:
        ValueError: `every` is below 1.
    """

    path: str
    recursive: bool = False
    every: int = 1
    left_out: Path | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1; got {self.every}")

    def require(self) -> None:
        """Raise FileNotFoundError where nothing is at the path and it is no pattern."""
        if not os.path.lexists(self.path) and not glob.has_magic(self.path):
            raise FileNotFoundError(f"input must be an image or a folder of images; nothing is at {self.path}")

    @property
    def is_manifest(self) -> bool:
        """Whether the path is the file of a manifest."""
        return os.path.isfile(self.path) and self.path.lower().endswith(MANIFEST_SUFFIXES)

    def require_landmarks(self, convention: str) -> None:
        """Raise DataFileError for a manifest with landmarks that this package found, of another convention."""
        if self.is_manifest:
            require_landmarks_of(Path(self.path), convention)

    def require_subjects(self) -> None:
        """Raise ValueError unless the inputs are those of a manifest with a column of subjects."""
        if not self.is_manifest or not has_subjects(Path(self.path)):
            came = "has no such column" if self.is_manifest else "is no manifest"
            raise ValueError(
                f"group_by=subject needs a manifest (.csv, .parquet) with a column `subject`; {self.path} {came}"
            )


def list_entries(spec: InputSpec) -> Iterator[Entry]:
    """The entries of a run in a fixed order: folders and patterns in natural order, lists and manifests in their own.

    Lists, manifests and videos are streamed; names of a folder are held while they are sorted.

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: a folder or pattern without inputs, or a manifest without a column of paths.
    """
    path = spec.path
    if os.path.isdir(path):
        return _some(_folder_entries(spec), f"input must be an image or a folder of images; {path} holds no image")
    spec.require()
    if not os.path.lexists(path):
        matches = sorted(filter(_outside(spec), glob.iglob(path, recursive=True)), key=natural_key)
        return _some(_expanded(matches, spec), f"input must match some file; nothing matches {path}")
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _LIST_SUFFIXES:
        return _some(_expanded(_lines(path), spec), f"input must list paths, one a line; {path} holds none")
    if suffix in MANIFEST_SUFFIXES:
        require_manifest(Path(path))
        return _some(_manifest_entries(spec), f"input must have a row per image; {path} has none")
    return _expanded([path], spec)


def _some(entries: Iterable[Entry], otherwise: str) -> Iterator[Entry]:
    """The entries. Raises ValueError where there are none."""
    count = 0
    for entry in entries:
        count += 1
        yield entry
    if not count:
        raise ValueError(otherwise)


def _expanded(paths: Iterable[str], spec: InputSpec) -> Iterator[Entry]:
    """An entry per image, member of a tar file, or frame of a video."""
    for path in paths:
        suffix = os.path.splitext(path)[1].lower()
        if suffix == TAR_SUFFIX:
            yield from tar_entries(path)
        elif suffix in VIDEO_SUFFIXES:
            yield from video_entries(path, every=spec.every)
        else:
            yield file_entry(path)


def _manifest_entries(spec: InputSpec) -> Iterator[Entry]:
    for row in manifest_rows(Path(spec.path)):
        if row.path.lower().endswith((TAR_SUFFIX, *VIDEO_SUFFIXES)):
            for entry in _expanded([row.path], spec):
                yield replace(entry, subject=row.subject)
        else:
            yield file_entry(row.path, id=row.id, subject=row.subject, box=row.box, points=row.points)


def _lines(path: str) -> Iterator[str]:
    """The paths of a list, one a line, those that are relative from the folder of the list."""
    folder = os.path.dirname(path)
    with open(path, "rb") as file:
        for line in file:
            if name := os.fsdecode(line.rstrip(b"\r\n")):
                yield os.path.join(folder, name)


def _folder_entries(spec: InputSpec) -> Iterator[Entry]:
    """The entries of a folder that are named like images, in natural order; pipes, dangling links and folders of such
    names are among them. Hidden files are left out."""
    others: Counter[str] = Counter()
    yield from _walk(spec.path, spec, _outside(spec), others)
    for what, count in sorted(others.items()):
        _log.warning("%s: %d %s", spec.path, count, what)


def _walk(folder: str, spec: InputSpec, outside: Callable[[str], bool], others: Counter[str]) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as opened:
            found = sorted((natural_key(e.name), e.name, e.is_dir(follow_symlinks=False)) for e in opened)
    except OSError as error:
        if folder == spec.path:
            raise
        yield Entry(folder, problem=f"{folder}: expected a folder that can be listed; {error.strerror}")
        return
    below = []
    for _, name, is_folder in found:
        path, suffix = os.path.join(folder, name), os.path.splitext(name)[1].lower()
        if name.startswith("."):
            continue
        if suffix in IMAGE_SUFFIXES:
            yield file_entry(path)
        elif suffix in (TAR_SUFFIX, *VIDEO_SUFFIXES):
            others["tar files or videos are left out: give their path or a pattern as input"] += 1
        elif not is_folder and os.path.isdir(path):
            others["links to folders are not followed"] += 1
        if is_folder and outside(path):
            below.append(path)
    if not spec.recursive:
        if below:
            others["sub-folders are not searched: recursive=true does"] += len(below)
        return
    for path in below:
        yield from _walk(path, spec, outside, others)


def _outside(spec: InputSpec) -> Callable[[str], bool]:
    """Whether a path is not below the folder that is left out."""
    if spec.left_out is None:
        return lambda path: True
    root = os.path.realpath(spec.left_out)

    def outside(path: str) -> bool:
        own = os.path.realpath(path)
        return own != root and not own.startswith(os.path.join(root, ""))

    return outside


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: runs of digits compare as numbers, everything else without case; img2 stands before img10.

    Example:
        >>> sorted(["img10", "img2"], key=natural_key)
        ['img2', 'img10']
    """
    runs = re.findall(r"\d+|\D+", name.casefold())
    return [(0, int(run), "") if run.isdecimal() else (1, 0, run) for run in runs], name
