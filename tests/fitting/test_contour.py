"""Contour landmarks: silhouette on the far side, fixed vertex on the near side."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.fitting.contour import (
    ContourSpec,
    build_contour_lines,
    contour_normals,
    march_contour,
)
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.topology import FaceTopology

RADII = torch.tensor([70.0, 100.0, 80.0], dtype=torch.float64)
LANDMARKS = 66
STEP = 2.0  # degrees between the vertices of a line


def ellipsoid():
    """An ellipsoid whose contour lines run along circles of latitude, fixed landmarks on the frontal rim."""
    angle = torch.deg2rad(torch.linspace(-80, 80, 17, dtype=torch.float64))
    points, lines, fixed = [torch.zeros(49, 3, dtype=torch.float64)], [], []
    count = 49
    for a in angle:
        # from 10 degrees behind the rim (longitude 90) to 70 degrees in front of it
        side = 1.0 if a >= 0 else -1.0
        longitude = torch.deg2rad(100 - torch.arange(0, 80 + STEP, STEP, dtype=torch.float64))
        latitude = -(math.pi / 2 - a.abs())
        x = side * latitude.cos() * longitude.sin()
        line = torch.stack([x, latitude.sin().expand_as(x), latitude.cos() * longitude.cos()], -1)
        points.append(line * RADII)
        lines.append(list(range(count, count + len(line))))
        fixed.append(count + 5)  # longitude 90
        count += len(line)
    vertices = torch.cat(points)
    topology = FaceTopology(
        triangles=torch.tensor([[0, 1, 2]]),
        uv=torch.zeros(len(vertices), 2),
        landmark_vertices=torch.tensor(list(range(49)) + fixed),
        contour_lines=torch.tensor([[*line, -1] for line in lines]),
        centre_vertices=torch.tensor([0]),
        whole_vertices=torch.tensor([0]),
    )
    return vertices, topology


def with_chin(vertices, topology):
    """The same face, whose line 8 runs over the chin: on an ellipsoid's pole all its vertices are one place."""
    angle = torch.deg2rad(100 - torch.arange(0, 80 + STEP, STEP, dtype=torch.float64))
    arc = torch.stack([0 * angle, -angle.sin(), angle.cos()], -1) * RADII
    return vertices.index_copy(0, topology.contour_lines[8, :-1], arc)


def rotation(yaw=0.0, pitch=0.0, roll=0.0):
    angles = torch.deg2rad(torch.tensor([yaw, pitch, roll], dtype=torch.float64))
    return euler_to_matrix(*angles)


def marched(vertices, topology, pose, spec=None):
    lines = build_contour_lines(vertices, topology)
    slots = march_contour(vertices[lines.vertices], pose, lines, spec or ContourSpec())
    return lines.vertices.gather(1, slots[:, None])[:, 0]


@pytest.mark.parametrize("roll", [0.0, 40.0, -170.0])
@pytest.mark.parametrize("yaw", [-50.0, -25.0, 25.0, 50.0])
def test_the_far_side_lies_on_the_silhouette(yaw, roll):
    vertices, topology = ellipsoid()
    pose = rotation(yaw=yaw, roll=roll)
    chosen = marched(vertices, topology, pose)
    normal = torch.nn.functional.normalize(vertices[chosen] / RADII**2, dim=-1)
    # Near the chin the way out is down, and a turn of the head hardly turns it away.
    far = slice(12, 17) if yaw > 0 else slice(0, 5)
    # On a silhouette vertex the normal is across the line of sight, up to half a step along the line.
    assert (normal @ pose[2])[far].abs().max() < math.sin(math.radians(STEP / 2 + 0.2))


@pytest.mark.parametrize("yaw", [-50.0, -25.0, 25.0, 50.0])
def test_the_near_side_stays(yaw):
    vertices, topology = ellipsoid()
    chosen = marched(vertices, topology, rotation(yaw=yaw))
    near = slice(49, 57) if yaw > 0 else slice(58, 66)
    assert torch.equal(chosen[near.start - 49 : near.stop - 49], topology.landmark_vertices[near])


