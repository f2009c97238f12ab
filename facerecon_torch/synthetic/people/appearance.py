"""Random appearance of a subject, dependent on the macro sliders that shape the head.

Skin tone depends on ancestry; brows, stubble and lips on gender; wrinkles and grey hair on age. In the `shifted` family
skin, hair and make-up are independent of the sliders and come from ranges that the other families never reach; it does
not change with the renderer, so it has none of the detail of `_detail`.
"""

from dataclasses import dataclass
from typing import Any

import torch

from facerecon_torch.synthetic.procedural import clipped_normal, uniform

__all__ = ["Appearance", "Macro", "draw_appearance"]

Colour = tuple[float, float, float]  # linear RGB reflectance

_SKIN: dict[str, Colour] = {
    "african": (0.175, 0.102, 0.068),
    "asian": (0.54, 0.365, 0.265),
    "caucasian": (0.66, 0.43, 0.335),
}
_HAIR: dict[str, Colour] = {
    "black": (0.012, 0.010, 0.009),
    "dark": (0.030, 0.018, 0.012),
    "brown": (0.075, 0.042, 0.024),
    "red": (0.17, 0.060, 0.022),
    "blond": (0.32, 0.21, 0.105),
    "grey": (0.30, 0.29, 0.28),
}
_IRIS: dict[str, Colour] = {
    "dark": (0.035, 0.018, 0.010),
    "brown": (0.10, 0.048, 0.020),
    "hazel": (0.14, 0.095, 0.040),
    "green": (0.10, 0.14, 0.075),
    "blue": (0.11, 0.17, 0.26),
}


