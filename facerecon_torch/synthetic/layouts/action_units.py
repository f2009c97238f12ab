"""Facial action units (FACS) as weights of the default face's expressions.

A code is a number with an optional L or R (the person's side) and an optional LW (low intensity); combined codes join
several, each with a leading A: 12, 12L, 12LW, A26A12LW.
"""

import re

__all__ = ["ACTION_UNITS", "parse_units", "unit_recipe"]

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