def test_a_frontal_face_keeps_its_fixed_contour():
    vertices, topology = ellipsoid()
    for yaw in (-3.0, 0.0, 3.0):
        chosen = marched(vertices, topology, rotation(yaw=yaw))
        assert torch.equal(chosen, topology.landmark_vertices[49:])


def test_the_contour_moves_forward_steadily_with_the_turn():
    vertices, topology = ellipsoid()
    last = None
    for yaw in range(0, 60, 2):
        chosen = marched(vertices, topology, rotation(yaw=float(yaw)))[16]
        step = 0 if last is None else int(chosen - last)
        assert 0 <= step <= 5
        last = chosen
    assert last > topology.landmark_vertices[65] + 15


def test_vertices_behind_the_fixed_one_are_never_chosen():
    vertices, topology = ellipsoid()
    behind = topology.contour_lines[16, 0]
    vertices[behind, 0] += 50  # an ear
    for yaw in (0.0, 20.0, 50.0):
        assert behind not in marched(vertices, topology, rotation(yaw=yaw))


def test_the_chin_marches_when_the_head_nods_down_and_stays_when_it_lifts():
    vertices, topology = ellipsoid()
    chin = topology.landmark_vertices[57]
    line = topology.contour_lines[8]
    vertices = with_chin(vertices, topology)
    lifted = marched(vertices, topology, rotation(pitch=25.0))
    nodding = marched(vertices, topology, rotation(pitch=-25.0))
    assert lifted[8] == chin
    assert nodding[8] > chin
    turned = vertices @ rotation(pitch=-25.0).mT
    assert turned[nodding[8], 1] == turned[line[5:-1], 1].min()


def test_batches_equal_single_faces(rng):
    vertices, topology = ellipsoid()
    vertices = with_chin(vertices, topology)
    lines = build_contour_lines(vertices, topology)
    angles = torch.rand(2, 3, 3, generator=rng, dtype=torch.float64) * 2 - 1
    poses = euler_to_matrix(*angles.unbind(-1))
    stretch = 0.8 + 0.4 * torch.rand(2, 3, 1, 3, generator=rng, dtype=torch.float64)
    points = (vertices * stretch)[..., lines.vertices, :]
    together = march_contour(points, poses, lines, ContourSpec())
    for i in range(2):
        for j in range(3):
            assert torch.equal(together[i, j], march_contour(points[i, j], poses[i, j], lines, ContourSpec()))


def test_a_fixed_vertex_off_its_line_is_the_first_candidate():
    vertices, topology = ellipsoid()
    shifted = topology.landmark_vertices.clone()
    shifted[49:] -= 49
    moved = vertices.clone()
    moved[shifted[49:]] = vertices[topology.landmark_vertices[49:]]
    tables = {**topology.tables(), "landmark_vertices": shifted}
    lines = build_contour_lines(moved, FaceTopology(**tables))
    assert torch.equal(lines.vertices[:, 0], shifted[49:])
    assert lines.allowed[:, 0].all()
    assert (lines.path[:, 0] == 0).all()
    assert lines.path[lines.allowed].min() >= 0


def test_normals_point_out_of_the_face_and_survive_coincident_points():
    _, topology = ellipsoid()
    vertices, _ = ellipsoid()
    outward = contour_normals(vertices[topology.landmark_vertices[49:], :2])
    assert_close(outward.norm(dim=-1), torch.ones(17, dtype=torch.float64))
    assert (outward * vertices[topology.landmark_vertices[49:], :2]).sum(-1).min() > 0
    same = torch.zeros(2, 5, 2, dtype=torch.float64, requires_grad=True)
    contour_normals(same).sum().backward()
    assert torch.equal(contour_normals(same), torch.zeros_like(same))
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("degrees", [0.0, -5.0, 91.0, math.nan])
def test_a_turn_outside_its_range_is_refused(degrees):
    with pytest.raises(ValueError, match="full_turn_degrees"):
        ContourSpec(full_turn_degrees=degrees)
