"""ImportedModel: what it refuses, and the models that it makes."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import DataFileError, ModelFileError
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.importers.building import expression_names, plausible_unit, rows_with_moments
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors
from facerecon_torch.model.linear import LinearModel
from tests.tiny_model import tiny_bilinear, tiny_linear


def arguments(model):
    topology = model.topology
    return {
        "kind": "bilinear" if isinstance(model, BilinearModel) else "linear",
        "factors": dict(model.factors()),
        "triangles": topology.triangles,
        "uv": topology.uv,
        "expression_names": model.expression_names,
        "topology_name": "tiny",
    }


@pytest.mark.parametrize("source", [tiny_bilinear(), tiny_linear()], ids=["bilinear", "linear"])
def test_makes_the_model_that_its_factors_define(source):
    imported = ImportedModel(**arguments(source))
    assert imported.n_vertices == source.n_vertices
    model = imported.make_model(source.topology)
    assert isinstance(model, LinearModel if imported.kind == "linear" else BilinearModel)
    assert model.sha256 == source.sha256
    other = source.topology.map(lambda table: table if table.is_floating_point() else table.clone())
    other.triangles[0] = other.triangles[0].flip(0)
    with pytest.raises(ValueError, match=r"topology must have the .* triangles of tiny"):
        imported.make_model(other)


def test_mean_of_a_bilinear_model_is_the_mean_of_its_faces():
    source = tiny_bilinear()
    every = torch.stack([source.vertices(row, source.expression_rows) for row in source.identity_rows])
    assert_close(ImportedModel(**arguments(source)).mean_vertices(), every.mean(dim=(0, 1)), rtol=0, atol=1e-3)


def nan_in(array):
    array = array.clone()
    array.view(-1)[3] = float("nan")
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"factors": {k: v for k, v in a["factors"].items() if k != "core"}}, r"missing \['core'\]"),
        (lambda a: a | {"factors": a["factors"] | {"mean": torch.zeros(3)}}, r"unknown \['mean'\]"),
        (lambda a: a | {"factors": a["factors"] | {"core": a["factors"]["core"].half()}}, "core must be a float32"),
        (lambda a: a | {"factors": a["factors"] | {"core": nan_in(a["factors"]["core"])}}, "core must be finite"),
        (lambda a: a | {"factors": a["factors"] | {"core": a["factors"]["core"][..., :2]}}, "expression_rows must"),
        (lambda a: a | {"factors": a["factors"] | {"identity_rows": torch.ones(4, 5)}}, "identity_rows must"),
        (lambda a: a | {"factors": a["factors"] | {"core": a["factors"]["core"] * 0.1}}, "80 to 600 mm long; got 19.7"),
        (lambda a: a | {"factors": a["factors"] | {"core": a["factors"]["core"] * 100}}, "80 to 600 mm long; got 197"),
        (lambda a: a | {"triangles": a["triangles"] + 1}, r"triangles must count vertices in \[0, "),
        (lambda a: a | {"triangles": a["triangles"].int()}, "triangles must be int64"),
        (lambda a: a | {"triangles": a["triangles"][:0]}, "triangles must be int64"),
        (lambda a: a | {"uv": a["uv"][1:]}, "uv must have"),
        (lambda a: a | {"expression_names": a["expression_names"][1:]}, "must be 7 different names"),
        (lambda a: a | {"expression_names": ("neutral",) * 7}, "must be 7 different names"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ImportedModel(**change(arguments(tiny_bilinear())))


def test_errors_of_readers_become_errors_of_model_files():
    with pytest.raises(ModelFileError, match=r"^a: b: expected c; got d$"), as_model_errors():
        raise DataFileError("a: b: expected c; got d")
    with (
        pytest.raises(ModelFileError, match=r"^x\.mat: model: expected .*; got too small$"),
        as_model_errors(Path("x.mat")),
    ):
        raise ValueError("too small")
    with pytest.raises(ValueError, match=r"^an argument$") as caught, as_model_errors():
        raise ValueError("an argument")
    assert not isinstance(caught.value, ModelFileError)


def test_rows_with_moments_have_them(rng):
    mean = torch.randn(6, generator=rng, dtype=torch.float64)
    variance = torch.rand(6, generator=rng, dtype=torch.float64) + 0.1
    rows = rows_with_moments(mean, variance)
    assert_close(rows.mean(dim=0), mean)
    assert_close(rows.T.cov(correction=0), torch.diag(variance))


@pytest.mark.parametrize("unit", [0.1, 1.0, 10.0, 100.0, 1000.0])
def test_unit_is_the_power_of_ten_that_makes_a_face(unit):
    for length in (81.0, 250.0, 599.0):
        corners = torch.tensor([[0.0, 0.0, 0.0], [0.0, length / unit, 1.0 / unit]], dtype=torch.float64)
        assert plausible_unit(Path("a"), corners) == pytest.approx(unit)
    with pytest.raises(ModelFileError, match=r"a: length of the mean face: expected 80 to 600 mm .*; got 7"):
        plausible_unit(Path("a"), torch.tensor([[0.0, 0, 0], [0, 70.0, 0]], dtype=torch.float64))


def test_names_of_expressions():
    assert expression_names(3) == ("neutral", "expression_1", "expression_2")
    assert expression_names(47)[:2] == ("neutral", "EyeBlink_L")
    assert len(set(expression_names(47))) == 47
