"""Calibration of the default face: spreads of sliders and means of people by ancestry and sex.

Spreads are chosen so that measures vary and go together as published ones do between adults of one sex. A mean is moved
by three things: a share of the way to MediaPipe's canonical face mesh, the size of its sex, and small slider shifts
towards published measures. See `default_face_registration` for the way to the canonical mesh.
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import lsq_linear
from torch import Tensor

from facerecon_torch.commands.build_assets.default_face_registration import CanonicalMesh, way_to_canonical
from facerecon_torch.commands.build_assets.default_face_targets import quantise
from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.model.default_face.asset import ADULT_SIZE, ASSET_FOLDER, SourceAsset
from facerecon_torch.model.default_face.measures import (
    MEASURES,
    anatomical_vertices,
    measure,
    published_deviation,
    published_mean,
    published_measures,
)
from facerecon_torch.model.default_face.shapes import FaceSource
from facerecon_torch.model.default_face.sliders import (
    ANCESTRIES,
    FIELD,
    MEAN,
    axis_spreads,
    expected_sliders,
    slider_axes,
)

__all__ = ["calibrate"]

N_DRAWN, DRAW_SEED = 3000, 20261128
FEWEST, MOST = 0.1, 3.0
"""Limits of a variance, as shares of its usual one."""
USUAL_WEIGHT, PAIR_WEIGHT, AMOUNT_WEIGHT = 0.15, 0.5, 3.0
"""Weights of the equations, against 1 for the variance of a measure."""
CANONICAL_SHARE = {"african": 0.25, "asian": 0.25, "caucasian": 1.0}
"""Share of the way to the canonical mesh, the face of one population: half of it in the mean."""
MEN_SIZE, WOMEN_SIZE = 1.064, 1.080
SURVEYED = {
    "head_length": "ansur2_headlength", "eu_eu": "ansur2_headbreadth", "zy_zy": "ansur2_bizygomaticbreadth",
    "n_gn": "ansur2_mentonsellionlength", "ipd": "ansur2_interpupillarybreadth",
}  # fmt: skip
"""Measure -> its name in the survey that tells ancestries apart."""
CONTRASTS = ("head_length", "eu_eu")
"""Measures of the skull: differences between groups are met, not levels."""
LEVELS = ("en_en", "ex_en", "al_al", "ch_ch", "sn_sto", "ls_sto", "sto_li")
"""Measures of eyes, nose and lips whose published means are met, where they are published: for one ancestry."""
LEVEL_WEIGHT = 0.7
POPULATIONS = {"african": "Black", "asian": "Asian", "caucasian": "White"}


@dataclass(frozen=True)
class Directions:
    """Signed directions of variation: `moves` of the head at weight 1, mm, and `slopes` of the measures."""

    names: tuple[str, ...]
    moves: Float[Tensor, "k head 3"]
    slopes: Float[Tensor, "k measures"]


def calibrate(asset: SourceAsset, tables: dict[str, Int[np.ndarray, "..."]], mesh: CanonicalMesh) -> SourceAsset:
    """The asset with calibrated spreads and with the six `mean/` targets."""
    asset = replace(asset, spreads=asset.spreads | _spreads(FaceSource(asset, dtype=torch.float64)))
    source = FaceSource(asset, dtype=torch.float64)
    means = _mean_targets(source, asset.base, way_to_canonical(source, tables, mesh))
    names, offsets, vertices, steps = quantise(means)
    return replace(
        asset,
        target_names=(*asset.target_names, *names),
        target_offsets=np.concatenate([asset.target_offsets, asset.target_offsets[-1] + offsets[1:]]),
        target_vertices=np.concatenate([asset.target_vertices, vertices]),
        target_steps=np.concatenate([asset.target_steps, steps]),
    )


def _directions(source: FaceSource) -> Directions:
    """Local sliders of the core family and smooth fields; a slider's move is half the way between its two ends."""
    names, moves = [], []
    for axis in slider_axes(source.identity_names):
        if not axis.held_out:
            up, down = (source.identity_targets[list(rows)].sum(0) for rows in (axis.increase, axis.decrease))
            names.append(axis.name)
            moves.append((up - down) / 2)
    for name, target in zip(source.identity_names, source.identity_targets):
        if name.startswith(FIELD):
            names.append(name)
            moves.append(target)
    points = anatomical_vertices(source)
    stacked, step = torch.stack(moves), 0.2
    slopes = (measure(source.mean + step * stacked, points) - measure(source.mean - step * stacked, points)) / 2 / step
    return Directions(tuple(names), stacked, slopes)


