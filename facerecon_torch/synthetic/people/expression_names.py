"""Names of expressions in other models, as the names of the default face's units."""

import re
from collections.abc import Sequence

__all__ = ["FACEWAREHOUSE_UNITS", "unit_names"]

FACEWAREHOUSE_UNITS = {
    "EyeBlink": "eyeBlink",
    "EyeSquint": "eyeSquint",
    "EyeDown": "eyeLookDown",
    "EyeIn": "eyeLookIn",
    "EyeOpen": "eyeWide",
    "EyeOut": "eyeLookOut",
    "EyeUp": "eyeLookUp",
    "BrowsD": "browDown",
    "BrowsU_C": "browInnerUp",
    "BrowsU": "browOuterUp",
    "JawFwd": "jawForward",
    "JawLeft": "jawLeft",
    "JawOpen": "jawOpen",
    "JawRight": "jawRight",
    "MouthLeft": "mouthLeft",
    "MouthRight": "mouthRight",
    "MouthFrown": "mouthFrown",
    "MouthSmile": "mouthSmile",
    "MouthDimple": "mouthDimple",
    "LipsStretch": "mouthStretch",
    "LipsUpperClose": "mouthRollUpper",
    "LipsLowerClose": "mouthRollLower",
    "LipsUpperUp": "mouthUpperUp",
    "LipsLowerDown": "mouthLowerDown",
    "LipsFunnel": "mouthFunnel",
    "LipsPucker": "mouthPucker",
    "ChinLowerRaise": "mouthShrugLower",
    "ChinUpperRaise": "mouthShrugUpper",
    "Sneer": "noseSneer",
    "Puff": "cheekPuff",
    "CheekSquint": "cheekSquint",
}
"""FaceWarehouse's name without its side -> unit of the default face."""
_UNITS = {*FACEWAREHOUSE_UNITS.values(), "mouthClose", "mouthPress"}
_SIDES = {"left": "Left", "right": "Right", "l": "Left", "r": "Right"}
_SIDED = re.compile(r"(?P<stem>.+?)(?:[ _.-]+(?P<letter>[lr])|[ _.-]*(?P<word>left|right))", re.IGNORECASE)


def _squeezed(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


_KNOWN = {_squeezed(name): unit for name, unit in FACEWAREHOUSE_UNITS.items()} | {_squeezed(u): u for u in _UNITS}


def unit_names(names: Sequence[str]) -> tuple[str, ...]:
    """Every name as a unit of the default face, with Left or Right where it has a side; other names as they are, with
    their side written so, too.

    Case and separators do not count, and FaceWarehouse's names are known. Where two names stand for one unit, the
    second keeps its own.

    Example:
        >>> unit_names(["eyeBlink_L", "Jaw_Open", "EyeOpen_R", "cheekRaiser_L", "3"])
        ('eyeBlinkLeft', 'jawOpen', 'eyeWideRight', 'cheekRaiserLeft', '3')
    """
    units: list[str] = []
    for name in names:
        unit = _unit_name(name)
        units.append(name if unit in units else unit)
    return tuple(units)


def _unit_name(name: str) -> str:
    if _squeezed(name) in _KNOWN:
        return _KNOWN[_squeezed(name)]
    sided = _SIDED.fullmatch(name)
    if sided is None:
        return name
    side = _SIDES[(sided["letter"] or sided["word"]).lower()]
    return _KNOWN.get(_squeezed(sided["stem"]), sided["stem"]) + side
