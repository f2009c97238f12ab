"""Anthropometric measures of heads of the default face's topology, mm.

Every measure is the distance of two points, and every point a vertex or the mean of two vertices. The published rows
(definition, mean, standard deviation, population, source) are in the asset's anthropometry.json.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.model.default_face.asset import ASSET_FOLDER
from facerecon_torch.model.default_face.shapes import FaceSource

__all__ = [
    "MEASURES",
    "PublishedMeasure",
    "anatomical_vertices",
    "measure",
    "published_deviation",
    "published_mean",
    "published_measures",
]

_EYES = {"en_r": 39, "en_l": 42, "ex_r": 36, "ex_l": 45}
_MARKS = {
    **_EYES,
    "prn": 30, "al_r": 31, "al_l": 35, "sn": 33, "ch_r": 48, "ch_l": 54, "ls": 51, "li": 57, "sto_u": 62, "sto_l": 66,
    "gn": 8,
    "lid_r_a": 37, "lid_r_b": 40, "lid_l_a": 44, "lid_l_b": 47,
}  # fmt: skip
"""Points that are anatomical iBUG marks (left and right of the person)."""
MEASURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "head_length": (("g",), ("op",)),
    "eu_eu": (("eu_r",), ("eu_l",)),
    "zy_zy": (("zy_r",), ("zy_l",)),
    "t_t": (("t_r",), ("t_l",)),
    "n_gn": (("n",), ("gn",)),
    "ipd": (("lid_r_a", "lid_r_b"), ("lid_l_a", "lid_l_b")),
    "en_en": (("en_r",), ("en_l",)),
    "ex_ex": (("ex_r",), ("ex_l",)),
    "ex_en": (("ex_r",), ("en_r",)),
    "al_al": (("al_r",), ("al_l",)),
    "n_sn": (("n",), ("sn",)),
    "n_prn": (("n",), ("prn",)),
    "sn_prn": (("sn",), ("prn",)),
    "ch_ch": (("ch_r",), ("ch_l",)),
    "sn_ls": (("sn",), ("ls",)),
    "sn_sto": (("sn",), ("sto_u", "sto_l")),
    "ls_sto": (("ls",), ("sto_u", "sto_l")),
    "sto_li": (("sto_u", "sto_l"), ("li",)),
    "ls_li": (("ls",), ("li",)),
    "sn_gn": (("sn",), ("gn",)),
}
"""Name in the published table -> the points at both ends; two points stand for their middle."""


@dataclass(frozen=True, kw_only=True)
class PublishedMeasure:
    """A published mean and standard deviation of adults, mm.

    `sex` is male or female; `population` and `source` are those of the table.
    """

    name: str
    sex: str
    population: str
    n: int
    mean: float
    sd: float
    source: str


@lru_cache(maxsize=1)
def published_measures() -> tuple[PublishedMeasure, ...]:
    """The rows of the committed table."""
    rows = json.loads((ASSET_FOLDER / "anthropometry.json").read_text())["rows"]
    keys = PublishedMeasure.__dataclass_fields__
    return tuple(PublishedMeasure(**{key: row[key] for key in keys}) for row in rows)


def published_mean(name: str, sex: str) -> float | None:
    """The mean of a measure over the tables that have it, each with equal weight."""
    rows = [row.mean for row in published_measures() if (row.name, row.sex) == (name, sex)]
    return float(np.mean(rows)) if rows else None


def published_deviation(name: str) -> float:
    """The standard deviation of a measure within one sex, mm: that of each sex over its tables, then over both."""
    by_sex = ([r.sd for r in published_measures() if (r.name, r.sex) == (name, sex)] for sex in ("female", "male"))
    return float(np.mean([np.mean(rows) for rows in by_sex if rows]))


def anatomical_vertices(source: FaceSource) -> dict[str, int]:
    """The vertex of every point of MEASURES on the mean head.

    Those that are no marks are extremes: the deepest point of the nasal root, the most forward one between the brows,
    the rearmost of the head, the widest of the head above the ears and of the cheekbones, and the front of the ear.
    """
    mean, ears = source.mean, source.masks["ears"]
    marks = source.anatomy
    points = {name: int(marks[number]) for name, number in _MARKS.items()}
    x, y, z = mean.T
    skin = torch.zeros(len(mean), dtype=torch.bool)
    outer = torch.isin(source.triangle_parts, torch.tensor([source.part_names.index("skin")]))
    skin[source.triangles[outer].flatten()] = True
    middle = skin & (x.abs() < 0.5)
    eye, brow = float(y[points["en_r"]]), float(y[marks[[19, 24]]].mean())
    ear = skin & (ears > 0.5) & (x < 0)
    top, front, centre = float(y[ear].max()), float(z[ear].max()), float(y[ear].mean())
    head = skin & (y > float(y[points["gn"]]))
    points["n"] = _extreme(-z, middle & (z > 0) & (y > eye - 3.0) & (y < brow))
    points["g"] = _extreme(z, middle & (y > eye + 8.0) & (y < brow + 8.0))
    points["op"] = _extreme(-z, middle & head)
    cheek = skin & (ears < 0.05) & (z > front + 8.0) & (y > eye - 45.0) & (y < eye)
    tragus = skin & (ears > 0.02) & (ears < 0.6) & ((y - centre).abs() < 8.0)
    right = {
        "eu": _extreme(-x, head & (y > top + 5.0)),
        "zy": _extreme(-x, cheek),
        "t": _extreme(z, tragus & (x < 0)),
    }
    for name, vertex in right.items():
        mirrored = mean[vertex] * mean.new_tensor([-1.0, 1.0, 1.0])
        points |= {f"{name}_r": vertex, f"{name}_l": int((mean - mirrored).norm(dim=1).argmin())}
    return points


def _extreme(value: Float[Tensor, "v"], where: Tensor) -> int:
    return int(torch.where(where, value, -torch.inf).argmax())


def measure(heads: Float[Tensor, "*n v 3"], points: dict[str, int]) -> Float[Tensor, "*n measures"]:
    """The measures of heads, mm, in the order of MEASURES; `points` are those of `anatomical_vertices`."""
    lengths = []
    for ends in MEASURES.values():
        first, second = (heads[..., _rows(end, points), :].mean(-2) for end in ends)
        lengths.append((first - second).norm(dim=-1))
    return torch.stack(lengths, -1)


def _rows(names: tuple[str, ...], points: dict[str, int]) -> Int[Tensor, "n"]:
    return torch.tensor([points[name] for name in names])