def _spreads(source: FaceSource) -> dict[str, float]:
    """The standard deviations of local sliders and fields: bounded least squares in their variances.

    Equations: the variance of every measure, the correlations of pairs, the usual variances, and the amount of identity
    on the face in mm^2, which is kept at that of MakeHuman's people in their own size: it is that of scanned people.
    """
    directions, sds = _directions(source), np.array([published_deviation(name) for name in MEASURES])
    slopes = directions.slopes.numpy() / sds
    macro_measures, macro_amount = _macro_variation(source)
    macro = macro_measures / sds[:, None] / sds
    widths = axis_spreads(source.identity_names, source.spreads) | source.spreads
    usual = np.array([widths[name] ** 2 for name in directions.names])
    face = directions.moves[:, : source.n_face]
    free = align_rigid(source.mean[: source.n_face] + face, source.mean[: source.n_face].expand_as(face))
    amount = (free.apply(source.mean[: source.n_face] + face) - source.mean[: source.n_face]).square().sum(-1).mean(-1)
    rows, goals = [], []
    for (first, second), published in _correlations().items():
        weight = 1.0 if first == second else PAIR_WEIGHT
        rows.append(weight * slopes[:, first] * slopes[:, second])
        goals.append(weight * (published - macro[first, second]))
    sculpted = np.array([not name.startswith(FIELD) for name in directions.names])
    wanted = (macro_amount + float((amount.numpy() * usual)[sculpted].sum())) / ADULT_SIZE**2
    rows.append(AMOUNT_WEIGHT / wanted * amount.numpy())
    goals.append(AMOUNT_WEIGHT / wanted * (wanted - macro_amount))
    system = np.vstack([np.array(rows) * usual, USUAL_WEIGHT * np.eye(len(usual))])
    right = np.concatenate([goals, np.full(len(usual), USUAL_WEIGHT)])
    shares = lsq_linear(system, right, bounds=(FEWEST, MOST)).x
    return {name: round(float(np.sqrt(s * u)), 4) for name, s, u in zip(directions.names, shares, usual)}


def _correlations() -> dict[tuple[int, int], float]:
    """Pairs of measures (a measure with itself: 1) -> published correlation, the mean over the tables."""
    tables = json.loads((ASSET_FOLDER / "anthropometry.json").read_text())["correlations"]
    names = list(MEASURES)
    found: dict[tuple[int, int], list[float]] = {(k, k): [1.0] for k in range(len(names))}
    for table in tables:
        at = [names.index(m) if m in names else None for m in table["measures"]]
        for i, first in enumerate(at):
            for j, second in enumerate(at[:i]):
                if first is not None and second is not None:
                    found.setdefault((min(first, second), max(first, second)), []).append(table["r"][i][j])
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def _macro_variation(source: FaceSource) -> tuple[Float[np.ndarray, "measures measures"], float]:
    """The variation by ancestry, age, muscle and weight: the covariance of the measures within a sex, mm^2, and the
    mean squared distance of a face vertex from the mean face, gender included."""
    people = source.sample(N_DRAWN, torch.Generator().manual_seed(DRAW_SEED))
    sliders = people.sliders.double()
    fixed = torch.tensor([name.startswith(("local/", FIELD)) for name in source.identity_names])
    sliders[:, fixed] = source.mean_sliders[fixed]
    points = anatomical_vertices(source)
    lengths, square = [], 0.0
    for rows in torch.split(sliders, 100):
        heads = source.identity_vertices(rows)
        lengths.append(measure(heads, points))
        square += float((heads - source.mean)[:, : source.n_face].square().sum(-1).mean(-1).sum())
    table, gender = torch.cat(lengths), people.gender.double()
    design = torch.stack([torch.ones_like(gender), gender], 1)
    rest = table - design @ torch.linalg.lstsq(design, table).solution
    return (rest.mT @ rest / len(rest)).numpy(), square / len(sliders)


