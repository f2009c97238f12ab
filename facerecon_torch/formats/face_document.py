"""Marks and names of the files in which `facerecon infer` leaves faces: shared by their writer and by readers."""

from pathlib import Path

__all__ = ["CONVENTION_KEY", "FACE_FORMAT", "PARAMETERS", "face_suffix", "part_files", "part_name"]

FACE_FORMAT = "facerecon-face"
"""The entry `format` of a document with one face."""
CONVENTION_KEY = "facerecon_convention"
"""The metadata of a table that holds what its landmarks mean; in a document it is the entry `convention`."""
PARAMETERS = "parameters"
"""The folder with the tables of a run."""


def part_name(number: int) -> str:
    """The name of a table among those of `part_files`."""
    return f"part-{number:05d}.parquet"


def part_files(folder: Path) -> list[Path]:
    """The tables part-00000.parquet, part-00001.parquet, ... in a folder, in order; none where it is no such folder."""
    return sorted(folder.glob("part-*.parquet"), key=lambda part: (len(part.name), part.name))


def face_suffix(face: int) -> str:
    """The ending of the stem of a face's file: none for the first face of an image, `_face1` for the second."""
    return f"_face{face}" if face else ""
