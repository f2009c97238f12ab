"""The scans of the Bosphorus layout: which person has which, and their expressions and head rotations.

105 people and 4666 scans, with the published number per class. A code that c of the 105 people have is given to the
people of rank below c. Ranks are spread evenly over the person numbers, so the scans of a person do not depend on how
many people are written. A code of facial action units (FACS) is a number with an optional L or R (the person's side)
and an optional LW (low intensity); combined codes join several, each with a leading A: 12, 12L, 12LW, A26A12LW.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.bosphorus.recordings import CLASSES, ScanName
from facerecon_torch.synthetic.people.sampling import POSED_FACES, pose_expression
from facerecon_torch.synthetic.procedural import clipped_normal, uniform

__all__ = [
    "ACTION_UNITS",
    "ANGLES",
    "PEOPLE",
    "CodeCount",
    "code_counts",
    "draw_angles",
    "draw_weights",
    "parse_units",
    "plan_subject",
    "unit_recipe",
]

PEOPLE = 105
_STRIDE = 64  # about 105 / golden ratio, and prime to 105

_EMOTIONS = {"ANGER": 71, "DISGUST": 69, "FEAR": 70, "HAPPY": 106, "SADNESS": 66, "SURPRISE": 71}
_LOWER = ("9", "10", "12", "12L", "12R", "12LW", "14", "15", "16", "17",
          "18", "20", "22", "23", "24", "25", "26", "27", "28", "34")  # fmt: skip
_UPPER = ("1", "2", "4", "43", "44")
_COMBINED = ("A12A15", "A22A25", "A26A12LW")
_OCCLUSIONS = {"EYE": 105, "MOUTH": 105, "GLASSES": 104, "HAIR": 67}
_NEUTRALS = (105, 95, 70, 29)  # people with at least 1, 2, 3, 4 neutral scans
ANGLES: dict[str, tuple[float, float]] = {
    "R10": (10.0, 0.0), "R20": (20.0, 0.0), "R30": (30.0, 0.0), "R45": (45.0, 0.0), "R90": (90.0, 0.0),
    "L45": (-45.0, 0.0), "L90": (-90.0, 0.0),
    "U": (0.0, 15.0), "SU": (0.0, 30.0), "D": (0.0, -15.0), "SD": (0.0, -28.0),
    "RU": (45.0, 20.0), "RD": (45.0, -20.0),
}  # fmt: skip
"""Rotation code -> yaw and pitch in degrees. R turns the nose to the right of the image, U up."""
_EMOTION_CODES = ("ANGER", "DISGUST", "FEAR", "SADNESS", "SURPRISE")
_FACES = {"HAPPY": "broad smile", **{code: code.lower() for code in _EMOTION_CODES}}
_REST = {"eyeSquint": 0.12, "jawOpen": 0.02, "mouthPress": 0.06, "browInnerUp": 0.08}  # largest, of a neutral face
_CLOSED_EYES = ("43", "44")
ACTION_UNITS: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 0.9},
    2: {"browOuterUp": 0.9},
    4: {"browDown": 0.9},
    9: {"noseSneer": 0.9, "browDown": 0.3},
    10: {"mouthUpperUp": 0.8, "noseSneer": 0.15},
    12: {"mouthSmile": 0.85, "cheekSquint": 0.3},
    14: {"mouthDimple": 0.9},
    15: {"mouthFrown": 0.9},
    16: {"mouthLowerDown": 0.85},
    17: {"mouthShrugLower": 0.9, "mouthShrugUpper": 0.3},
    18: {"mouthPucker": 0.8},
    20: {"mouthStretch": 0.9},
    22: {"mouthFunnel": 0.8},
    23: {"mouthPress": 0.5, "mouthRollLower": 0.35, "mouthRollUpper": 0.25},
    24: {"mouthPress": 0.9},
    25: {"mouthLowerDown": 0.35, "mouthUpperUp": 0.2},
    26: {"jawOpen": 0.35},
    27: {"jawOpen": 0.85},
    28: {"mouthRollLower": 0.9, "mouthRollUpper": 0.85},
    34: {"cheekPuff": 0.9, "mouthPress": 0.3},
    43: {"eyeBlink": 1.0},
    44: {"eyeBlink": 0.95, "eyeSquint": 0.6, "cheekSquint": 0.4},
}
"""Action unit -> expressions of the default face and their weights at full intensity."""
_LOW = 0.45
_ONE = r"(\d{1,2})(LW|L|R)?"
_SIDES = {"L": "Left", "R": "Right"}
_UNITS_WITH_SIDES = ("mouthSmile", "mouthDimple", "mouthFrown", "mouthStretch", "eyeBlink", "eyeSquint", "browDown")


@dataclass(frozen=True)
class CodeCount:
    """Number of people with a scan of one class, code and repetition."""

    kind: str
    code: str
    repetition: int
    people: int


def _even(total: int, codes: tuple[str, ...]) -> dict[str, int]:
    """A total divided among the codes into counts that differ by at most one."""
    return {code: total // len(codes) + (i < total % len(codes)) for i, code in enumerate(codes)}


@lru_cache(maxsize=1)
def code_counts() -> tuple[CodeCount, ...]:
    """The counts of the whole set, class by class."""
    yaw, pitch, cross = (dict.fromkeys(codes, PEOPLE) for codes in (tuple(ANGLES)[:7], tuple(ANGLES)[7:11], ("RU",)))
    tables: dict[str, dict[str, int]] = {
        "E": _EMOTIONS,
        "LFAU": _even(1549, _LOWER),
        "UFAU": _even(432, _UPPER),
        "CAU": _even(169, _COMBINED),
        "YR": yaw,
        "PR": {**pitch, "SD": PEOPLE - 1},
        "CR": {**cross, "RD": PEOPLE + 1},
        "O": _OCCLUSIONS,
        "IGN": {"IGN": 18},
    }
    counts = [CodeCount("N", "N", repetition, people) for repetition, people in enumerate(_NEUTRALS)]
    for kind, table in tables.items():
        for code, total in table.items():
            counts += [
                CodeCount(kind, code, repetition, min(PEOPLE, total - done))
                for repetition, done in enumerate(range(0, total, PEOPLE))
            ]
    return tuple(counts)


def plan_subject(subject: int, samples: int | None = None) -> list[ScanName]:
    """The sorted scans of one person (0 to 104); with `samples`, at most that many, spread over the classes.

    Raises ValueError for another person.
    """
    if not 0 <= subject < PEOPLE:
        raise ValueError(f"the Bosphorus layout has subjects 0 to {PEOPLE - 1}; got {subject}")
    scans = [
        ScanName(subject, each.kind, each.code, each.repetition)
        for place, each in enumerate(code_counts())
        if _rank(subject, place if each.kind != "N" else 0) < each.people
    ]
    return sorted(scans if samples is None else _spread(scans, subject)[:samples])


def _rank(subject: int, place: int) -> int:
    return ((subject + 1 + 8 * place) * _STRIDE) % PEOPLE


def _spread(scans: list[ScanName], subject: int) -> list[ScanName]:
    """The first scan of each class, then the second of each, and so on; the first code differs between people."""
    classes = [[scan for scan in scans if scan.kind == kind] for kind in CLASSES]
    turned = [group[subject % len(group) :] + group[: subject % len(group)] for group in classes if group]
    turned[0].sort()  # a neutral face first
    return [scan for row in zip_longest(*turned) for scan in row if scan is not None]


def draw_weights(names: tuple[str, ...], scan: ScanName, generator: torch.Generator) -> Float[Tensor, "exps"]:
    """Random weights of the expressions `names` for a scan's class and code."""
    recipe: dict[str, float] = {}
    if scan.kind == "E":
        recipe = POSED_FACES[_FACES[scan.code]]
    elif scan.kind in ("LFAU", "UFAU", "CAU"):
        recipe = unit_recipe(scan.code)
    elif scan.kind == "IGN":
        recipe = POSED_FACES["talk"]
    weights = pose_expression(names, recipe, uniform(generator, 0.85, 1.1), generator)
    if scan.code in _CLOSED_EYES:
        weights[[names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]] = 1.0
    return torch.maximum(weights, pose_expression(names, _REST, uniform(generator), generator))


