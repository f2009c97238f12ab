"""Names of FRGC recordings, SSSSSdNNN, and the texture of each range grid."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facerecon_torch.data.frgc.abs_file import ABS_SUFFIXES
from facerecon_torch.data.frgc.texture import TEXTURE_SUFFIXES
from facerecon_torch.formats.format_errors import format_error, shown

__all__ = ["RecordingName", "find_texture", "list_recordings", "parse_name"]

_STEM = re.compile(r"(\d{5})d(\d{1,6})", re.ASCII)


@dataclass(frozen=True, order=True)
class RecordingName:
    """The numbers of the person and the recording as digits, with leading zeros. Raises ValueError for other text."""

    subject: str
    recording: str

    def __post_init__(self) -> None:
        if not _STEM.fullmatch(self.stem):
            raise ValueError(f"a recording's name must have the form SSSSSdNNN, as in 02463d452; got {self.stem!r}")

    @property
    def stem(self) -> str:
        """The name of the recording's files without their suffixes."""
        return f"{self.subject}d{self.recording}"

    @property
    def next(self) -> "RecordingName":
        """The same person's recording with the next number."""
        return RecordingName(self.subject, str(int(self.recording) + 1).zfill(len(self.recording)))


def parse_name(path: str | Path) -> RecordingName:
    """The parts of the name of a range grid or texture, or of its stem. Raises DataFileError if it does not fit."""
    file = Path(path)
    stem = _stem(file, (*ABS_SUFFIXES, *TEXTURE_SUFFIXES))
    match = _STEM.fullmatch(stem)
    if match is None:
        raise format_error(file, "name", "SSSSSdNNN, as in 02463d452.abs.gz", shown(file.name))
    return RecordingName(match.group(1), match.group(2))


def find_texture(range_file: str | Path) -> Path:
    """The texture of a range grid: the one of the same name, else the one of the next number.

    In the published set the texture of a capture may have the number after that of its range grid. A texture with a
    range grid of its own number is not taken. Raises DataFileError if there is no texture.
    """
    file = Path(range_file)
    name = parse_name(file)
    same, after = (_existing(file.parent, n.stem, TEXTURE_SUFFIXES) for n in (name, name.next))
    if same is not None:
        return same
    taken = _existing(file.parent, name.next.stem, ABS_SUFFIXES)
    if after is not None and taken is None:
        return after
    got = f"only {after.name}, which belongs to {taken.name}" if after and taken else "neither"
    raise format_error(file, "texture", f"{name.stem}.ppm or {name.next.stem}.ppm (or .ppm.gz) beside it", got)


def list_recordings(root: str | Path) -> list[Path]:
    """The range grids below `root`, ordered by person and number, without hidden files.

    Raises DataFileError if there are none, for a name that does not fit, and for a recording with two files.
    """
    folder = Path(root)
    named = [p for p in folder.rglob("*") if p.name.lower().endswith(ABS_SUFFIXES) and p.is_file()]
    found = [p for p in named if not p.name.startswith(".")]
    if not found:
        got = "none" if folder.is_dir() else "no folder"
        raise format_error(folder, "folder", "range grids SSSSSdNNN.abs or .abs.gz in it or below it", got)
    files: dict[RecordingName, Path] = {}
    for file in sorted(found):
        name = parse_name(file)
        if name in files:
            raise format_error(file, "recording", "every recording once", f"the same one at {files[name]}")
        files[name] = file
    ordered = sorted(files, key=lambda name: (name.subject, int(name.recording), name.recording))
    return [files[name] for name in ordered]


def _stem(file: Path, suffixes: Sequence[str]) -> str:
    lower = file.name.lower()
    ending = max((s for s in suffixes if lower.endswith(s)), key=len, default="")
    return file.name[: len(file.name) - len(ending)]


def _existing(folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    return next((p for suffix in suffixes if (p := folder / f"{stem}{suffix}").is_file()), None)
