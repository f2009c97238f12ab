"""Bosphorus as recordings: .bnt, .png and .lm3 of one scan.

The .lm2 file is not read: its points are those of the .lm3 file in the picture, which u, v of the .bnt file also give.
"""

import os
from pathlib import Path

import torch

from facerecon_torch.data.bosphorus.bnt import read_bnt
from facerecon_torch.data.bosphorus.landmarks import read_landmarks
from facerecon_torch.data.bosphorus.names import CLASSES, SUFFIXES, list_scans, parse_name, partner
from facerecon_torch.data.recordings import RecordedScan, Recording
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.format_errors import format_error
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.scheme import to_paper66

__all__ = ["DEFAULT_KINDS", "KINDS", "list_recordings", "read_recording"]

KINDS = tuple(CLASSES)
DEFAULT_KINDS = tuple(kind for kind in CLASSES if kind != "IGN")


def list_recordings(root: str | os.PathLike[str]) -> list[Recording]:
    """The scans in the folders bsSSS of `root`, or of its folders, ordered by name.

    A scan is listed if any of its files exists; `read_recording` raises for a missing one.

    Raises:
        DataFileError: There is no such folder or scan, a .bnt file has another name or is in another subject's folder,
            or a subject has two folders.
    """
    folder = Path(root)
    recordings: dict[str, Recording] = {}
    owners: dict[str, Path] = {}
    for home in _homes(folder):
        scans = {file.with_suffix(".bnt") for file in list_scans(home)}
        for file in sorted(scans | _orphans(home)):
            owner = owners.setdefault(file.parent.name, file.parent)
            if owner != file.parent:
                raise format_error(file.parent, "subject", "one folder for every subject", f"another one, {owner}")
            recordings[file.stem] = _recording(file)
    return [recordings[name] for name in sorted(recordings)]


def read_recording(recording: Recording) -> RecordedScan:
    """The grid, picture and landmarks of a scan. Raises DataFileError or ImageFileError."""
    bnt, lm3 = recording.files
    for file in (bnt, lm3, recording.image):
        partner(bnt, file.suffix)
    scan = read_bnt(bnt)
    image = read_image(recording.image)
    marks = read_landmarks(lm3)
    points, known = marks.ibug68()
    labelled = to_paper66(points.where(known[:, None], torch.nan))
    height, width = image.shape[-2:]
    return RecordedScan(scan.grid, scan.pixels(height, width), image, labelled, marks.points)


def _homes(folder: Path) -> list[Path]:
    """The folders that contain subjects: `folder` or folders in it; `folder` if there is none."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    homes = [home for home in (folder, *inside) if any(_is_subject(path) for path in home.iterdir())] if inside else []
    return homes or [folder]


def _is_subject(path: Path) -> bool:
    name = path.name
    return path.is_dir() and len(name) == 5 and name.startswith("bs") and name[2:].isdecimal()


def _orphans(home: Path) -> set[Path]:
    """The paths of the .bnt files of all scans of which any file exists."""
    others = (p for p in home.glob("bs*/*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return {path.with_suffix(".bnt") for path in others if _is_scan(path)}


def _is_scan(path: Path) -> bool:
    try:
        return f"bs{parse_name(path).subject:03d}" == path.parent.name
    except DataFileError:  # not a file of a scan
        return False


def _recording(file: Path) -> Recording:
    name = parse_name(file)
    files = (file, file.with_suffix(".lm3"))
    return Recording(name.stem, f"bs{name.subject:03d}", name.kind, name.code, file.with_suffix(".png"), files)
