"""FaceWarehouse: where each person's folder and blendshapes lie, and what the blendshapes are called."""

import os
import re
from pathlib import Path

from facerecon_torch.formats.format_errors import damaged

__all__ = ["EXPRESSION_NAMES", "N_TESTERS", "TESTER", "blendshape_file", "find_testers"]

N_TESTERS = 150
TESTER = re.compile(r"Tester_(\d+)")


def find_testers(root: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """(number, folder) of every person below `root`, or below its FaceWarehouse_Data_* folders, by number.

    Raises DataFileError where there is none, and for a person found twice.
    """
    top = Path(root)
    places = [top, *sorted(top.glob("FaceWarehouse_Data_*"))] if top.is_dir() else []
    found: dict[int, Path] = {}
    for folder in (folder for place in places for folder in place.iterdir() if folder.is_dir()):
        match = TESTER.fullmatch(folder.name)
        if match is None:
            continue
        number = int(match.group(1))
        if number in found:
            raise damaged(folder, "tester", "a number of its own", f"the number of {found[number]}")
        found[number] = folder
    if not found:
        inside = ", ".join(sorted(p.name for p in top.iterdir())[:5]) if top.is_dir() else "no folder"
        raise damaged(top, "folder", "Tester_1 .. 150, or FaceWarehouse_Data_* with them", inside or "an empty folder")
    return sorted(found.items())


def blendshape_file(tester: Path) -> Path:
    """shape.bs in a person's folder."""
    return tester / "Blendshape" / "shape.bs"


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{side}" for name in names for side in "LR")


# Row k of shape.bs; L is +x, image right.
EXPRESSION_NAMES = (
    "Neutral",
    *_sides("EyeBlink", "EyeSquint", "EyeDown", "EyeIn", "EyeOpen", "EyeOut", "EyeUp", "BrowsD"),
    "BrowsU_C",
    *_sides("BrowsU"),
    "JawFwd",
    "JawLeft",
    "JawOpen",
    "JawRight",
    "MouthLeft",
    "MouthRight",
    *_sides("MouthFrown", "MouthSmile", "MouthDimple", "LipsStretch"),
    "LipsUpperClose",
    "LipsLowerClose",
    "LipsUpperUp",
    "LipsLowerDown",
    "LipsLowerOpen",
    "LipsFunnel",
    "LipsPucker",
    "ChinLowerRaise",
    "ChinUpperRaise",
    "Sneer",
    "Puff",
    *_sides("CheekSquint"),
)
