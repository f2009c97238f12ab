"""Random people: weights of the identity targets.

Local sliders and smooth fields have the spreads of the asset, with which published measures vary as they do between
adults; the `mean/` targets move the mean of each ancestry and sex. Target weights are products of the macro sliders
(gender, ancestry, age, muscle, weight), as in MakeHuman. A slider weights its `incr` target when positive and its
`decr` target when negative; left and right are equal. The groups in HELD_OUT are nonzero in the `shifted` family only,
which neither the core nor training uses.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.structures import TensorRecord

__all__ = [
    "ANCESTRIES",
    "HELD_OUT",
    "Family",
    "Identities",
    "axis_spreads",
    "expected_sliders",
    "sample_identities",
    "slider_axes",
]

Family = Literal["core", "shifted"]
ANCESTRIES = ("african", "asian", "caucasian")
HEAD_SHAPES = ("diamond", "invertedtriangular", "oval", "rectangular", "round", "square", "triangular")
OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
HELD_OUT = (
    "ear-", "neck-", "measure-neck", "forehead-nubian", "forehead-trans", "cheek-inner", "eye-eyefold",
    "eye-push2", "nose-greek", "nose-compression", "nose-width1", "chin-bones", "chin-triangle",
    "chin-prominent", "mouth-laugh-lines", "mouth-dimples", "mouth-philtrum", "asym-jaw", "asym-ear",
)  # fmt: skip
"""Prefixes of the local sliders (without l-/r-) that only the `shifted` family uses."""
SIDEWAYS = ("nose-trans-in", "mouth-trans-in", "neck-trans-in", "head-angle-in")

AGE_SHARE, AGE_BETA = 0.7, (0.8, 2.2)
GENDER_BETA, ANCESTRY_DIRICHLET = 0.35, 0.5
MUSCLE_SD, WEIGHT_SD = 0.3, 0.35
LOCAL_SD, LOCAL_LIMIT, ASYMMETRY_SD, SHIFTED_SD = 0.17, 0.9, 0.06, 0.25
HEAD_SHAPE_LIMIT = 0.3
FIELD, MEAN = "field/", "mean/"
"""Beginnings of the names of smooth fields, whose weights may be negative, and of the means of groups."""


@dataclass(frozen=True, kw_only=True)
class Identities(TensorRecord):
    """Random people: target weights and macro sliders."""

    sliders: Float[Tensor, "*n targets"]
    gender: Float[Tensor, "*n"]  # 0 female .. 1 male
    ancestry: Float[Tensor, "*n 3"]  # shares, in the order of ANCESTRIES
    age: Float[Tensor, "*n"]  # 0 young .. 1 old
    muscle: Float[Tensor, "*n"]  # -1 least .. 1 most
    weight: Float[Tensor, "*n"]  # -1 least .. 1 most


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A signed local slider and the target columns of its positive and negative side."""

    name: str
    increase: tuple[int, ...]
    decrease: tuple[int, ...]
    asymmetric: bool
    held_out: bool


def slider_axes(names: tuple[str, ...]) -> tuple[Axis, ...]:
    """The local sliders of the targets `names`, with opposite targets paired and left and right joined.

    Head shapes are left out: they are drawn together.
    """
    column = {name.removeprefix("local/"): i for i, name in enumerate(names) if name.startswith("local/")}
    axes, taken = [], {f"head-{shape}" for shape in HEAD_SHAPES}
    for name in column:
        if name in taken or name.startswith("r-"):
            continue
        other = _opposite(name, column)
        both = [[name], [other] if other else []]
        if name.startswith("l-"):
            both = [[n, "r-" + n.removeprefix("l-")] for n in (x[0] for x in both if x)]
            both += [[]] * (2 - len(both))
        taken.update(n for side in both for n in side)
        plain = name.removeprefix("l-")
        axes.append(
            Axis(
                name=plain,
                decrease=tuple(column[n] for n in both[0]) if other else (),
                increase=tuple(column[n] for n in (both[1] if other else both[0])),
                asymmetric=plain.startswith(("asym-", *SIDEWAYS)),
                held_out=plain.startswith(HELD_OUT),
            )
        )
    return tuple(axes)


def _opposite(name: str, column: dict[str, int]) -> str | None:
    """The target at the high end of the slider whose low end is `name`; None where there is none."""
    if name.startswith("asym-"):
        return name.removesuffix("-l") + "-r"
    for low, high in OPPOSITES:
        if name.endswith(f"-{low}") and f"{name.removesuffix(low)}{high}" in column:
            return f"{name.removesuffix(low)}{high}"
    return None