def draw_angles(scan: ScanName, generator: torch.Generator) -> Float[Tensor, "3"]:
    """Yaw, pitch and roll in rad: the angles of the scan's code with random deviations."""
    yaw, pitch = ANGLES.get(scan.code, (0.0, 0.0)) if scan.kind in ("YR", "PR", "CR") else (0.0, 0.0)
    loose = 2.5 if (yaw, pitch) == (0.0, 0.0) else 3.5
    yaw += (
        clipped_normal(generator, 0.0, loose, -8.0, 8.0)
        if abs(yaw) < 80
        else clipped_normal(generator, 0.0, 2.0, -5.0, 5.0)
    )
    pitch += clipped_normal(generator, 0.0, loose, -8.0, 8.0)
    return torch.tensor([yaw, pitch, clipped_normal(generator, 0.0, 1.5, -5.0, 5.0)]) * (math.pi / 180)


def parse_units(code: str) -> list[tuple[int, str]]:
    """The (number, side) of each action unit of a code; side is "", "L", "R" or "LW".

    Raises ValueError for text that is no such code.
    """
    pattern = rf"(?:A{_ONE})+" if code.startswith("A") else _ONE
    if not re.fullmatch(pattern, code):
        raise ValueError(f"an action unit's code must look like 12, 12L, 12LW or A26A12LW; got {code!r}")
    return [(int(number), side) for number, side in re.findall(_ONE, code)]


def unit_recipe(code: str) -> dict[str, float]:
    """The weights of the default face's expressions for a code; one-sided codes name the side.

    Raises ValueError for an unknown action unit.
    """
    recipe: dict[str, float] = {}
    for number, mark in parse_units(code):
        if number not in ACTION_UNITS:
            raise ValueError(f"action unit must be one of {sorted(ACTION_UNITS)}; got {number} in {code!r}")
        for stem, level in ACTION_UNITS[number].items():
            name = stem + _SIDES[mark] if mark in _SIDES and stem in _UNITS_WITH_SIDES else stem
            recipe[name] = max(recipe.get(name, 0.0), level * (_LOW if mark == "LW" else 1.0))
    return recipe