@dataclass(frozen=True, kw_only=True)
class Macro:
    """The macro sliders of an identity: gender 0 female to 1 male, age 0 young to 1 old, ancestry shares of sum 1."""

    gender: float
    age: float
    african: float
    asian: float
    caucasian: float


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Parameters of skin, hair, make-up and clothing of one subject. Lengths in mm, most strengths in [0, 1].

    `bumps` is the deviation in mm of the skin's relief between 1 and 7 mm, `mottle` the strength of its specks of
    colour, `tooth_gaps` the darkness between teeth; all three are 0 in the shifted family.
    """

    skin: Colour
    lips: Colour
    iris: Colour
    hair: Colour
    brow_hair: Colour
    cloth: Colour
    cloth_second: Colour
    redness: float
    blotches: float
    freckles: float
    moles: int
    wrinkles: float
    eye_bags: float
    pores: float
    gloss: float
    brow_density: float
    brow_thickness: float
    brow_lift: float
    stubble: float
    beard: float
    moustache: float
    eyeliner: float
    eyeshadow: float
    blush: float
    hair_style: str
    hair_thickness: float
    hairline: float
    fringe: float
    recession: float
    hair_length: float
    hair_curl: float
    collar: float
    stripes: float
    bumps: float
    mottle: float
    tooth_gaps: float


def _mix(colours: list[Colour], weights: list[float]) -> Colour:
    """A mixture of colours in log reflectance."""
    logs = (torch.tensor(colours).log() * torch.tensor(weights)[:, None]).sum(0)
    return _colour(logs.exp())


def _colour(values: torch.Tensor) -> Colour:
    red, green, blue = (float(v) for v in values.clamp(0.004, 0.95))
    return red, green, blue


def _scaled(colour: Colour, factor: float, tint: Colour = (1.0, 1.0, 1.0)) -> Colour:
    return _colour(torch.tensor(colour) * factor * torch.tensor(tint))


def _pick(generator: torch.Generator, names: list[str], weights: list[float]) -> str:
    return names[int(torch.multinomial(torch.tensor(weights), 1, generator=generator))]


def _skin(macro: Macro, generator: torch.Generator, shifted: bool) -> Colour:
    if shifted:  # tones between and beyond the three ancestries, with olive, ochre and ruddy undertones
        level = uniform(generator, 0.07, 0.75)
        warmth, olive = uniform(generator, 0.45, 0.85), uniform(generator, 0.8, 1.15)
        return _colour(torch.tensor([level, level * warmth**0.8 * olive, level * warmth**1.7]))
    # exponent above 1: a small share changes the tone less than proportionally
    shares = torch.tensor([macro.african, macro.asian, macro.caucasian]).clamp_min(1e-4) ** 1.4
    tone = _mix([_SKIN["african"], _SKIN["asian"], _SKIN["caucasian"]], (shares / shares.sum()).tolist())
    melanin = clipped_normal(generator, 0.0, 0.16, -0.4, 0.4)
    flush = clipped_normal(generator, 0.0, 0.05, -0.12, 0.12)
    tint = (2.718 ** (0.7 * melanin + flush * 0.4), 2.718 ** (melanin - flush), 2.718 ** (1.25 * melanin - flush))
    return _scaled(tone, 1.0 + 0.06 * (1 - macro.gender), tint)


def _hair(macro: Macro, generator: torch.Generator, shifted: bool) -> tuple[Colour, Colour]:
    light = 1.0 if shifted else macro.caucasian**1.5
    weights = [0.05 + 1.2 * (1 - light), 0.3, 0.5 * light + 0.03, 0.08 * light, 0.35 * light]
    natural = _HAIR[_pick(generator, ["black", "dark", "brown", "red", "blond"], weights)]
    grey = max(0.0, min(1.0, (uniform(generator, 0.2, 1.0) * macro.age * 2.2 - 0.55) * 1.4))
    if shifted:
        grey = uniform(generator) if uniform(generator) < 0.3 else 0.0
    tint = uniform(generator, 0.7, 1.35)
    hair = _scaled(_mix([natural, _HAIR["grey"]], [1 - grey, grey]), tint)
    darker = _mix([natural, _HAIR["black"], _HAIR["grey"]], [0.6 - 0.3 * grey, 0.4, 0.3 * grey])
    return hair, darker


def _iris(macro: Macro, generator: torch.Generator, shifted: bool) -> Colour:
    light = 0.9 if shifted else macro.caucasian**1.3
    weights = [1.0 - 0.85 * light, 0.5, 0.3 * light, 0.2 * light, 0.6 * light]
    return _scaled(_IRIS[_pick(generator, list(_IRIS), weights)], uniform(generator, 0.75, 1.3))


def _style(macro: Macro, generator: torch.Generator) -> str:
    male = macro.gender
    bald = 0.20 * male * (0.4 + macro.age)
    weights = [bald, 0.75 * male + 0.10, 0.15 + 0.25 * (1 - male), 0.04 + 0.85 * (1 - male), 0.30 * macro.african]
    return _pick(generator, ["bald", "short", "medium", "long", "afro"], weights)


_THICKNESS = {"bald": (0.2, 0.6), "short": (3.0, 9.0), "medium": (9.0, 20.0), "long": (7.0, 16.0), "afro": (14.0, 40.0)}


def draw_appearance(macro: Macro, generator: torch.Generator, *, shifted: bool = False) -> Appearance:
    """A random appearance of one subject."""
    if shifted:
        macro = Macro(gender=uniform(generator), age=uniform(generator), african=1 / 3, asian=1 / 3, caucasian=1 / 3)
    male, female, old = macro.gender, 1 - macro.gender, macro.age
    skin = _skin(macro, generator, shifted)
    hair, brow_hair = _hair(macro, generator, shifted)
    style = _style(macro, generator)
    has_make_up = uniform(generator) < 0.75 * female**1.5 + (0.3 if shifted else 0.0)
    paint = uniform(generator, 0.3, 1.0) if has_make_up else 0.0
    bearded = uniform(generator) < 0.28 * male**2
    shaved = clipped_normal(generator, 0.35 * male**1.5, 0.22, 0.0, 1.0) * male**1.5
    return Appearance(
        skin=skin,
        lips=_lips(skin, paint, generator, female, shifted),
        iris=_iris(macro, generator, shifted),
        hair=hair,
        brow_hair=brow_hair,
        cloth=_cloth(generator),
        cloth_second=_cloth(generator),
        redness=clipped_normal(generator, 0.5, 0.3, 0.0, 1.2),
        blotches=clipped_normal(generator, 0.35 + 0.35 * old, 0.2, 0.05, 1.0),
        freckles=max(0.0, clipped_normal(generator, 0.35 * macro.caucasian - 0.1, 0.2, 0.0, 1.0)),
        moles=int(torch.randint(0, 6, (), generator=generator)),
        wrinkles=clipped_normal(generator, 0.08 + 0.95 * old**1.3, 0.12, 0.0, 1.2),
        eye_bags=clipped_normal(generator, 0.15 + 0.5 * old, 0.2, 0.0, 1.0),
        pores=clipped_normal(generator, 0.25 + 0.3 * old + 0.15 * male, 0.15, 0.05, 1.0),
        gloss=clipped_normal(generator, 0.5, 0.25, 0.05, 1.2),
        brow_density=clipped_normal(generator, 0.55 + 0.3 * male - 0.15 * old, 0.15, 0.25, 1.1),
        brow_thickness=clipped_normal(generator, 5.2 + 2.6 * male, 1.1, 3.5, 11.0),
        brow_lift=clipped_normal(generator, 0.6 * female, 0.7, -1.5, 2.0),
        stubble=max(0.0, shaved),
        beard=clipped_normal(generator, 0.75, 0.2, 0.3, 1.0) if bearded else 0.0,
        moustache=clipped_normal(generator, 0.75, 0.2, 0.3, 1.0)
        if bearded or uniform(generator) < 0.07 * male
        else 0.0,
        eyeliner=max(paint, clipped_normal(generator, 0.25, 0.12, 0.0, 0.6)),
        eyeshadow=paint * uniform(generator),
        blush=paint * uniform(generator),
        **_hair_style(macro, style, generator),
        collar=uniform(generator, -12.0, 25.0),
        stripes=uniform(generator) if uniform(generator) < 0.3 else 0.0,
        **(dict.fromkeys(("bumps", "mottle", "tooth_gaps"), 0.0) if shifted else _detail(macro, generator)),
    )


def _detail(macro: Macro, generator: torch.Generator) -> dict[str, Any]:
    """The detail of skin and teeth, coarser in the old."""
    return {
        "bumps": clipped_normal(generator, 0.03 + 0.03 * macro.age + 0.01 * macro.gender, 0.012, 0.01, 0.09),
        "mottle": clipped_normal(generator, 0.18 + 0.08 * macro.age, 0.07, 0.05, 0.4),
        "tooth_gaps": uniform(generator, 0.25, 0.75),
    }


def _hair_style(macro: Macro, style: str, generator: torch.Generator) -> dict[str, Any]:
    """The hair parameters of a style."""
    fringed = style in ("medium", "long")
    return {
        "hair_style": style,
        "hair_thickness": uniform(generator, *_THICKNESS[style]),
        "hairline": clipped_normal(generator, 0.0, 4.5, -9.0, 9.0),
        "fringe": uniform(generator, 0.3, 1.0) if fringed and uniform(generator) < 0.3 else 0.0,
        "recession": clipped_normal(generator, 1.1 * macro.age * macro.gender - 0.15, 0.25, 0.0, 1.0),
        "hair_length": uniform(generator, 0.35, 1.0),
        "hair_curl": uniform(generator) ** 2 if style != "afro" else 1.0,
    }


def _lips(skin: Colour, paint: float, generator: torch.Generator, female: float, shifted: bool) -> Colour:
    """The colour of the lips, with lipstick of strength `paint`."""
    depth = clipped_normal(generator, 0.62 - 0.08 * female, 0.07, 0.4, 0.85)
    natural = _scaled(skin, depth + 0.08, (1.12, 0.72, 0.82))
    if paint == 0.0 or uniform(generator) < 0.3:
        return natural
    sticks: list[Colour] = [(0.42, 0.045, 0.055), (0.45, 0.13, 0.13), (0.30, 0.05, 0.09), (0.48, 0.19, 0.16)]
    if shifted:
        sticks = [(0.20, 0.03, 0.16), (0.10, 0.02, 0.02), (0.55, 0.10, 0.22)]
    stick = sticks[int(torch.randint(0, len(sticks), (), generator=generator))]
    return _mix([natural, stick], [1 - 0.75 * paint, 0.75 * paint])


def _cloth(generator: torch.Generator) -> Colour:
    level = uniform(generator) ** 2 * 0.7 + 0.015
    tint = 1 + 0.6 * (torch.rand(3, generator=generator) - 0.5) * 2 * uniform(generator)
    return _colour(level * tint)