def sample_identities(
    n: int,
    generator: torch.Generator,
    names: tuple[str, ...],
    spreads: Mapping[str, float],
    *,
    family: Family = "core",
) -> Identities:
    """n random people; `names` are the identity targets in column order, `spreads` those of the asset.

    The same generator state gives the same people. Raises ValueError for a negative n or an unknown family.
    """
    if n < 0 or family not in ("core", "shifted"):
        raise ValueError(f"n must be at least 0 and family core or shifted; got {n}, {family!r}")
    seed = torch.randint(0, 2**62, (2,), generator=generator).tolist()
    draw = np.random.Generator(np.random.PCG64(seed))
    gender = draw.beta(GENDER_BETA, GENDER_BETA, n)
    ancestry = draw.dirichlet([ANCESTRY_DIRICHLET] * 3, n)
    age = AGE_SHARE * draw.beta(*AGE_BETA, n)
    muscle = np.clip(draw.normal(0.0, MUSCLE_SD, n), -1.0, 1.0)
    weight = np.clip(draw.normal(0.0, WEIGHT_SD, n), -1.0, 1.0)
    sliders = _macro_weights(names, gender, ancestry, age, _three_way(muscle), _three_way(weight))
    shape = draw.dirichlet([1.0] * len(HEAD_SHAPES), n) * draw.uniform(0.0, HEAD_SHAPE_LIMIT, (n, 1))
    for k, head in enumerate(HEAD_SHAPES):
        sliders[:, names.index(f"local/head-{head}")] = shape[:, k]
    widths = axis_spreads(names, spreads)
    for axis in slider_axes(names):
        value = draw.normal(0.0, widths[axis.name], n).clip(-LOCAL_LIMIT, LOCAL_LIMIT)
        if axis.held_out and family == "core":
            continue
        sliders[:, list(axis.increase)] = np.maximum(value, 0.0)[:, None]
        sliders[:, list(axis.decrease)] = np.maximum(-value, 0.0)[:, None]
    for column, name in enumerate(names):
        if name.startswith(FIELD):
            sliders[:, column] = draw.normal(0.0, spreads.get(name, 0.0), n)
    return Identities(
        sliders=torch.from_numpy(sliders).float(),
        gender=torch.from_numpy(gender).float(),
        ancestry=torch.from_numpy(ancestry).float(),
        age=torch.from_numpy(age).float(),
        muscle=torch.from_numpy(muscle).float(),
        weight=torch.from_numpy(weight).float(),
    )


def expected_sliders(
    names: tuple[str, ...],
    spreads: Mapping[str, float],
    *,
    gender: float = 0.5,
    ancestry: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
) -> Float[Tensor, "targets"]:
    """The mean of `sample_identities(family="core")`, whose mesh is the mean face as targets are additive; or that of
    the people of one gender and ancestry.

    E max(0, x) = sd / sqrt(2 pi) for a centred normal x; the clipping changes it by less than 1e-3.
    """
    half = np.array([1.0]) / math.sqrt(2.0 * math.pi)
    share = AGE_SHARE * AGE_BETA[0] / sum(AGE_BETA)

    def ends(sd: float) -> dict[str, Float[np.ndarray, "1"]]:
        return {"min": sd * half, "average": 1.0 - 2.0 * sd * half, "max": sd * half}

    macros = np.array([gender]), np.array([ancestry]), np.array([share])
    sliders = _macro_weights(names, *macros, ends(MUSCLE_SD), ends(WEIGHT_SD))
    for head in HEAD_SHAPES:
        sliders[:, names.index(f"local/head-{head}")] = 0.5 * HEAD_SHAPE_LIMIT / len(HEAD_SHAPES)
    widths = axis_spreads(names, spreads)
    for axis in slider_axes(names):
        if not axis.held_out:
            sliders[:, [*axis.increase, *axis.decrease]] = widths[axis.name] * half
    return torch.from_numpy(sliders[0]).float()


def axis_spreads(names: tuple[str, ...], spreads: Mapping[str, float]) -> dict[str, float]:
    """The standard deviation of every local slider: the given one, else that of its kind."""
    widths = {}
    for axis in slider_axes(names):
        usual = ASYMMETRY_SD if axis.asymmetric else SHIFTED_SD if axis.held_out else LOCAL_SD
        widths[axis.name] = spreads.get(axis.name, usual)
    return widths


def _three_way(value: Float[np.ndarray, "n"]) -> dict[str, Float[np.ndarray, "n"]]:
    """A slider in [-1, 1] as weights, of sum 1, of its least, average and most target."""
    return {"min": np.maximum(-value, 0.0), "average": 1.0 - np.abs(value), "max": np.maximum(value, 0.0)}


def _macro_weights(
    names: tuple[str, ...],
    gender: Float[np.ndarray, "n"],
    ancestry: Float[np.ndarray, "n 3"],
    age: Float[np.ndarray, "n"],
    muscle: dict[str, Float[np.ndarray, "n"]],
    weight: dict[str, Float[np.ndarray, "n"]],
) -> Float[np.ndarray, "n targets"]:
    """The weights of the race, universal and mean targets, products of the shares in their names; 0 for others."""
    genders, ages = {"female": 1.0 - gender, "male": gender}, {"young": 1.0 - age, "old": age}
    result = np.zeros((len(gender), len(names)))
    for column, name in enumerate(names):
        kind, rest = name.split("/", 1)
        if kind == "race":
            race, sex, stage = rest.split("-")
            result[:, column] = ancestry[:, ANCESTRIES.index(race)] * genders[sex] * ages[stage]
        elif kind == "mean":
            race, sex = rest.split("-")
            result[:, column] = ancestry[:, ANCESTRIES.index(race)] * genders[sex]
        elif kind == "univ":
            sex, stage, brawn, mass = rest.split("-")
            result[:, column] = genders[sex] * ages[stage]
            result[:, column] *= muscle[brawn.removesuffix("muscle")] * weight[mass.removesuffix("weight")]
    return result
