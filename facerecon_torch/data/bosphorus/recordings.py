"""Bosphorus as recordings: .bnt, .png and .lm3 of one scan, named bsSSS_CLASS_CODE_REP.

The .lm2 file is not read: its points are those of the .lm3 file in the picture, which u, v of the .bnt file also give.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from facerecon_torch.data.bosphorus.bnt import read_bnt
from facerecon_torch.data.bosphorus.landmarks import read_landmarks
from facerecon_torch.data.recordings import RecordedScan, Recording
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.format_errors import format_error, shown
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.scheme import to_paper66

__all__ = [
    "CLASSES",
    "ScanName",
    "list_scans",
    "parse_name",
    "partner",
    "DEFAULT_KINDS",
    "KINDS",
    "list_recordings",
    "read_recording",
]

CLASSES = {
    "N": "neutral",
    "E": "emotion",
    "LFAU": "lower-face action unit",
    "UFAU": "upper-face action unit",
    "CAU": "combined action units",
    "YR": "yaw rotation",
    "PR": "pitch rotation",
    "CR": "cross rotation",
    "O": "occlusion",
    "IGN": "to be ignored",
}
SUFFIXES = (".bnt", ".lm2", ".lm3", ".png")

_GRAMMAR = "bsSSS_CLASS_CODE_REP, as in bs000_LFAU_12L_0"
_SUBJECT = re.compile(r"bs(\d{3})", re.ASCII)
_CODE = re.compile(r"[^\s_/\\.\x00-\x1f\x7f]+")
_REPETITION = re.compile(r"0|[1-9]\d{0,3}", re.ASCII)
KINDS = tuple(CLASSES)
DEFAULT_KINDS = tuple(kind for kind in CLASSES if kind != "IGN")


@dataclass(frozen=True, order=True)
class ScanName:
    """Subject (0 to 104 in the published set), class (a key of CLASSES), code of the pose, and running number.

    A code is any text without `_`, `.`, white space and slashes, because the published set has codes that are listed
    nowhere. Raises ValueError for parts that do not form a name.
    """

    subject: int
    kind: str
    code: str
    repetition: int

    def __post_init__(self) -> None:
        if self.kind not in CLASSES:
            raise ValueError(f"kind must be one of {', '.join(CLASSES)}; got {self.kind!r}")
        if not (0 <= self.subject <= 999 and 0 <= self.repetition <= 9999 and _CODE.fullmatch(self.code)):
            raise ValueError(f"a scan's name must have the form {_GRAMMAR}; got {self!r}")

    @property
    def stem(self) -> str:
        """The name of the scan's files, without suffix."""
        return f"bs{self.subject:03d}_{self.kind}_{self.code}_{self.repetition}"


def parse_name(path: str | Path) -> ScanName:
    """The parts of the name of a scan's file, or of its stem. Raises DataFileError for the part that does not fit."""
    file = Path(path)
    stem = file.name[: -len(file.suffix)] if file.suffix.lower() in SUFFIXES else file.name
    fields = stem.split("_")
    if len(fields) != 4:
        raise format_error(file, "name", f"four parts joined by _, {_GRAMMAR}", shown(file.name))
    subject, kind, code, repetition = fields
    number = _SUBJECT.fullmatch(subject)
    if number is None:
        raise format_error(file, "subject in the name", "bs and three digits", shown(subject))
    if kind not in CLASSES:
        raise format_error(file, "class in the name", f"one of {', '.join(CLASSES)}", shown(kind))
    if not _CODE.fullmatch(code):
        raise format_error(file, "code in the name", "text without white space, dots and slashes", shown(code))
    if not _REPETITION.fullmatch(repetition):
        raise format_error(file, "repetition in the name", "a number without leading zeros", shown(repetition))
    return ScanName(int(number.group(1)), kind, code, int(repetition))


def partner(path: str | Path, suffix: str) -> Path:
    """The file of the same scan with another suffix. Raises DataFileError if it is missing."""
    file = Path(path)
    wanted = file.with_suffix(suffix)
    if not wanted.is_file():
        beside = sorted(p.name for p in file.parent.glob(f"{file.stem}.*") if p.name != wanted.name)
        raise format_error(
            wanted, "file", f"the {suffix} file of the scan {file.stem}", f"only {', '.join(beside) or 'none'}"
        )
    return wanted


def list_scans(root: str | Path, classes: Collection[str] = tuple(CLASSES)) -> list[Path]:
    """The .bnt files in the folders bsSSS of `root`, ordered by subject, class, code and number, without hidden files.

    Args:
        root: The folder with the subjects' folders.
        classes: Keys of CLASSES.

    Raises:
        DataFileError: There is no such folder or scan, a name does not fit, or a scan is in another subject's folder.
        ValueError: A class is unknown.
    """
    unknown = sorted(set(classes) - set(CLASSES))
    if unknown:
        raise ValueError(f"classes must be among {', '.join(CLASSES)}; got {', '.join(unknown)}")
    folder = Path(root)
    subjects = [p for p in folder.iterdir() if p.is_dir() and _SUBJECT.fullmatch(p.name)] if folder.is_dir() else []
    if not subjects:
        raise format_error(folder, "folder", "folders bs000, bs001, ... of subjects", _contents(folder))
    files = [p for subject in subjects for p in subject.iterdir() if p.suffix.lower() == ".bnt"]
    named = [(parse_name(p), p) for p in files if not p.name.startswith(".")]
    for name, file in named:
        if file.parent.name != f"bs{name.subject:03d}":
            raise format_error(
                file, "subject in the name", f"that of its folder, {file.parent.name}", f"{name.subject:03d}"
            )
    chosen = sorted((name, file) for name, file in named if name.kind in classes)
    if not chosen:
        raise DataFileError(f"{folder}: scans: expected .bnt files of the classes {', '.join(classes)}; got none")
    return [file for _, file in chosen]


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "a file" if folder.is_file() else "nothing: there is no such folder"
    names = sorted(p.name for p in folder.iterdir())
    return shown(", ".join(names[:5])) if names else "an empty folder"


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
