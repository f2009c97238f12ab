"""The scans of the Bosphorus layout: 105 people and 4666 scans, with the published number per class.

A code that c of the 105 people have is given to the people of rank below c. Ranks are spread evenly over the person
numbers, so the scans of a person do not depend on how many people are written.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

from facerecon_torch.data.bosphorus.names import CLASSES, ScanName

__all__ = ["ANGLES", "PEOPLE", "CodeCount", "code_counts", "plan_subject"]

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
