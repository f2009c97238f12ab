"""Anthropometric measures: their points and lengths on the default face, and how drawn people vary in them."""

import pytest
import torch

from facerecon_torch.model.default_face import load_source
from facerecon_torch.model.default_face.measures import (
    MEASURES,
    anatomical_vertices,
    measure,
    published_measures,
)
from facerecon_torch.model.default_face.report import measure_people, report

NAMES = list(MEASURES)


@pytest.fixture(scope="module")
def source():
    return load_source(torch.float64)


@pytest.fixture(scope="module")
def points(source):
    return anatomical_vertices(source)


def test_a_measure_is_the_distance_of_its_ends(source, points):
    lengths = measure(source.mean, points)
    en = (source.mean[points["en_r"]] - source.mean[points["en_l"]]).norm()
    torch.testing.assert_close(lengths[NAMES.index("en_en")], en)
    left, right = ((source.mean[points[f"lid_{s}_a"]] + source.mean[points[f"lid_{s}_b"]]) / 2 for s in "lr")
    torch.testing.assert_close(lengths[NAMES.index("ipd")], (left - right).norm())
    torch.testing.assert_close(measure(torch.stack([source.mean, 2 * source.mean]), points)[1], 2 * lengths)


def test_points_lie_where_their_names_say(source, points):
    place = {name: source.mean[vertex] for name, vertex in points.items()}
    for name in ("n", "g", "op", "sn", "prn", "gn"):
        assert abs(float(place[name][0])) < 0.1, name
    assert place["g"][1] > place["n"][1] > place["prn"][1] > place["sn"][1] > place["gn"][1]
    assert place["prn"][2] > place["n"][2] > place["op"][2]
    for name in ("eu", "zy", "t", "en", "ex", "al", "ch"):
        mirrored = place[f"{name}_r"] * torch.tensor([-1.0, 1.0, 1.0]).double()
        assert float((mirrored - place[f"{name}_l"]).norm()) < 0.5, name
    assert abs(float(place["t_l"][0])) > abs(float(place["ex_l"][0]))


def test_people_vary_as_published(source):
    _, deviation = measure_people(source, 1000, torch.Generator().manual_seed(5))
    for name in ("zy_zy", "t_t", "n_gn", "ipd", "en_en", "ex_ex", "ch_ch", "sn_gn", "n_sn"):
        rows = [row.sd for row in published_measures() if row.name == name]
        ratio = float(deviation[NAMES.index(name)]) / (sum(rows) / len(rows))
        assert 0.75 < ratio < 1.25, name


def test_inner_measures_are_near_published_means(source):
    means, _ = measure_people(source, 1000, torch.Generator().manual_seed(6))
    for row, sex in enumerate(("female", "male")):
        for name in ("n_gn", "ipd", "ch_ch", "sn_sto", "al_al"):
            rows = [r.mean for r in published_measures() if (r.name, r.sex) == (name, sex)]
            assert abs(float(means[row, NAMES.index(name)]) - sum(rows) / len(rows)) < 3.0, (name, sex)


def test_no_slider_moves_pupils_and_ears_together_any_more(source, points):
    """MakeHuman's people have 0.79 here, adults 0.27."""
    people = source.sample(800, torch.Generator().manual_seed(7)).sliders.double()
    lengths = torch.cat([measure(source.identity_vertices(part), points) for part in torch.split(people, 100)])
    pair = lengths[:, [NAMES.index("ipd"), NAMES.index("t_t")]]
    assert float(torch.corrcoef(pair.mT)[0, 1]) < 0.72


def test_the_report_has_a_line_for_every_measure():
    lines = report(60).splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert lines[1].split()[1] == "189.8"  # published head length of women
