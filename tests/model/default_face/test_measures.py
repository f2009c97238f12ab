"""Measures of heads: distances, the points between which they are taken, and their spread between drawn people."""

import numpy as np
import pytest
import torch

from facerecon_torch.model.default_face import load_source
from facerecon_torch.model.default_face.measures import MEASURES, anatomical_vertices, measure, published_measures
from facerecon_torch.model.default_face.report import measure_people

NAMES = list(MEASURES)
POINT_NAMES = sorted({name for ends in MEASURES.values() for end in ends for name in end})
SPREAD = ("zy_zy", "n_gn", "en_en", "ch_ch", "ipd")


@pytest.fixture(scope="module")
def source():
    return load_source(torch.float64)


@pytest.fixture(scope="module")
def points(source):
    return anatomical_vertices(source)


@pytest.fixture(scope="module")
def within_sex(source, points):
    """The measures of 1,000 people without the means of their sex."""
    people = source.sample(1000, torch.Generator().manual_seed(11))
    lengths = torch.cat([measure(source.identity_vertices(part), points) for part in people.sliders.split(100)])
    gender = people.gender.double()
    design = torch.stack([1 - gender, gender], 1)
    return lengths - design @ torch.linalg.lstsq(design, lengths).solution


def test_measures_are_plain_distances_of_points_and_middles(rng):
    heads = 50 * torch.randn(2, 3, 80, 3, generator=rng, dtype=torch.float64)
    points = {name: k for k, name in enumerate(reversed(POINT_NAMES))}
    result = measure(heads, points)
    assert result.shape == (2, 3, len(NAMES))
    for i in range(2):
        for j in range(3):
            head = heads[i, j].numpy()
            for k, (first, second) in enumerate(MEASURES.values()):
                a = sum(head[points[name]] for name in first) / len(first)
                b = sum(head[points[name]] for name in second) / len(second)
                assert float(result[i, j, k]) == pytest.approx(float(np.sqrt(np.square(a - b).sum())), rel=1e-12)


def test_every_measure_is_published_and_every_point_is_known(points):
    published = {row.name for row in published_measures()}
    assert set(NAMES) <= published
    assert set(POINT_NAMES) <= set(points)


def test_points_lie_in_their_order_on_the_mean_head(source, points):
    x, y, z = ({name: float(source.mean[v, axis]) for name, v in points.items()} for axis in range(3))
    down = ["op", "g", "n", "prn", "sn", "ls", "sto_u", "sto_l", "li", "gn"]
    assert sorted(down[1:], key=y.get, reverse=True) == down[1:]
    assert all(abs(x[name]) < 0.2 for name in down)  # the midline
    assert max(z, key=z.get) == "prn"
    assert min(z, key=z.get) == "op"
    assert z["n"] < min(z["g"], z["prn"])
    out = ["en", "lid_{}_b", "lid_{}_a", "ex", "zy", "eu"]
    across = [abs(x[name.format("r") if "{" in name else f"{name}_r"]) for name in out]
    assert across == sorted(across)
    assert y["eu_r"] > y["t_r"]
    assert z["eu_r"] < z["t_r"] < z["zy_r"] < z["ex_r"]  # from the skull over the ear to the eye


def test_points_of_the_two_sides_mirror_each_other(source, points):
    pairs = [(name, name.replace("_r", "_l", 1)) for name in points if "_r" in name]
    assert len(pairs) == 9
    for right, left in pairs:
        a, b = source.mean[points[right]], source.mean[points[left]]
        off = (a * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64) - b).abs()
        assert float(a[0]) < 0 < float(b[0])  # the person's right is image left
        if right == "t_r":  # the ears' mask is lower on the right: only the breadth is alike
            off = off[[0, 2]]
        assert float(off.max()) < 1.0, right


def test_measures_of_the_mean_head_are_near_published_ones(source, points):
    lengths = dict(zip(NAMES, measure(source.mean, points).tolist()))
    for name in (*SPREAD, "head_length", "eu_eu", "t_t", "ex_ex", "n_sn"):
        rows = [row for row in published_measures() if row.name == name]
        sd = float(np.mean([row.sd for row in rows]))
        assert abs(lengths[name] - np.mean([row.mean for row in rows])) < 2 * sd, name


def test_people_of_one_sex_vary_as_published(within_sex):
    for name in SPREAD:
        published = float(np.mean([row.sd for row in published_measures() if row.name == name]))
        assert float(within_sex[:, NAMES.index(name)].std()) == pytest.approx(published, rel=0.25), name


def test_wide_heads_do_not_fix_the_eyes(within_sex):
    ipd, breadth = (within_sex[:, NAMES.index(name)] for name in ("ipd", "t_t"))
    assert 0.2 < float(torch.corrcoef(torch.stack([ipd, breadth]))[0, 1]) < 0.72


def test_the_report_measures_what_people_are(source, points):
    means, deviations = measure_people(source, 300, torch.Generator().manual_seed(5))
    people = source.sample(300, torch.Generator().manual_seed(5))
    lengths = torch.cat([measure(source.identity_vertices(part), points) for part in people.sliders.split(50)])
    men, women = (lengths[rows].mean(0) for rows in (people.gender > 0.9, people.gender < 0.1))
    assert means.shape == (2, len(NAMES))
    torch.testing.assert_close(means[1], men, atol=2.5, rtol=0)
    torch.testing.assert_close(means[0], women, atol=2.5, rtol=0)
    assert bool((means[1] > means[0])[[NAMES.index(name) for name in ("head_length", "zy_zy", "n_gn")]].all())
    assert bool((deviations < lengths.std(0)).all())