def _mean_targets(
    source: FaceSource, base: Float[np.ndarray, "head 3"], way: Float[np.ndarray, "head 3"]
) -> dict[str, Float[np.ndarray, "head 3"]]:
    """Name -> displacement of the mean of each ancestry and sex, mm. It makes the mean its own mirror image, which
    MakeHuman's targets of one side do not."""
    directions = _directions(source)
    sds = torch.tensor([published_deviation(name) for name in MEASURES], dtype=torch.float64)
    widths = axis_spreads(source.identity_names, source.spreads) | source.spreads
    variance = torch.tensor([widths[name] ** 2 for name in directions.names], dtype=torch.float64)
    points = anatomical_vertices(source)
    groups = [(race, sex) for race in ANCESTRIES for sex in ("female", "male")]
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    mirror = torch.cdist(torch.from_numpy(base).double() * flip, torch.from_numpy(base).double()).argmin(1)
    heads, moves, lengths = {}, {}, {}
    for race, sex in groups:
        one = [float(name == race) for name in ANCESTRIES]
        sliders = expected_sliders(source.identity_names, source.spreads, gender=float(sex == "male"), ancestry=one)
        heads[race, sex] = head = source.identity_vertices(sliders.double()[None])[0]
        size = (MEN_SIZE if sex == "male" else WOMEN_SIZE) / ADULT_SIZE - 1
        moves[race, sex] = CANONICAL_SHARE[race] * torch.from_numpy(way) + size * source.mean
        lengths[race, sex] = measure(head + moves[race, sex], points)
    overall = torch.stack(list(lengths.values())).mean(0)
    for group in groups:
        goal, weight = _goals(group, groups, overall)
        miss = (goal - lengths[group]) / sds * weight
        slopes = directions.slopes / sds * weight
        system = slopes.mT @ (variance[:, None] * slopes) + torch.eye(len(sds), dtype=torch.float64)
        shift = variance * (slopes @ torch.linalg.solve(system, miss))
        moved = heads[group] + moves[group] + torch.tensordot(shift, directions.moves, 1)
        moves[group] = (moved + moved[mirror] * flip) / 2 - heads[group]
    return {f"{MEAN}{race}-{sex}": np.asarray(move) for (race, sex), move in moves.items()}


def _goals(
    group: tuple[str, str], groups: list[tuple[str, str]], overall: Float[Tensor, "measures"]
) -> tuple[Float[Tensor, "measures"], Float[Tensor, "measures"]]:
    """The goal of every measure of a group and its weight; a weight of 0 is no goal."""
    race, sex = group
    goal, weight = overall.clone(), torch.zeros_like(overall)
    for k, name in enumerate(MEASURES):
        if name in SURVEYED:
            means = {g: _population_mean(SURVEYED[name], *g) for g in groups}
            middle = float(np.mean(list(means.values())))
            goal[k] = means[group] + (overall[k] - middle if name in CONTRASTS else 0.0)
            weight[k] = 1.0
        elif name in LEVELS and race == "caucasian":
            published = published_mean(name, sex)
            if published is not None:
                goal[k], weight[k] = published, LEVEL_WEIGHT
    return goal, weight


def _population_mean(name: str, race: str, sex: str) -> float:
    word = POPULATIONS[race]
    rows = [r for r in published_measures() if r.name == name and r.sex == sex and r.population.endswith(word)]
    return float(np.mean([row.mean for row in rows]))
