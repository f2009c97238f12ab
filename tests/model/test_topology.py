"""The topology's refusals: shapes, dtypes, index ranges, padding, duplicates."""

import dataclasses

import pytest
import torch

from facerecon_torch.model.topology import FaceTopology
from tests.tiny_model import tiny_topology

V = 313


def changed(name, row, value):
    table = tiny_topology().tables()[name].clone()
    table[row] = value
    return {name: table}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"landmark_vertices": torch.arange(68)},
            r"landmark_vertices must have shape \(66\) and not be empty; got \(68,\)",
        ),
        ({"contour_lines": torch.zeros(16, 3).long()}, r"contour_lines must have shape \(17, any\)"),
        ({"triangles": torch.zeros(5, 4).long()}, r"triangles must have shape \(any, 3\)"),
        ({"triangles": torch.zeros(0, 3).long()}, "triangles must have .* not be empty"),
        ({"centre_vertices": torch.zeros(2, 2).long()}, r"centre_vertices must have shape \(any\)"),
        ({"uv": torch.zeros(V, 3)}, r"uv must have shape \(any, 2\)"),
        ({"uv": torch.full((V, 2), torch.nan)}, "topology.uv must be finite"),
        (changed("triangles", 0, V), rf"triangles must lie in \[0, {V}\); got 0 to {V}"),
        (changed("landmark_vertices", 3, -1), r"landmark_vertices must lie in \[0"),
        (changed("contour_lines", (2, 1), -2), r"contour_lines must lie in \[-1"),
        (changed("contour_lines", (2, 1), V), r"contour_lines must lie in \[-1"),
        (changed("contour_lines", (2, 1), -1), "-1 before a vertex"),
        (changed("contour_lines", 4, -1), r"lines \[4\] start with -1"),
        (changed("whole_vertices", 1, 0), "whole_vertices must hold every vertex once"),
        (changed("centre_vertices", 0, V + 5), "centre_vertices must lie in"),
    ],
)
def test_refuses_wrong_tables(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_topology(), **changes)


@pytest.mark.parametrize("name", ["triangles", "landmark_vertices", "contour_lines", "centre_vertices", "uv"])
def test_refuses_wrong_types(name):
    with pytest.raises(TypeError, match=f"topology.{name} must be"):
        dataclasses.replace(tiny_topology(), **{name: tiny_topology().tables()[name].to(torch.int32)})
    with pytest.raises(TypeError):
        dataclasses.replace(tiny_topology(), **{name: [[0, 1, 2]]})


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_topology().uv = torch.zeros(V, 2)


def test_moves_as_a_whole(device):
    moved = tiny_topology().to(device)
    assert isinstance(moved, FaceTopology)
    assert {table.device.type for table in moved.tables().values()} == {device.type}
    assert moved.n_vertices == V
